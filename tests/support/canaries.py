"""API keys that must not occur in any output of the gateway."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

CORE = "canary4b1f93d7"
"""Part of every key below; plain characters, which JSON and URLs do not escape."""

CLIENT = f"sk-{CORE}/clients+1"
"""Key of the gateway's clients."""

UPSTREAM = f"sk-{CORE}/upstream+2"
"""Key that the gateway sends to the service `SERVICE`."""

SERVICE = "canary-service"
TRACEBACK = b"Traceback (most recent call last)"
AUTHORIZATION = ("authorization", f"Bearer {CLIENT}")


@contextmanager
def keys() -> Iterator[None]:
    """Set ``API_KEYS`` for the processes that are started within the block."""
    before = os.environ.get("API_KEYS")
    os.environ["API_KEYS"] = json.dumps({"waypost-clients": CLIENT, SERVICE: UPSTREAM})
    try:
        yield
    finally:
        os.environ.pop("API_KEYS")
        if before is not None:
            os.environ["API_KEYS"] = before


def check(what: object, data: bytes | str) -> None:
    """Check that an output of the gateway contains no key and no traceback."""
    text = data.decode("utf-8", "replace") if isinstance(data, bytes) else data
    assert CORE not in text, f"{what}: a key"
    assert TRACEBACK.decode() not in text, f"{what}: {text[-3000:]}"


def check_logs(folder: Path) -> int:
    """Check every file below a folder of logs; return the number of files.

    Logs of Ray's own processes may contain tracebacks, but no key.
    """
    count = 0
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.is_symlink():
            data = path.read_bytes()
            ours = path.name.startswith("worker-") or path.parent.name == "serve"
            check(path, data if ours else data.replace(TRACEBACK, b""))
            count += 1
    return count
