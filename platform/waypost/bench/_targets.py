"""The targets of `gateway`: placements and modes of Waypost's graph, and what it is beside."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from waypost.bench import _peers
from waypost.bench._http1 import Endpoint
from waypost.bench._processes import Server, free_ports
from waypost.bench.harness import Tell
from waypost.contracts.artifact import read_manifest
from waypost.contracts.errors import ConfigError, Fault
from waypost.serve.config import AUTO

ARTIFACT = "serve_configs/starter/artifact"
LITELLM = "litellm"
PORTKEY = "portkey"
FORWARDER = "forwarder"
LOCAL = "local"
DECISION = "decision"
PLACEMENTS = ("inline", "deployments")
MODES = {"direct": (), "serve": ("--plain",), "haproxy": ("--haproxy",)}
"""Mode -> options of ``waypost serve``. In ``direct`` the gateway serves HTTP itself; ``serve``
equals ``serve run``: Serve's proxy is in front of it."""

LOCAL_OPTION = "--local"
"""Option of ``waypost serve`` for the same gateway in one process, without Ray."""

OLD_MODES = {"serve": (), "haproxy": ("--haproxy",)}
"""The same of `_peers.OLD`, whose ``waypost serve`` has Serve's proxy in throughput mode."""

WAYPOST = tuple(f"{placement}/{mode}" for placement in PLACEMENTS for mode in MODES)
OLD = tuple(f"old/{mode}" for mode in OLD_MODES)
OTHERS = (FORWARDER, PORTKEY, LITELLM, *OLD)
"""What Waypost is measured beside."""

ALL = (*WAYPOST, LOCAL, *OTHERS, DECISION)
EVERYWHERE = (PORTKEY,)
"""Targets that listen on every address: they run in a network of their own."""

START_S = 180.0
LLMS = 2
"""Size of the pool: the first LLMs of the artifact. Each is the upstream under another name."""

PLACES = 128
"""Concurrent and queued requests per LLM: more than the bench ever has in flight."""


@dataclass(frozen=True)
class Scene:
    """The settings shared by all targets.

    Attributes:
        upstream: Port of the endpoint behind all targets.
        artifact: Folder of the trained router.
        folder: Folder for configs and logs.
        gateways: Replicas of the gateway; None leaves it to Waypost.
    """

    upstream: int
    artifact: Path
    folder: Path
    gateways: int | None = None

    @property
    def llms(self) -> tuple[str, ...]:
        """Names of the pool."""
        return tuple(llm.name for llm in read_manifest(self.artifact).llms[:LLMS])


def chosen(wanted: Sequence[str]) -> tuple[str, ...]:
    """Return the wanted targets in the order of `ALL`; all targets if ``wanted`` is empty.

    ``inline``, ``deployments`` and ``old`` stand for all their modes.

    Raises:
        ConfigError: A name is unknown.
    """
    groups = (*PLACEMENTS, "old")
    known = {*ALL, *groups}
    if unknown := [name for name in wanted if name not in known]:
        expected = ", ".join((*groups, *ALL))
        faults = [
            Fault("--target", f"no target {name!r}; there are {expected}") for name in unknown
        ]
        raise ConfigError(faults)
    return tuple(
        name for name in ALL if not wanted or name in wanted or name.partition("/")[0] in wanted
    )


@dataclass(frozen=True)
class _Start:
    """How a target is started.

    Attributes:
        command: Command line.
        models: Models that answer before the target is measured; the first is asked then.
        environment: Changes to this process's environment.
        headers: Headers of every request.
        folder: Working folder.
    """

    command: Sequence[str]
    models: Sequence[str]
    environment: dict[str, str | None] = field(default_factory=dict)
    headers: tuple[tuple[str, str], ...] = ()
    folder: Path | None = None


@contextmanager
def started(name: str, scene: Scene) -> Iterator[tuple[Endpoint, int]]:
    """Run a target during the block; yield its endpoint and process id once it answers.

    Raises:
        BenchError: The target does not start, or what it needs is not installed.
    """
    port, *others = free_ports(3)
    scene = replace(scene, folder=scene.folder / name.replace("/", "-"))
    scene.folder.mkdir(parents=True, exist_ok=True)
    kind, _, mode = name.partition("/")
    how = _STARTS.get(kind, _waypost)(kind, mode, port, others, scene)
    log = scene.folder / "log.txt"
    with Server(name, how.command, port, log, how.environment, how.folder) as server:
        server.wait(how.models, START_S, how.headers)
        yield Endpoint(port, how.models[0], how.headers), server.pid


def _waypost(kind: str, mode: str, port: int, others: Sequence[int], scene: Scene) -> _Start:
    command = [sys.executable, "-m", "waypost.cli", "serve", *MODES[mode]]
    config = _written(scene.folder, graph(kind, port, scene, mode))
    return _Start([*command, str(config)], [AUTO, *scene.llms], _environment(*others))


def _local(kind: str, mode: str, port: int, others: Sequence[int], scene: Scene) -> _Start:
    config = _written(scene.folder, graph("inline", port, scene, "direct"))
    command = [sys.executable, "-m", "waypost.cli", "serve", LOCAL_OPTION, str(config)]
    return _Start(command, [AUTO, *scene.llms], {"OMP_NUM_THREADS": "1"})


def _old(kind: str, mode: str, port: int, others: Sequence[int], scene: Scene) -> _Start:
    home = _peers.old(Tell())
    source = home / "source"
    scene = replace(scene, artifact=source / ARTIFACT)
    wanted = graph("inline", port, scene, mode)
    for application in wanted["applications"]:
        del application["args"]["gateway"]  # nothing to choose there
    command = [str(home / "venv" / "bin" / "python"), "-m", "waypost.cli", "serve"]
    return _Start(
        [*command, *OLD_MODES[mode], str(_written(scene.folder, wanted))],
        [AUTO, *scene.llms],
        _environment(*others) | {"WAYPOST_ROOT": str(source), "PYTHONPATH": None},
        folder=source,
    )


def _forwarder(kind: str, mode: str, port: int, others: Sequence[int], scene: Scene) -> _Start:
    module = [sys.executable, "-m", "waypost.bench._forwarder"]
    return _Start([*module, str(port), str(scene.upstream)], [AUTO])


def _portkey(kind: str, mode: str, port: int, others: Sequence[int], scene: Scene) -> _Start:
    command = _peers.portkey_command(_peers.portkey(Tell()), port)
    environment: dict[str, str | None] = {"NODE_ENV": "production"}
    return _Start(command, ["echo"], environment, _peers.portkey_headers(scene.upstream))


def _litellm(kind: str, mode: str, port: int, others: Sequence[int], scene: Scene) -> _Start:
    home = _peers.litellm(Tell())
    config = _written(scene.folder, _peers.litellm_config(scene.upstream, scene.llms))
    command = _peers.litellm_command(home, config, port)
    return _Start(command, scene.llms, dict(_peers.LITELLM_ENVIRONMENT))


_STARTS = {"old": _old, LOCAL: _local, FORWARDER: _forwarder, PORTKEY: _portkey, LITELLM: _litellm}
"""First part of a target's name -> how it is started; all others are today's Waypost."""


def _written(folder: Path, config: object) -> Path:
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    return path


def graph(placement: str, port: int, scene: Scene, mode: str) -> dict[str, Any]:
    """Return the Serve config of a placement in a mode."""
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
    args = {
        "artifact": str(scene.artifact.resolve()),
        "router": inside,
        "pool": pool,
        "gateway": {
            "ingress": "direct" if mode == "direct" else "serve",
            "num_replicas": scene.gateways,
        },
    }
    application = {
        "name": "waypost",
        "route_prefix": "/",
        "import_path": "waypost.serve.app:build",
        "args": args,
    }
    return {"http_options": {"host": "127.0.0.1", "port": port}, "applications": [application]}


def _environment(metrics_port: int, stats_port: int) -> dict[str, str | None]:
    """Return environment changes: free ports for HAProxy, which may already run on this machine.

    Modes set in the user's shell are removed: the options of ``waypost serve`` set them.
    """
    return {
        "RAY_SERVE_THROUGHPUT_OPTIMIZED": None,
        "RAY_SERVE_ENABLE_HA_PROXY": None,
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(metrics_port),
        "RAY_SERVE_HAPROXY_STATS_PORT": str(stats_port),
        "RAY_USAGE_STATS_ENABLED": "0",
    }
