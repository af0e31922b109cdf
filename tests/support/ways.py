"""The ways to serve a graph: in this process without Ray, and on Ray. A contract holds for both."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from support.served import served
from waypost.serve import launch
from waypost.serve.local import Gateway
from waypost.serve.local.config import read_local

LOCAL, RAY = "local", "ray"

WAYS = [
    LOCAL,
    pytest.param(
        RAY,
        marks=[
            pytest.mark.ray,
            # Ray leaves sockets and log files of its own to the garbage collector
            pytest.mark.filterwarnings("ignore::ResourceWarning"),
            pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
        ],
    ),
]
"""Parameters of a fixture; the second only runs in the ray tier."""


@dataclass(frozen=True)
class Way:
    """A graph that serves.

    Attributes:
        url: URL of its application, without a slash at the end.
        change: Brings another ``user_config`` into force, sooner or later.
    """

    url: str
    change: Callable[[dict[str, Any]], None]


@contextmanager
def serving(way: str, app: dict[str, Any], folder: Path) -> Iterator[Way]:
    """Serve one application of a Serve file (`support.served.application`) during the block."""
    data = {"applications": [app]}
    if way == RAY:
        with served(data, folder) as url:
            options = {"host": "127.0.0.1", "port": int(url.rpartition(":")[2])}
            whole = {**data, "http_options": options}
            yield Way(url + app["route_prefix"], lambda given: launch.update(_with(whole, given)))
        return
    config = read_local(data)
    with Gateway(config) as gateway:

        def change(given: dict[str, Any]) -> None:
            gateway.reload(read_local(_with(data, given)))

        yield Way(gateway.listen(prefix=config.prefix), change)


def _with(data: Mapping[str, Any], user_config: dict[str, Any]) -> dict[str, Any]:
    changed = copy.deepcopy(dict(data))
    (app,) = changed["applications"]
    nodes = ["Gateway"]
    if app["args"].get("router", {}).get("placement") != "inline":
        nodes.append("Router")
    app["deployments"] = [{"name": name, "user_config": user_config} for name in nodes]
    return changed
