"""Print what jobs need of a lock in requirements.

main: the base and the extras data, train and tune. router-r1: what trains Router-R1 with the
sampler of transformers, without vLLM and what its engine needs. Ray itself is left out: a cluster
brings its own, of the same version. Run where the lock is installed:

    .venv/bin/python -P requirements/lock_jobs.py main > requirements/jobs.txt
    .venv-router-r1/bin/python -P requirements/lock_jobs.py router-r1 > requirements/rl_jobs.txt
"""

from __future__ import annotations

import sys
import tomllib
from importlib.metadata import requires
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
EXTRAS = {"main": ("data", "train", "tune"), "router-r1": ("router-r1",)}
LEFT_OUT: dict[str, set[str]] = {"main": set(), "router-r1": {"vllm", "llguidance"}}
OF_THE_CLUSTER = {"ray"}


def needed(roots: list[str]) -> set[str]:
    """Return the canonical names of these requirements and of all that they need here."""
    found: set[str] = set()
    seen: set[tuple[str, str]] = set()
    open_ends = [Requirement(text) for text in roots]
    while open_ends:
        one = open_ends.pop()
        name = canonicalize_name(one.name)
        found.add(name)
        for extra in ("", *sorted(one.extras)):
            if (name, extra) in seen:
                continue
            seen.add((name, extra))
            for text in requires(name) or ():
                below = Requirement(text)
                if below.marker is None or below.marker.evaluate({"extra": extra}):
                    open_ends.append(below)
    return found


def lines(lock: str) -> list[str]:
    """Return the lines of a lock that jobs need, without its header."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    roots = [*project["dependencies"]]
    roots += [text for name in EXTRAS[lock] for text in project["optional-dependencies"][name]]
    names = needed([one for one in roots if Requirement(one).name not in LEFT_OUT[lock]])
    names -= OF_THE_CLUSTER
    locked = (ROOT / "requirements" / f"{lock}.txt").read_text(encoding="utf-8").splitlines()
    return [line for line in locked if canonicalize_name(line.partition("==")[0]) in names]


if __name__ == "__main__":
    name = sys.argv[1]
    sys.stdout.write(f"# Made by `make lock` from {name}.txt; do not edit.\n")
    sys.stdout.writelines(f"{line}\n" for line in lines(name))
