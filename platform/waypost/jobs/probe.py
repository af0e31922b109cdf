"""Report the packages of an environment; sent as text to a cluster, so standard library only."""

import hashlib
import importlib.metadata
import importlib.util
import json
import pathlib
import sys

MARK = "waypost-probe "


def digest(names: list[str]) -> str:
    """Return the sha256 of the sources of these packages; missing packages are skipped."""
    found = hashlib.sha256()
    for name in names:
        spec = importlib.util.find_spec(name)
        for place in (spec and spec.submodule_search_locations) or ():
            root = pathlib.Path(place)
            for path in sorted(root.rglob("*.py")):
                found.update(path.relative_to(root).as_posix().encode() + path.read_bytes())
    return found.hexdigest()


def other(lock: list[tuple[str, str]]) -> list[str]:
    """Return the packages not installed in that version; a build tag (+cpu) is ignored."""
    found = []
    for name, version in lock:
        try:
            here = importlib.metadata.version(name).partition("+")[0]
        except importlib.metadata.PackageNotFoundError:
            here = ""
        if here != version:
            found.append(name)
    return found


if __name__ == "__main__":
    packages, pinned = json.loads(sys.argv[1])
    sys.stdout.write(MARK + json.dumps([digest(packages), other(pinned)]) + "\n")
