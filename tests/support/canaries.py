"""Keys that are searched for in whatever comes out, and must never be found."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

CORE = "canary4b1f93d7"
"""In every key below; plain, so that JSON and URLs write it as it is."""

CLIENT = f"sk-{CORE}/clients+1"
"""What clients of the gateway show."""

UPSTREAM = f"sk-{CORE}/upstream+2"
"""What the gateway shows to the service `SERVICE`."""

SERVICE = "canary-service"
TRACEBACK = b"Traceback (most recent call last)"
AUTHORIZATION = ("authorization", f"Bearer {CLIENT}")


@contextmanager
def keys() -> Iterator[None]:
    """Set ``API_KEYS`` for the processes that are started meanwhile."""
    before = os.environ.get("API_KEYS")
    os.environ["API_KEYS"] = json.dumps({"waypost-clients": CLIENT, SERVICE: UPSTREAM})
    try:
        yield
    finally:
        os.environ.pop("API_KEYS")
        if before is not None:
            os.environ["API_KEYS"] = before


def check(what: object, data: bytes | str) -> None:
    """Check that there is neither a key nor a traceback in what came out of the gateway."""
    text = data.decode("utf-8", "replace") if isinstance(data, bytes) else data
    assert CORE not in text, f"{what}: a key"
    assert TRACEBACK.decode() not in text, f"{what}: {text[-3000:]}"


def check_logs(folder: Path) -> int:
    """Check every file below a folder of logs; returns how many there were.

    Ray's own processes may write what they like of their own misfortunes, but no key.
    """
    count = 0
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.is_symlink():
            data = path.read_bytes()
            ours = path.name.startswith("worker-") or path.parent.name == "serve"
            check(path, data if ours else data.replace(TRACEBACK, b""))
            count += 1
    return count
