"""All uses of private names of Ray (2.60). Check this module when Ray's version changes."""

from __future__ import annotations

import time
from collections.abc import Mapping
from operator import methodcaller
from pathlib import Path
from typing import Any

SERVE_MODULES = ("ray.serve._private.replica", "ray.serve._private.proxy")
"""Modules that a process of Serve needs: a replica, and a proxy."""


def start_serve(data: Mapping[str, Any]) -> None:
    """Start Serve on the Ray of this process and deploy the content of a Serve file.

    Returns before the applications run. The public ``serve.run`` builds in this process and ignores
    the ``deployments`` of a file; these are the calls that the command ``serve run`` makes.
    """
    from ray.serve._private.api import serve_start
    from ray.serve.schema import ServeDeploySchema

    schema = ServeDeploySchema.model_validate(data)
    client = serve_start(
        http_options=schema.http_options.model_dump(),
        proxy_location=schema.proxy_location,
        grpc_options=schema.grpc_options.model_dump(),
        global_logging_config=schema.logging_config,
    )
    client.deploy_apps(schema, _blocking=False)


def update_serve(data: Mapping[str, Any]) -> None:
    """Deploy new content of a Serve file on the running Serve, as ``serve deploy`` over HTTP."""
    from ray.serve.context import _get_global_client
    from ray.serve.schema import ServeDeploySchema

    _get_global_client().deploy_apps(ServeDeploySchema.model_validate(data))


def detach_handle(handle: Any) -> None:
    """Make a deployment's handle callable outside an event loop; call this before its first call.

    By default, handles in throughput mode work only inside an event loop.
    """
    if not handle.is_initialized:
        handle._init(_run_router_in_separate_loop=True)


# Serve's public calls do not separate the wait for a replica from the wait for its answer. It runs
# once per request, and a methodcaller is faster than a function.
assigned = methodcaller("_fetch_future_result_async")
"""Return an awaitable that ends when a call of a handle is assigned to a replica."""


def application_name() -> str:
    """Return the name of the application whose replica this process is; "" if it is none."""
    from ray import serve
    from ray.serve.exceptions import RayServeException

    try:
        return str(serve.get_replica_context().app_name)
    except RayServeException:
        return ""


def deployment(name: str, application: str) -> Any:
    """Return the handle of a deployment that runs. It asks Serve's controller, and waits for it."""
    from ray import serve

    return serve.get_deployment_handle(name, application)


def node_folder() -> Path | None:
    """Return a folder for the processes of this Ray node; None without a Ray.

    Every start of Ray has a new one. It need not be there yet.
    """
    import ray
    from ray._private.worker import global_worker

    if not ray.is_initialized():
        return None
    session, node = (
        global_worker.node.get_session_dir_path(),
        ray.get_runtime_context().get_node_id(),
    )
    return Path(session, "waypost", node)


def dashboard_url() -> str | None:
    """Return host and port of the dashboard of this process's Ray; None if it has no dashboard."""
    from ray._private.worker import get_dashboard_url

    return get_dashboard_url() or None


def start_idle_worker(keep_s: int) -> None:
    """Have Ray start a worker process on this machine that runs nothing yet.

    An actor of this job with the runtime environment of this worker gets it instead of a new one.

    Args:
        keep_s: Seconds for which Ray keeps it idle.

    Raises:
        RuntimeError: Ray does not run in this process.
        Exception: Ray refuses, or has changed; of any type.
    """
    import ray
    from ray._private.grpc_utils import init_grpc_channel
    from ray._private.worker import global_worker
    from ray.core.generated.node_manager_pb2 import PrestartWorkersRequest
    from ray.core.generated.node_manager_pb2_grpc import NodeManagerServiceStub

    if not ray.is_initialized():  # else Ray's calls below would start one
        raise RuntimeError("Ray does not run in this process")
    context = ray.get_runtime_context()
    request = PrestartWorkersRequest(
        language=0,  # Python
        job_id=global_worker.current_job_id.binary(),
        keep_alive_duration_secs=keep_s,
        num_workers=1,
    )
    request.runtime_env_info.serialized_runtime_env = context.get_runtime_env_string()
    node = global_worker.node
    with init_grpc_channel(f"{node.node_ip_address}:{node.node_manager_port}") as channel:
        NodeManagerServiceStub(channel).PrestartWorkers(request, timeout=10)


def drain_node(head: str, node: str, within_s: float, reason: str) -> str:
    """Ask the head to move everything off a node, as the hidden command ``ray drain-node`` does.

    Args:
        head: Address of the head, ``host:port``.
        node: Id of the node, in hexadecimal digits.
        within_s: Seconds after which the node ends in any case.
        reason: Why, for Ray's own log.

    Returns:
        Why the head refuses; "" where it does not.
    """
    from ray import _raylet
    from ray.core.generated import autoscaler_pb2

    preempted = autoscaler_pb2.DrainNodeReason.Value("DRAIN_NODE_REASON_PREEMPTION")
    deadline_ms = int((time.time() + within_s) * 1000)
    client: Any = _raylet.GcsClient(address=head)  # type: ignore[attr-defined]
    accepted, why = client.drain_node(node, preempted, reason, deadline_ms)
    return "" if accepted else str(why) or "no reason given"
