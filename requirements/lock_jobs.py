"""Print what jobs need of requirements/main.txt: the base and the extras data, train and tune.

Ray itself is left out: a cluster brings its own, of the same version. Run where main.txt is
installed: python -P requirements/lock_jobs.py > requirements/jobs.txt
"""

from __future__ import annotations

import sys
import tomllib
from importlib.metadata import requires
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
EXTRAS = ("data", "train", "tune")
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


def lines() -> list[str]:
    """Return the lines of the lock, without its header."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = [text for name in EXTRAS for text in project["optional-dependencies"][name]]
    names = needed([*project["dependencies"], *extras]) - OF_THE_CLUSTER
    locked = (ROOT / "requirements" / "main.txt").read_text(encoding="utf-8").splitlines()
    return [line for line in locked if canonicalize_name(line.partition("==")[0]) in names]


if __name__ == "__main__":
    sys.stdout.write("# Made by `make lock` from main.txt; do not edit.\n")
    sys.stdout.writelines(f"{line}\n" for line in lines())
