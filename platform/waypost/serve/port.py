"""The ports of ``waypost serve``: which process listens, and whether a port is free."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

from waypost.config import environment_value
from waypost.contracts.errors import WaypostError
from waypost.serve.config_file import BUILDER, ServeConfig
from waypost.serve.gateway.errors import Problem
from waypost.serve.gateway.responses import dumps
from waypost.serve.handover import Doorkeeper, listen

OWN_OPTIONS = frozenset({"host", "port", "keep_alive_timeout_s"})
"""Keys of ``http_options`` with which the gateway can serve HTTP itself."""

HAPROXY_PORTS = {
    "RAY_SERVE_HAPROXY_STATS_PORT": 8404,
    "RAY_SERVE_HAPROXY_METRICS_PORT": 9101,
}
"""Variable -> default of the ports on which HAProxy tells its statistics."""


NO_REPLICA = "the gateway is starting again; retry in a moment"


class PortTakenError(WaypostError):
    """The gateway, or HAProxy in front of it, cannot listen on its port."""


def open_door(config: ServeConfig) -> Doorkeeper:
    """Listen on the public port, for the gateway's own HTTP servers.

    Args:
        config: A checked file for which `needs_serve` returns None.

    Raises:
        PortTakenError: another process listens on it, or its address is none of this machine.
    """
    (application,) = config.data["applications"]
    try:
        listener = listen(config.host, config.port)
    except OSError as error:
        raise port_taken(config.host, config.port, config.path, error) from None
    name, prefix = application.get("name", "default"), application.get("route_prefix", "/")
    return Doorkeeper(listener, name, prefix.rstrip("/"))


def needs_serve(config: ServeConfig) -> str | None:
    """Return why Serve's proxy has to serve HTTP for a file; None where the gateway can itself."""
    applications = config.data["applications"]
    if len(applications) != 1:
        return f"the file has {len(applications)} applications"
    (application,) = applications
    if application.get("import_path") != BUILDER:
        return f"the application is not built by {BUILDER}"
    (args,) = config.args.values()
    if args.gateway.ingress == "serve":
        return "gateway.ingress: serve"
    if args.gateway.autoscaling is not None or _is_scaled(application):
        return "Serve scales the gateway by what its proxy sees"
    if further := sorted({*config.data["http_options"]} - OWN_OPTIONS):
        return f"http_options.{further[0]} is Serve's"
    return "grpc_options is Serve's" if config.data.get("grpc_options") else None


def _is_scaled(application: dict[str, Any]) -> bool:
    found = [d for d in application.get("deployments") or () if d.get("name") == "Gateway"]
    return any(d.get("autoscaling_config") or d.get("num_replicas") == "auto" for d in found)


def misfit(door: Doorkeeper, config: ServeConfig) -> str | None:
    """Return why a changed file cannot be served on an open port; None where it can."""
    if (why := needs_serve(config)) is not None:
        return why
    (application,) = config.data["applications"]
    found = application.get("name", "default"), application.get("route_prefix", "/").rstrip("/")
    if found != (door.application, door.prefix):
        return "the application's name or route_prefix is another"
    return None


def check_port(config: ServeConfig) -> None:
    """Check that no other process listens on the gateway's port.

    Ray binds with SO_REUSEPORT: a second server would start, and get a random part of the requests.

    Raises:
        PortTakenError: another process listens on it.
    """
    try:
        _probe(config.host, config.port)
    except OSError as error:
        raise port_taken(config.host, config.port, config.path, error) from None


def set_haproxy_folder(folder: Path) -> None:
    """Let HAProxy keep its files in a folder of this run.

    By default every HAProxy of a machine has the same one, and anybody may give commands to its
    socket there.

    Args:
        folder: A folder that only this user may open.
    """
    places = {
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": folder / "haproxy.cfg",
        "RAY_SERVE_HAPROXY_SOCKET_PATH": folder / "admin.sock",
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": folder,
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": folder / "server-state",
    }
    for name, place in places.items():
        os.environ.setdefault(name, str(place))


def answer_for_haproxy() -> None:
    """Replace HAProxy's answer where no replica lives: Serve's is a bare 500.

    Serve writes it to a file when HAProxy starts, and HAProxy reads it again with each change of
    the replicas, so before the first replica is there.
    """
    place = environment_value("RAY_SERVE_HAPROXY_CONFIG_FILE_LOC")
    if place is None:
        return
    body = dumps(Problem(503, NO_REPLICA, code="no_replica").body)
    lines = (
        "HTTP/1.1 503 Service Unavailable",
        "content-type: application/json",
        f"content-length: {len(body)}",
        "retry-after: 1",
        "connection: close",
    )
    head = "\r\n".join((*lines, "", "")).encode("ascii")
    for page in Path(place).parent.rglob("500.http"):  # Serve adds a folder for each node
        page.write_bytes(head + body)


def check_haproxy_ports() -> None:
    """Check that the ports of HAProxy's statistics are free.

    Raises:
        PortTakenError: another process listens on one of them.
    """
    for variable, default in HAPROXY_PORTS.items():
        port = int(environment_value(variable) or default)
        try:
            _probe("0.0.0.0", port)  # noqa: S104 - as HAProxy binds
        except OSError as error:
            raise PortTakenError(
                f"HAProxy cannot listen on port {port}: {error.strerror}; end what listens there, "
                f"or set {variable} to a free port"
            ) from None


def _probe(host: str, port: int) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((host, port))


def port_taken(host: str, port: int, where: object, error: OSError) -> PortTakenError:
    """Return the error for an address that cannot be listened on; ``where`` is the Serve file."""
    return PortTakenError(
        f"cannot listen on {host}:{port}: {error.strerror}; end what listens there, or take "
        f"another port: waypost serve --port, or http_options.port in {where}"
    )
