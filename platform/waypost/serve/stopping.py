"""Ends what ``waypost serve`` started, with a word to those whose answers are not complete."""

from __future__ import annotations

import copy
import time
from contextlib import suppress
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException
from urllib.parse import urlsplit

from waypost.serve import launch
from waypost.serve.config_file import ServeConfig
from waypost.serve.gateway import OPEN_HEADER
from waypost.serve.settings import STOP_AFTER

LONGEST_STOP_S = 25.0
"""Time of open requests when the server stops; Serve itself gives them none."""

TOLD_S = 5.0


def stop(config: ServeConfig | None) -> None:
    """Have the gateways end what is open, then stop the applications and Ray.

    Args:
        config: What is in force; None where nothing serves yet.
    """
    try:
        if config is not None:
            _tell_gateways(config)
    finally:  # also where a second Ctrl-C says that it takes too long
        launch.stop()


def _tell_gateways(config: ServeConfig) -> None:
    """Have the gateways take no more requests, and wait until they have none at work.

    Those that are not complete in time are ended: a stream with an error event.
    """
    data, longest_s = copy.deepcopy(config.data), 0.0
    for application in data["applications"]:
        args = config.args.get(application.get("name", "default"))
        if args is not None:
            after_s = min(args.gateway.graceful_shutdown_timeout_s, LONGEST_STOP_S)
            others = [d for d in application.get("deployments", ()) if d["name"] != "Gateway"]
            told = {"name": "Gateway", "user_config": {STOP_AFTER: after_s}}
            application["deployments"] = [*others, told]
            longest_s = max(longest_s, after_s)
    with suppress(Exception):  # a Serve that has failed has nobody to tell
        launch.update(data)
        until = time.monotonic() + longest_s + TOLD_S
        for name in config.args:
            while _is_open(config, name) and time.monotonic() < until:
                time.sleep(launch.POLL_S)


def _is_open(config: ServeConfig, name: str) -> bool:
    """Say whether the gateway of an application was not told yet, or has requests at work."""
    host = "127.0.0.1" if config.host in launch.EVERY_INTERFACE else config.host
    connection = HTTPConnection(host, config.port, timeout=TOLD_S)
    try:
        connection.request("GET", f"{urlsplit(config.url(name)).path}/healthz")
        reply = connection.getresponse()
        return reply.status == HTTPStatus.OK or reply.headers.get(OPEN_HEADER, "0") != "0"
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()
