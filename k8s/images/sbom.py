"""Print what an image contains as a CycloneDX 1.5 document: Python's packages and Debian's."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import distributions

FIELDS = "${db:Status-Status}\t${Package}\t${Version}\t${Architecture}\n"


def python_packages() -> list[dict[str, object]]:
    """Return the installed distributions of this environment."""
    found: dict[str, dict[str, object]] = {}
    for one in distributions():
        name = one.metadata["Name"].lower().replace("_", "-").replace(".", "-")
        said = one.metadata["License-Expression"] or one.metadata["License"] or ""
        # some put the whole text there
        known = [{"license": {"name": said}}] if said and len(said) < 100 else []
        found[name] = {
            "type": "library",
            "name": name,
            "version": one.version,
            "purl": f"pkg:pypi/{name}@{one.version}",
            "licenses": known,
        }
    return [found[name] for name in sorted(found)]


def debian_packages() -> list[dict[str, object]]:
    """Return the installed packages of the system; none where it has no dpkg."""
    try:
        listed = subprocess.run(
            ["dpkg-query", "--show", f"--showformat={FIELDS}"],
            capture_output=True, text=True, check=True,
        ).stdout  # fmt: skip
    except FileNotFoundError:
        return []
    rows = [line.split("\t") for line in listed.splitlines()]
    return [
        {
            "type": "library",
            "name": name,
            "version": version,
            "purl": f"pkg:deb/debian/{name}@{version.replace('+', '%2B')}?arch={architecture}",
        }
        for status, name, version, architecture in rows
        if status == "installed"
    ]


if __name__ == "__main__":
    document = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "components": [*python_packages(), *debian_packages()],
    }
    json.dump(document, sys.stdout, indent=1)
