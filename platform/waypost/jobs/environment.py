"""Runtime environment of a job: working directory, our packages, locked requirements.

A cluster may have all of it (an image with Waypost), the libraries only, or nothing but Ray. It is
inspected by a job of its own, which runs the source of `waypost.jobs.probe` there.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, TypeAlias

from waypost.contracts.errors import JobError
from waypost.jobs import probe

PACKAGES = ("waypost", "waypost_routers", "waypost_rl")

EXCLUDES = (".venv*/", ".git/", "/runs/", "/artifacts/", "/dist/", "/tests/")
"""Excluded from a working directory, beside .gitignore and .rayignore."""

REQUIREMENTS = "requirements/jobs.txt"
REQUIREMENTS_OF: dict[tuple[str, ...], str] = {("rl", "train"): "requirements/rl_jobs.txt"}
"""First words of a command -> its locked requirements, where they are others."""

# Unbuffered, so the log shows each line at once.
ENV_VARS = {"PYTHONUNBUFFERED": "1"}

Ship: TypeAlias = Literal["all", "package", "nothing"]


@dataclass(frozen=True)
class Probe:
    """Packages of a cluster.

    Attributes:
        digest: Of the sources of `PACKAGES` there.
        other: Locked packages that are missing or of another version.
    """

    digest: str
    other: tuple[str, ...]


def probe_command(requirements: Sequence[str]) -> list[str]:
    """Return the command to run on a cluster; `read_probe` reads its output."""
    pinned = (re.fullmatch(r"([A-Za-z0-9._-]+)==([^;\s+]+).*", line) for line in requirements)
    lock = [match.groups() for match in pinned if match]
    script = Path(probe.__file__).read_text(encoding="utf-8")
    return ["python", "-c", script, json.dumps([PACKAGES, lock])]


def read_probe(log: str) -> Probe:
    """Read the output of the probe.

    Raises:
        JobError: the output has no result.
    """
    for line in log.splitlines():
        if line.startswith(probe.MARK):
            digest, other = json.loads(line.removeprefix(probe.MARK))
            return Probe(digest, tuple(other))
    raise JobError("the cluster did not say what it has; say it yourself with --ship")


def to_ship(there: Probe) -> Ship:
    """Return the smallest upload with which the job runs this code on the locked versions."""
    if there.other:
        return "all"
    return "nothing" if there.digest == probe.digest(list(PACKAGES)) else "package"


def runtime_env(
    working_dir: Path, ship: Ship, requirements: Sequence[str], env_vars: Mapping[str, str]
) -> dict[str, Any]:
    """Return Ray's ``runtime_env`` of a job.

    Args:
        working_dir: Folder to upload; relative paths of the command refer to it.
        ship: Further uploads.
        requirements: Lines for pip, installed once on each machine.
        env_vars: Of the job's processes.
    """
    found: dict[str, Any] = {
        "working_dir": str(working_dir),
        "excludes": list(EXCLUDES),
        "env_vars": {**ENV_VARS, **env_vars},
    }
    if ship != "nothing":
        # Folders, not a wheel: Ray would install a wheel's dependencies unlocked, and identifies it
        # by its file name alone.
        found["py_modules"] = [str(folder) for folder in package_folders()]
    if ship == "all":
        found["pip"] = {
            "packages": list(requirements),
            "pip_check": False,
            "pip_install_options": ["--disable-pip-version-check"],
        }
    return found


def package_folders() -> list[Path]:
    """Return the folders of our installed packages.

    Raises:
        JobError: one is not a plain folder, as in a zip file.
    """
    folders = []
    for name in PACKAGES:
        spec = find_spec(name)
        places = [Path(place) for place in (spec and spec.submodule_search_locations) or ()]
        if len(places) != 1 or not places[0].is_dir():
            raise JobError(f"{name}: is not installed as one folder, so it cannot be sent along")
        folders.append(places[0])
    return folders


def find_requirements(
    given: Path | None, working_dir: Path, command: Sequence[str] = ()
) -> list[str]:
    """Read the locked requirements: a given file, else that of the working directory or checkout.

    Args:
        given: File that the user named.
        working_dir: Folder that is uploaded.
        command: Words of the command, which choose the lock.

    Raises:
        JobError: there is none.
    """
    checkout = package_folders()[0].parent.parent
    lock = REQUIREMENTS_OF.get(tuple(command[:2]), REQUIREMENTS)
    for file in [given] if given else [working_dir / lock, checkout / lock]:
        if file.is_file():
            # Comments included, as Ray reads the file for runtime_env.yaml, so both share one
            # environment on the cluster.
            return file.read_text(encoding="utf-8").strip().split("\n")
    raise JobError(
        f"{given or lock}: no such file; run in a checkout, name a file with "
        "--requirements, or say what the cluster has with --ship"
    )
