"""What is measured: two placements of Waypost's graph under three modes, and LiteLLM's proxy."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from waypost.bench.gateway.litellm import proxy
from waypost.bench.gateway.load import Endpoint
from waypost.bench.gateway.processes import Server, free_ports
from waypost.contracts.artifact import read_manifest
from waypost.contracts.errors import ConfigError, Fault
from waypost.serve.config import AUTO

LITELLM = "litellm"
DECISION = "decision"
PLACEMENTS = ("inline", "deployments")
MODES = {"plain": ("--plain",), "throughput": (), "haproxy": ("--haproxy",)}
"""Mode -> options of ``waypost serve``; ``plain`` is what ``serve run`` does."""

WAYPOST = tuple(f"{placement}/{mode}" for placement in PLACEMENTS for mode in MODES)
ALL = (*WAYPOST, LITELLM, DECISION)

START_S = 180.0
LLMS = 2
"""LLMs of the pool: the first of the artifact. Each is the upstream under another name."""

PLACES = 128
"""Requests that each LLM works on at a time: more than the bench ever asks."""


@dataclass(frozen=True)
class Scene:
    """What every target shares.

    Attributes:
        upstream: Port of the endpoint behind all targets.
        artifact: Folder of the trained router.
        folder: For configs and logs.
    """

    upstream: int
    artifact: Path
    folder: Path

    @property
    def llms(self) -> tuple[str, ...]:
        """Names of the pool."""
        return tuple(llm.name for llm in read_manifest(self.artifact).llms[:LLMS])


def chosen(wanted: Sequence[str]) -> tuple[str, ...]:
    """Return the targets named, in the order of `ALL`; none named are all.

    ``inline`` and ``deployments`` stand for all three modes of each.

    Raises:
        ConfigError: a name is unknown.
    """
    known = {*ALL, *PLACEMENTS}
    if unknown := [name for name in wanted if name not in known]:
        expected = ", ".join((*PLACEMENTS, *ALL))
        faults = [
            Fault("--target", f"no target {name!r}; there are {expected}") for name in unknown
        ]
        raise ConfigError(faults)
    return tuple(
        name for name in ALL if not wanted or name in wanted or name.partition("/")[0] in wanted
    )


@contextmanager
def started(name: str, scene: Scene) -> Iterator[Endpoint]:
    """Run a target for the length of the block, ready to answer.

    Raises:
        BenchError: it does not start.
    """
    if name == LITELLM:
        with proxy(scene.folder, scene.upstream, scene.llms) as port:
            yield Endpoint(port, scene.llms[0])
        return
    placement, _, mode = name.partition("/")
    port, *others = free_ports(3)
    folder = scene.folder / name.replace("/", "-")
    folder.mkdir(exist_ok=True)
    config = folder / "serve.yaml"
    config.write_text(yaml.safe_dump(graph(placement, port, scene)), encoding="utf-8")
    server = Server(
        name,
        [sys.executable, "-m", "waypost.cli", "serve", *MODES[mode], str(config)],
        port,
        folder / "log.txt",
        _environment(*others),
    )
    with server:
        server.wait([AUTO, *scene.llms], START_S)
        yield Endpoint(port, AUTO)


def graph(placement: str, port: int, scene: Scene) -> dict[str, Any]:
    """Return the Serve config of a placement."""
    inside = {"placement": "inline" if placement == "inline" else "deployment"}
    engine = {"base_url": f"http://127.0.0.1:{scene.upstream}/v1", "model": "echo"}
    pool = [
        {
            "name": name,
            "engine": "openai",
            **inside,
            "max_ongoing_requests": PLACES,
            "max_queued_requests": PLACES,
            "config": {**engine, "max_retries": 0},
        }
        for name in scene.llms
    ]
    args = {"artifact": str(scene.artifact.resolve()), "router": inside, "pool": pool}
    application = {
        "name": "waypost",
        "route_prefix": "/",
        "import_path": "waypost.serve.app:build",
        "args": args,
    }
    return {"http_options": {"host": "127.0.0.1", "port": port}, "applications": [application]}


def _environment(metrics_port: int, stats_port: int) -> dict[str, str | None]:
    """Return ports of HAProxy's own, so that another one here does not matter.

    Modes that the user's shell sets are removed: the options of ``waypost serve`` set them.
    """
    return {
        "RAY_SERVE_THROUGHPUT_OPTIMIZED": None,
        "RAY_SERVE_ENABLE_HA_PROXY": None,
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(metrics_port),
        "RAY_SERVE_HAPROXY_STATS_PORT": str(stats_port),
        "RAY_USAGE_STATS_ENABLED": "0",
    }
