"""Find other Python environments for LLM nodes by name, and check them before anything starts."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib import metadata
from pathlib import Path

from waypost.config import settings
from waypost.contracts.errors import ConfigError, Fault

_PROBE = """
import importlib.metadata as m, json, sys
def version(name):
    try:
        return m.version(name)
    except m.PackageNotFoundError:
        return None
print(json.dumps({"python": list(sys.version_info[:2]), "ray": version("ray"),
                  "waypost": version("waypost")}))
"""
PROBE_TIMEOUT_S = 60


def interpreter(name: str, where: str) -> Path:
    """Return the interpreter of an environment, after checking that Ray can use it.

    It is ``WAYPOST_ENV_<NAME>`` (an interpreter or the environment's folder), else
    ``.venv-<name>`` under the root.

    Raises:
        ConfigError: it is missing, does not run, has another version of Python (major.minor) or Ray
            than this process, or has no waypost. The message names the make target.
    """
    fix = f"run `make env-{name}`"
    path = _locate(name)
    if not path.is_file():
        raise ConfigError([Fault(where, f"environment {name}: {path} does not exist; {fix}")])
    found = _probe(path)
    if found is None:
        raise ConfigError([Fault(where, f"environment {name}: {path} does not run; {fix}")])
    wanted = {"python": list(sys.version_info[:2]), "ray": _version("ray")}
    wrong = [
        f"{what} {_show(found.get(what))} (this one has {_show(value)})"
        for what, value in wanted.items()
        if found.get(what) != value
    ]
    if found.get("waypost") is None:
        wrong.append("no waypost")
    if wrong:
        problem = f"environment {name}: {path} holds {', '.join(wrong)}; Ray needs the same; {fix}"
        raise ConfigError([Fault(where, problem)])
    return path


def _locate(name: str) -> Path:
    given = settings().environments.get(name)
    path = settings().root / f".venv-{name}" if given is None else settings().root / given
    return path / "bin" / "python" if given is None or path.is_dir() else path


def _probe(path: Path) -> dict[str, object] | None:
    try:
        done = subprocess.run(
            [str(path), "-c", _PROBE],
            capture_output=True,
            text=True,
            timeout=PROBE_TIMEOUT_S,
            check=True,
        )
        found = json.loads(done.stdout)
    except (OSError, subprocess.SubprocessError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _show(value: object) -> str:
    if value is None:
        return "missing"
    return ".".join(map(str, value)) if isinstance(value, list) else str(value)
