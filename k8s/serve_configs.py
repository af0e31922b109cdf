"""Write serveConfigV2 of each folder of k8s from serve_configs, as serve_configs.yaml beside says.

    python -P k8s/serve_configs.py          (make k8s)

tests/k8s compares the files with what this makes.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent
TABLE = ROOT / "k8s" / "serve_configs.yaml"

PATCH = """\
# Made by `make k8s` from {source} and k8s/serve_configs.yaml; do not edit.
apiVersion: ray.io/v1
kind: RayService
metadata:
  name: waypost
spec:
  serveConfigV2: |
{text}"""


class _Dumper(yaml.SafeDumper):
    """Writes equal objects out each time: a patch has no use for anchors."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def table() -> dict[str, dict[str, Any]]:
    """Return what each folder's config is made of: ``from`` and ``set``, with those of ``like``."""
    read: dict[str, dict[str, Any]] = yaml.safe_load(TABLE.read_text(encoding="utf-8"))
    made: dict[str, dict[str, Any]] = {}
    for folder, entry in read.items():
        earlier = made[entry["like"]] if "like" in entry else {"set": {}}
        made[folder] = {
            "from": entry.get("from", earlier.get("from")),
            "set": {**earlier["set"], **entry.get("set", {})},
        }
    return made


def config(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Return the Serve config of one folder.

    Raises:
        KeyError: a path of ``set`` names what is not in the file.
    """
    made: dict[str, Any] = yaml.safe_load((ROOT / entry["from"]).read_text(encoding="utf-8"))
    (application,) = made["applications"]
    for path, value in entry["set"].items():
        first, rest = path.split(".", 1)
        top = application if first == "args" else made
        for place, key in _places(top[first], rest, path):
            if value is None:
                place.pop(key, None)
            else:
                place[key] = deepcopy(value)
    return made


def _places(node: dict[str, Any], rest: str, path: str) -> Iterator[tuple[dict[str, Any], str]]:
    """Yield the mapping and the key that a path means; several for ``pool.*``."""
    if rest.startswith("pool."):
        rest = rest.removeprefix("pool.")
        entries = {entry["name"]: entry for entry in node["pool"]}
        # names have dots of their own
        named = [name for name in entries if rest.startswith(f"{name}.")]
        star = rest.startswith("*.")
        if not named and not star:
            raise KeyError(f"{path}: no such entry of the pool; there are {', '.join(entries)}")
        for name in entries if star else named:
            yield from _places(entries[name], rest.removeprefix("*." if star else f"{name}."), path)
        return
    *parents, leaf = rest.split(".")
    for key in parents:
        node = node.setdefault(key, {})
    yield node, leaf


def patch(entry: Mapping[str, Any]) -> str:
    """Return the text of ``serve_config.yaml`` of one folder."""
    text = yaml.dump(config(entry), Dumper=_Dumper, sort_keys=False, width=100)
    lines = "".join(f"    {line}\n" for line in text.splitlines())
    return PATCH.format(source=entry["from"], text=lines)


def files() -> dict[Path, str]:
    """Return the text of each file that is made, by its path."""
    return {
        ROOT / "k8s" / folder / "serve_config.yaml": patch(entry)
        for folder, entry in table().items()
    }


def main() -> int:
    """Write the files; return the exit code."""
    for path, text in files().items():
        path.write_text(text, encoding="utf-8")
        sys.stdout.write(f"{path.relative_to(ROOT)}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
