"""Read a Serve file for one process. What only Ray can do is a fault that says what to do."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from waypost.config import read_yaml
from waypost.contracts.errors import Fault, MissingExtraError, RegistryError
from waypost.contracts.wording import kind, unknown_key
from waypost.engines import engine_class
from waypost.serve.changes import change_plan
from waypost.serve.checks import plan_of
from waypost.serve.config import PoolEntry, ServeArgs, UserConfig, without_router
from waypost.serve.config_file import BUILDER, check_application, user_config
from waypost.serve.faults import raise_faults
from waypost.serve.gateway.access import client_keys
from waypost.serve.keeping import NODE
from waypost.serve.plan import Plan, served_entries
from waypost.serve.replicas import NodeArgs

HOST = "127.0.0.1"
PORT = 8000

WITHOUT = "needs Ray: serve the file without --local, or take it out"
ONE = "this is one process and has no replicas, so it needs Ray: serve the file without --local"

_FILE = frozenset({"http_options", "applications", "logging_config"})
_APPLICATION = frozenset({"name", "route_prefix", "import_path", "args", "deployments"})
_DEPLOYMENT = frozenset({"name", "user_config"})
_HTTP = frozenset({"host", "port", "keep_alive_timeout_s"})
_OF_RAY = {
    "": {"proxy_location", "grpc_options", "target_capacity"},
    "applications.0.": {"runtime_env", "autoscaling_policy", "external_scaler_enabled"},
}
"""Keys of Ray Serve's own that a file may have, by the place that they stand in."""


@dataclass(frozen=True)
class LocalConfig:
    """A checked file, or arguments, of a gateway in one process.

    Attributes:
        where: File and key of the arguments, for messages.
        path: The file; None where the arguments are given in Python.
        args: The arguments; router and LLMs run in the gateway's process.
        changes: The ``user_config`` of the file.
        host, port: The address to listen on.
        prefix: Path that all requests begin with; "" is none.
    """

    where: str
    path: Path | None
    args: ServeArgs
    changes: UserConfig | None = None
    host: str = HOST
    port: int = PORT
    prefix: str = ""

    @property
    def url(self) -> str:
        """URL of the gateway, without a slash at the end."""
        return f"http://{self.host}:{self.port}{self.prefix}"

    def plan(self) -> Plan:
        """Resolve artifacts, prices and names, and apply the ``user_config``.

        Raises:
            ConfigError, ArtifactError, PoolMismatchError: see `plan_of` and `change_plan`.
        """
        if self.args.api_keys:
            client_keys()
        plan = plan_of(self.args, self.where)
        return plan if self.changes is None else change_plan(plan, self.changes)


def read_local(
    source: str | Path | Mapping[str, Any] | None = None,
    given: Mapping[str, Any] | None = None,
    port: int | None = None,
) -> LocalConfig:
    """Read and check the file or the arguments of a gateway in one process.

    Args:
        source: A Serve file with one application, or only the ``args`` of one; as a path, or its
            content. None has only what is ``given``.
        given: Arguments in place of those of the source; a router replaces all of its routers.
        port: In place of ``http_options.port``.

    Raises:
        ConfigError: with every fault, also of engines and settings that need Ray.
    """
    path = None if source is None or isinstance(source, Mapping) else Path(source)
    data = dict(source) if isinstance(source, Mapping) else {} if path is None else read_yaml(path)
    where = "Gateway" if path is None else str(path)
    whole = isinstance(data, Mapping) and "applications" in data
    found: list[Fault] = []
    if whole:
        found += _file_faults(data, where)
        application = _first(data.get("applications"))
        place = f"{where}: applications.0"
    else:
        application, place = {"args": data}, where
    raw = application.get("args") or {}
    if given and isinstance(raw, Mapping):
        kept = without_router(raw) if _names_router(given) else raw
        application = {**application, "args": {**kept, **given}}
    wrong, args = check_application(application, place, "args" if whole else "")
    found += wrong
    place = f"{place}.args" if whole else place
    if args is not None:
        found += _needs_ray(args, place)
    raise_faults(found)
    assert args is not None  # else there was a fault
    http = data.get("http_options") or {} if whole else {}
    prefix = application.get("route_prefix") or "/"
    return LocalConfig(
        place,
        path,
        _inside(args),
        user_config(application),
        http.get("host", HOST),
        port or http.get("port", PORT),
        prefix.rstrip("/"),
    )


def _names_router(given: Mapping[str, Any]) -> bool:
    router = given.get("router")
    named = isinstance(router, str) or (isinstance(router, Mapping) and "name" in router)
    return named or bool({"artifact", "routers"} & {*given})


def _first(applications: Any) -> dict[str, Any]:
    found = applications[0] if isinstance(applications, list) and applications else None
    return found if isinstance(found, dict) else {}


def _file_faults(data: Mapping[str, Any], where: str) -> Iterator[Fault]:
    """Yield the faults of all but the arguments and the user_config."""
    yield from _keys(data, _FILE, where, "")
    applications = data.get("applications")
    if not isinstance(applications, list) or not applications:
        yield Fault(f"{where}: applications", f"expected a list of one, found {kind(applications)}")
        return
    if len(applications) > 1:
        problem = f"one process serves one of them, found {len(applications)}: write a file of each"
        yield Fault(f"{where}: applications", f"{problem}, or serve them without --local")
    application, place = applications[0], f"{where}: applications.0"
    if not isinstance(application, dict):
        yield Fault(place, f"expected keys and values, found {kind(application)}")
        return
    yield from _keys(application, _APPLICATION, where, "applications.0.")
    if application.get("import_path") != BUILDER:
        yield Fault(f"{place}.import_path", f"expected {BUILDER}")
    prefix = application.get("route_prefix", "/")
    if prefix is not None and not (isinstance(prefix, str) and prefix.startswith("/")):
        yield Fault(f"{place}.route_prefix", "expected a path that begins with /")
    deployments = application.get("deployments") or []
    for index, deployment in enumerate(deployments if isinstance(deployments, list) else ()):
        for key in sorted({*deployment} - _DEPLOYMENT if isinstance(deployment, dict) else ()):
            yield Fault(f"{place}.deployments.{index}.{key}", ONE)
    http = data.get("http_options") or {}
    if not isinstance(http, dict):
        yield Fault(f"{where}: http_options", f"expected keys and values, found {kind(http)}")
        return
    for key in sorted({*map(str, http)} - _HTTP):
        yield Fault(f"{where}: http_options.{key}", f"is Ray Serve's, and {WITHOUT}")
    if not isinstance(http.get("host", HOST), str):
        yield Fault(f"{where}: http_options.host", "expected an address, such as 127.0.0.1")
    port = http.get("port", PORT)
    if isinstance(port, bool) or not isinstance(port, int) or not 0 < port <= 65535:
        yield Fault(f"{where}: http_options.port", "expected a port, from 1 to 65535")


def _keys(data: Mapping[str, Any], known: Iterable[str], where: str, prefix: str) -> list[Fault]:
    return [
        Fault(
            f"{where}: {prefix}{key}",
            f"is Ray Serve's, and {WITHOUT}" if key in _OF_RAY[prefix] else unknown_key(key, known),
        )
        for key in data
        if key not in known
    ]


def _needs_ray(args: ServeArgs, where: str) -> Iterator[Fault]:
    """Yield a fault for every engine and setting of the arguments that only Ray can serve."""
    served = served_entries(args)
    for index, entry in enumerate(args.pool):
        if entry in served:
            yield from _entry(entry, f"{where}: pool.{index}")
    yield from _node(args.router, f"{where}: router")
    yield from _node(args.gateway, f"{where}: gateway")
    if args.gateway.ingress == "serve":
        yield Fault(f"{where}: gateway.ingress", f"Ray Serve's proxy {WITHOUT}")
    if args.gateway.port is not None:
        problem = "is a further port of a replica; here the gateway listens on http_options.port"
        yield Fault(f"{where}: gateway.port", problem)
    if args.chat is not None and "ray_actor_options" in args.chat.model_fields_set:
        yield Fault(f"{where}: chat.ray_actor_options", ONE)
    if args.store_place != NODE:
        yield Fault(
            f"{where}: store_place", f"here there is one machine, {NODE}; another {WITHOUT}"
        )


def _entry(entry: PoolEntry, where: str) -> Iterator[Fault]:
    try:
        remote = engine_class(entry.engine).remote
    except (RegistryError, MissingExtraError):
        remote = True  # is a fault of its own
    if not remote:
        problem = f"{entry.engine} computes answers itself and needs a deployment of Ray: serve the"
        other = "file without --local, or name the endpoint of its server with engine: openai"
        yield Fault(f"{where}.engine", f"{problem} {other}")
    if entry.environment is not None:
        yield Fault(f"{where}.environment", f"another Python environment {WITHOUT}")
    yield from _node(entry, where)


def _node(node: NodeArgs, where: str) -> Iterator[Fault]:
    if (node.num_replicas or 1) > 1:
        yield Fault(f"{where}.num_replicas", ONE)
    for key in ("autoscaling", "ray_actor_options"):
        if key in node.model_fields_set and getattr(node, key) is not None:
            yield Fault(f"{where}.{key}", ONE)


def _inside(args: ServeArgs) -> ServeArgs:
    """Return the arguments with the router and all LLMs of the tier in the gateway's process."""
    inline = {"placement": "inline"}
    pool = tuple(entry.model_copy(update=inline) for entry in served_entries(args))
    router = args.router.model_copy(update=inline)
    return args.model_copy(update={"pool": pool, "router": router})
