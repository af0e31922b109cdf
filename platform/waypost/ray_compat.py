"""Every use of a private name of Ray: what to look at when Ray's version changes (2.60 now)."""

from __future__ import annotations

from collections.abc import Mapping
from operator import methodcaller
from typing import Any


def start_serve(data: Mapping[str, Any]) -> None:
    """Start Serve on the Ray of this process and hand it the content of a Serve file.

    Returns before the applications run. The public ``serve.run`` builds in this process and ignores
    the ``deployments`` of a file; this is what Ray's own ``serve run`` does with one.
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
    """Hand the running Serve another content of its file, as ``serve deploy`` does over HTTP."""
    from ray.serve.context import _get_global_client
    from ray.serve.schema import ServeDeploySchema

    _get_global_client().deploy_apps(ServeDeploySchema.model_validate(data))


def detach_handle(handle: Any) -> None:
    """Let a deployment's handle be called outside of an event loop.

    In throughput mode, handles work inside of one only, unless they are told before the first call.
    """
    if not handle.is_initialized:
        handle._init(_run_router_in_separate_loop=True)


# Serve's public calls cannot tell the wait for a replica from the wait for its answer. A
# methodcaller and no function: it runs once a request.
assigned = methodcaller("_fetch_future_result_async")
"""Return what to await until a call of a handle has been given to a replica."""


def dashboard_url() -> str | None:
    """Return host and port of the dashboard of the Ray of this process; None where it has none."""
    from ray._private.worker import get_dashboard_url

    return get_dashboard_url() or None
