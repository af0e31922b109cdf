"""Stop ``waypost serve`` in good order: requests in flight finish, and no process is left."""

from __future__ import annotations

import copy
import time
from contextlib import suppress
from http import HTTPStatus
from http.client import HTTPException

from waypost.serve.changes import STOP_AFTER
from waypost.serve.config import ServeArgs
from waypost.serve.config_file import ServeConfig
from waypost.serve.gateway.app import OPEN_HEADER
from waypost.serve.handover import Doorkeeper
from waypost.serve.launch import POLL_S, get, stop, update

LONGEST_STOP_S = 25.0
"""Seconds for requests in flight to finish when the server stops; Serve itself gives them none."""

TOLD_S = 5.0


def stop_gracefully(config: ServeConfig | None, door: Doorkeeper | None = None) -> None:
    """Let the gateways finish requests in flight, then stop the applications and Ray.

    Args:
        config: The config in force; None where nothing serves yet.
        door: The public port, where the gateway serves HTTP itself.
    """
    try:
        if config is not None:
            _tell_gateways(config, door)
    finally:  # also after a second Ctrl-C
        stop()


def longest_stop_s(config: ServeConfig) -> float:
    """Return the seconds that requests in flight have to finish when the server stops."""
    return max(map(stop_s, config.args.values()), default=0.0)


def stop_s(args: ServeArgs) -> float:
    """Return the seconds that requests in flight of one graph have to finish."""
    return min(args.gateway.graceful_shutdown_timeout_s, LONGEST_STOP_S)


def _tell_gateways(config: ServeConfig, door: Doorkeeper | None) -> None:
    """Make the gateways refuse new requests, and wait until none is in flight.

    Requests that do not finish in time are ended; a stream ends with an error event.
    """
    data = copy.deepcopy(config.data)
    for application in data["applications"]:
        args = config.args.get(application.get("name", "default"))
        if args is not None:
            others = [d for d in application.get("deployments", ()) if d["name"] != "Gateway"]
            told = {"name": "Gateway", "user_config": {STOP_AFTER: stop_s(args)}}
            application["deployments"] = [*others, told]
    with suppress(Exception):  # where Serve has failed no gateway is left
        update(data)
        until = time.monotonic() + longest_stop_s(config) + TOLD_S
        if door is not None:
            door.wait_until_idle(until - time.monotonic())
            return
        for name in config.args:
            while _is_open(config, name) and time.monotonic() < until:
                time.sleep(POLL_S)


def _is_open(config: ServeConfig, name: str) -> bool:
    """Return whether an application's gateway still accepts requests or has some in flight."""
    with (
        suppress(OSError, HTTPException),
        get(config, name, "/healthz", timeout_s=TOLD_S) as reply,
    ):
        return reply.status == HTTPStatus.OK or reply.headers.get(OPEN_HEADER, "0") != "0"
    return False
