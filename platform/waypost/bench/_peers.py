"""What `gateway` measures Waypost beside: LiteLLM, Portkey's gateway and an old build of Waypost.

Each is pinned by the repository and installed once, into its own folder of Waypost's cache. Waypost
imports nothing of them.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path

from waypost.bench._http1 import Headers
from waypost.bench.harness import BenchError, Tell
from waypost.config import resolve_path, settings

LITELLM_LOCK = "requirements/litellm.txt"
PORTKEY_LOCK = "requirements/portkey_node/package-lock.json"
OLD = "bceb7c4bdc41bd32452592b6cf231fab84516833"
"""The last commit before requests were answered whole and the gateway served HTTP itself."""

_READY = "waypost-ready"
_PORTKEY = "node_modules/@portkey-ai/gateway"

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


def litellm(tell: Tell) -> Path:
    """Return the folder of LiteLLM's environment; install it if it is missing.

    Args:
        tell: Called with a line before the installation.

    Raises:
        BenchError: It cannot be installed; the message has the reason.
    """
    lock = _lock(LITELLM_LOCK)

    def build(folder: Path) -> None:
        run_uv("venv", "--python", sys.executable, folder)
        run_uv("pip", "install", "--python", folder / "bin" / "python", "--requirement", lock)

    return _kept("litellm", litellm_version(lock), lock.read_bytes(), build, tell)


def portkey(tell: Tell) -> Path:
    """Return the folder of Portkey's gateway; see `litellm`."""
    lock = _lock(PORTKEY_LOCK)
    npm = node_program("npm")

    def build(folder: Path) -> None:
        folder.mkdir()
        for one in ("package.json", "package-lock.json"):
            shutil.copy(lock.parent / one, folder)
        _run([npm, "ci", "--prefix", folder, "--no-audit", "--no-fund", "--ignore-scripts"])

    return _kept("portkey", portkey_version(lock), lock.read_bytes(), build, tell)


def old(tell: Tell) -> Path:
    """Return the folder of `OLD`, with ``source`` and ``venv`` in it; see `litellm`."""

    def build(folder: Path) -> None:
        root = settings().root
        git = shutil.which("git")
        if git is None:
            raise BenchError("git is not installed: it takes the old build from the repository")
        command = [git, "-C", str(root), "archive", OLD]
        done = subprocess.run(command, capture_output=True, check=False)
        if done.returncode:
            why = done.stderr.decode(errors="replace").strip().splitlines()[-1:]
            raise BenchError(f"this clone does not have commit {OLD[:7]} (git: {' '.join(why)})")
        source, python = folder / "source", folder / "venv" / "bin" / "python"
        with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
            archive.extractall(source, filter="data")
        install = ("pip", "install", "--python", python)
        run_uv("venv", "--python", sys.executable, folder / "venv")
        run_uv(*install, "--requirement", source / "requirements" / "main.txt")
        run_uv(*install, "--no-deps", "--no-build-isolation", "--editable", source)

    return _kept("old", OLD[:7], OLD.encode(), build, tell)


PEERS: dict[str, Callable[[Tell], Path]] = {"litellm": litellm, "portkey": portkey, "old": old}
"""First part of a target's name -> what installs it."""


def litellm_version(lock: Path) -> str:
    """Return LiteLLM's version in a lock file.

    Raises:
        BenchError: The lock file has no LiteLLM version.
    """
    found = re.search(r"^litellm==(\S+)$", lock.read_text(encoding="utf-8"), re.MULTILINE)
    if found is None:
        raise BenchError(f"{lock} names no version of litellm")
    return found[1]


def portkey_version(lock: Path) -> str:
    """Return the version of Portkey's gateway in a lock file.

    Raises:
        BenchError: The lock file has no such package.
    """
    package = json.loads(lock.read_text(encoding="utf-8")).get("packages", {}).get(_PORTKEY)
    if package is None:
        raise BenchError(f"{lock} names no version of @portkey-ai/gateway")
    return str(package["version"])


def versions() -> dict[str, str]:
    """Return the version of each peer whose lock is here."""
    found = {"Waypost before": OLD[:7]}
    for name, path, of in (
        ("LiteLLM", LITELLM_LOCK, litellm_version),
        ("Portkey", PORTKEY_LOCK, portkey_version),
    ):
        lock = resolve_path(path)
        if lock.is_file():
            found[name] = of(lock)
    return found


def node_program(name: str) -> str:
    """Return the path of ``node`` or ``npm``: the machine's, else that of `make env-clients`.

    Raises:
        BenchError: There is none.
    """
    clients = resolve_path(f".venv-clients/bin/{name}")
    found = shutil.which(name) or (str(clients) if clients.is_file() else None)
    if found is None:
        raise BenchError(f"{name} is not installed: install Node, or run `make env-clients`")
    return found


def portkey_command(folder: Path, port: int) -> list[str]:
    """Return the command line of Portkey's gateway: one process, on every address."""
    script = folder / _PORTKEY / "build" / "start-server.js"
    return [node_program("node"), str(script), "--headless", f"--port={port}"]


def portkey_headers(upstream: int) -> Headers:
    """Return the headers by which a request tells Portkey's gateway its upstream."""
    return (
        ("x-portkey-provider", "openai"),
        ("x-portkey-custom-host", f"http://127.0.0.1:{upstream}/v1"),
        ("authorization", "Bearer none"),
    )


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


def litellm_command(folder: Path, config: Path, port: int) -> list[str]:
    """Return the command line of LiteLLM's proxy with one worker."""
    return [
        *(str(folder / "bin" / "litellm"), "--config", str(config)),
        *("--host", "127.0.0.1", "--port", str(port)),
        *("--num_workers", "1", "--telemetry", "False"),
    ]


# -- folders --------------------------------------------------------------------------------------


def _lock(name: str) -> Path:
    lock = resolve_path(name)
    if not lock.is_file():
        problem = f"{lock} does not exist: the bench of other gateways runs from a checkout"
        raise BenchError(f"{problem} (or set WAYPOST_ROOT to one)")
    return lock


def _kept(
    name: str, release: str, content: bytes, build: Callable[[Path], None], tell: Tell
) -> Path:
    """Return the folder of a peer in the cache; build it if it is missing or unfinished."""
    digest = hashlib.sha256(content).hexdigest()[:8]
    folder = settings().cache / "bench" / f"{name}-{release}-{digest}"
    if (folder / _READY).is_file():
        return folder
    if settings().offline:
        raise BenchError(f"{folder} is missing, and WAYPOST_OFFLINE forbids downloads")
    tell(f"installing {name} {release} into {folder} (a minute or more)")
    shutil.rmtree(folder, ignore_errors=True)  # an unfinished one, of an interrupted run
    folder.parent.mkdir(parents=True, exist_ok=True)
    build(folder)
    (folder / _READY).touch()
    return folder


def run_uv(*arguments: str | Path) -> None:
    """Run the environment's uv, with the package sources of pip's configuration.

    Raises:
        BenchError: It fails; the message has the reason.
    """
    uv = Path(sys.executable).parent / "uv"
    _run(["sh", "-c", '. requirements/uv_sources.sh; exec "$@" --quiet', "sh", uv, *arguments])


def _run(command: Sequence[str | Path]) -> None:
    done = subprocess.run(
        [str(word) for word in command],
        cwd=settings().root,
        capture_output=True,
        check=False,
        text=True,
    )
    if done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines()[-8:]
        raise BenchError("it cannot be installed:\n" + "\n".join(lines))
