"""The targets of `gateway`: placements and modes of Waypost's graph, LiteLLM, a bare forwarder."""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from waypost.bench._client import Endpoint
from waypost.bench._processes import Server, free_ports
from waypost.bench.harness import BenchError, Tell
from waypost.config import resolve_path, settings
from waypost.contracts.artifact import read_manifest
from waypost.contracts.errors import ConfigError, Fault
from waypost.serve.config import AUTO

LITELLM = "litellm"
FORWARDER = "forwarder"
DECISION = "decision"
PLACEMENTS = ("inline", "deployments")
MODES = {"direct": (), "serve": ("--plain",), "haproxy": ("--haproxy",)}
"""Mode -> options of ``waypost serve``. In ``direct`` the gateway serves HTTP itself; ``serve``
equals ``serve run``: Serve's proxy is in front of it."""

WAYPOST = tuple(f"{placement}/{mode}" for placement in PLACEMENTS for mode in MODES)
ALL = (*WAYPOST, LITELLM, FORWARDER, DECISION)

START_S = 180.0
LOCK = "requirements/litellm.txt"
"""Lock file of LiteLLM's environment. Waypost itself imports nothing from that environment."""

_READY = "waypost-ready"
LLMS = 2
"""Size of the pool: the first LLMs of the artifact. Each is the upstream under another name."""

PLACES = 128
"""Concurrent and queued requests per LLM: more than the bench ever has in flight."""


LITELLM_ENVIRONMENT = {
    "LITELLM_MODE": "PRODUCTION",
    "LITELLM_LOG": "ERROR",
    "LITELLM_TELEMETRY": "False",
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # read prices from its own files, not from the network
    # LiteLLM refuses to start without a key, and a key would add a check to each request
    "LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY": "true",
    "LITELLM_MASTER_KEY": None,
    "DATABASE_URL": None,
}
"""The settings of LiteLLM's documentation page on production, without a key."""


@dataclass(frozen=True)
class Scene:
    """The settings shared by all targets.

    Attributes:
        upstream: Port of the endpoint behind all targets.
        artifact: Folder of the trained router.
        folder: Folder for configs and logs.
    """

    upstream: int
    artifact: Path
    folder: Path

    @property
    def llms(self) -> tuple[str, ...]:
        """Names of the pool."""
        return tuple(llm.name for llm in read_manifest(self.artifact).llms[:LLMS])


def chosen(wanted: Sequence[str]) -> tuple[str, ...]:
    """Return the wanted targets in the order of `ALL`; all targets if ``wanted`` is empty.

    ``inline`` and ``deployments`` stand for their three modes.

    Raises:
        ConfigError: A name is unknown.
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
    """Run a target during the block; yield its endpoint once it answers.

    Raises:
        BenchError: The target does not start.
    """
    if name == LITELLM:
        with _proxy(scene.folder, scene.upstream, scene.llms) as port:
            yield Endpoint(port, scene.llms[0])
        return
    if name == FORWARDER:
        (port,) = free_ports(1)
        command = [sys.executable, "-m", "waypost.bench._forwarder", str(port), str(scene.upstream)]
        with Server(name, command, port, scene.folder / "forwarder.txt") as server:
            server.wait([AUTO], START_S)
            yield Endpoint(port, AUTO)
        return
    placement, _, mode = name.partition("/")
    port, *others = free_ports(3)
    folder = scene.folder / name.replace("/", "-")
    folder.mkdir(exist_ok=True)
    config = folder / "serve.yaml"
    config.write_text(yaml.safe_dump(graph(placement, port, scene, mode)), encoding="utf-8")
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
        "gateway": {"ingress": "direct" if mode == "direct" else "serve"},
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


# -- LiteLLM --------------------------------------------------------------------------------------


def litellm_version(lock: Path) -> str:
    """Return LiteLLM's version in a lock file.

    Raises:
        BenchError: The lock file is missing or has no LiteLLM version.
    """
    try:
        found = re.search(r"^litellm==(\S+)$", lock.read_text(encoding="utf-8"), re.MULTILINE)
    except FileNotFoundError:
        problem = f"{lock} does not exist: the bench of LiteLLM runs from a checkout"
        raise BenchError(f"{problem} (or set WAYPOST_ROOT to one)") from None
    if found is None:
        raise BenchError(f"{lock} names no version of litellm")
    return found[1]


def litellm_environment(tell: Tell) -> Path:
    """Return the folder of LiteLLM's environment; create the environment if it is missing.

    Args:
        tell: Called with a line before the installation.

    Raises:
        BenchError: The environment cannot be created.
    """
    lock = resolve_path(LOCK)
    release = litellm_version(lock)
    digest = hashlib.sha256(lock.read_bytes()).hexdigest()[:8]
    folder = settings().cache / "bench" / f"litellm-{release}-{digest}"
    if (folder / _READY).is_file():
        return folder
    if settings().offline:
        raise BenchError(f"{folder} is missing, and WAYPOST_OFFLINE forbids downloads")
    tell(f"installing LiteLLM {release} into {folder} (a minute or more)")
    shutil.rmtree(folder, ignore_errors=True)  # an incomplete one, from an interrupted run
    folder.parent.mkdir(parents=True, exist_ok=True)
    _run([sys.executable, "-m", "venv", str(folder)])
    pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet"]
    _run([*pip, "--requirement", str(lock)])
    (folder / _READY).touch()
    return folder


def _run(command: Sequence[str]) -> None:
    done = subprocess.run(command, capture_output=True, check=False, text=True)
    if done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines()[-8:]
        raise BenchError("LiteLLM's environment cannot be created:\n" + "\n".join(lines))


def litellm_config(upstream: int, models: Sequence[str]) -> dict[str, object]:
    """Return LiteLLM's config: every model is the upstream under another name, no retries."""
    endpoint = {
        "model": "openai/echo",
        "api_base": f"http://127.0.0.1:{upstream}/v1",
        "api_key": "none",
    }
    return {
        "model_list": [{"model_name": name, "litellm_params": endpoint} for name in models],
        "litellm_settings": {
            "telemetry": False,
            "set_verbose": False,
            "num_retries": 0,
            "request_timeout": 600,
        },
        "router_settings": {"num_retries": 0},
    }


@contextmanager
def _proxy(folder: Path, upstream: int, models: Sequence[str]) -> Iterator[int]:
    """Run the proxy with one worker; yield its port.

    Raises:
        BenchError: The proxy does not start.
    """
    home = litellm_environment(Tell())
    (port,) = free_ports(1)
    path = folder / "litellm.yaml"
    path.write_text(yaml.safe_dump(litellm_config(upstream, models)), encoding="utf-8")
    command = [
        *(str(home / "bin" / "litellm"), "--config", str(path)),
        *("--host", "127.0.0.1", "--port", str(port)),
        *("--num_workers", "1", "--telemetry", "False"),
    ]
    with Server("litellm", command, port, folder / "litellm.txt", LITELLM_ENVIRONMENT) as server:
        server.wait(models, START_S)
        yield port
