"""LiteLLM's proxy, to measure Waypost against: its environment, made here, and its process.

The environment is locked (requirements/litellm.txt) and lies in Waypost's cache; nothing of it
is ever imported by Waypost.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import yaml

from waypost.bench.gateway.processes import BenchError, Server, free_ports
from waypost.config import resolve_path, settings

LOCK = "requirements/litellm.txt"
START_S = 120.0
_READY = "waypost-ready"

ENVIRONMENT = {
    "LITELLM_MODE": "PRODUCTION",
    "LITELLM_LOG": "ERROR",
    "LITELLM_TELEMETRY": "False",
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # its prices from its own files, not from the network
    # it refuses to start without a key; with one, each request would cost it a check more
    "LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY": "true",
    "LITELLM_MASTER_KEY": None,
    "DATABASE_URL": None,
}
"""What its own page on production asks for, and no key."""


def version(lock: Path) -> str:
    """Return LiteLLM's version in a lock.

    Raises:
        BenchError: the lock is missing or does not name it.
    """
    try:
        found = re.search(r"^litellm==(\S+)$", lock.read_text(encoding="utf-8"), re.MULTILINE)
    except FileNotFoundError:
        problem = f"{lock} does not exist: the bench of LiteLLM runs from a checkout"
        raise BenchError(f"{problem} (or set WAYPOST_ROOT to one)") from None
    if found is None:
        raise BenchError(f"{lock} names no version of litellm")
    return found[1]


def environment(tell: Callable[[str], None]) -> Path:
    """Return the folder of LiteLLM's environment, made first where it is not there.

    Args:
        tell: Called with a line before something is installed.

    Raises:
        BenchError: it cannot be made.
    """
    lock = resolve_path(LOCK)
    release = version(lock)
    digest = hashlib.sha256(lock.read_bytes()).hexdigest()[:8]
    folder = settings().cache / "bench" / f"litellm-{release}-{digest}"
    if (folder / _READY).is_file():
        return folder
    if settings().offline:
        raise BenchError(f"{folder} is not there, and WAYPOST_OFFLINE forbids to download it")
    tell(f"installing LiteLLM {release} into {folder} (a minute or more)")
    shutil.rmtree(folder, ignore_errors=True)  # half of one, from a run that was cut off
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
        raise BenchError("LiteLLM's environment cannot be made:\n" + "\n".join(lines))


def config(upstream: int, models: Sequence[str]) -> dict[str, object]:
    """Return its config: every model is the upstream under another name, no retries."""
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
def proxy(folder: Path, upstream: int, models: Sequence[str]) -> Iterator[int]:
    """Run the proxy with one worker; the value is its port.

    Raises:
        BenchError: it does not start.
    """
    home = environment(lambda _: None)
    (port,) = free_ports(1)
    path = folder / "litellm.yaml"
    path.write_text(yaml.safe_dump(config(upstream, models)), encoding="utf-8")
    command = [
        *(str(home / "bin" / "litellm"), "--config", str(path)),
        *("--host", "127.0.0.1", "--port", str(port)),
        *("--num_workers", "1", "--telemetry", "False"),
    ]
    with Server("litellm", command, port, folder / "litellm.txt", ENVIRONMENT) as server:
        server.wait(models, START_S)
        yield port
