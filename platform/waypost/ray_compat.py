"""All uses of private names of Ray (2.60). Check this module when Ray's version changes."""

from __future__ import annotations

from collections.abc import Mapping
from operator import methodcaller
from typing import Any


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


def dashboard_url() -> str | None:
    """Return host and port of the dashboard of this process's Ray; None if it has no dashboard."""
    from ray._private.worker import get_dashboard_url

    return get_dashboard_url() or None
