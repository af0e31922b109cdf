"""Who holds a folder: what a lock's file says, and what a second run is told."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from waypost.storage.uri import Place

LOCK = ".lock"
"""Name of the file, in the folder."""

_MACHINE = ("/proc/sys/kernel/random/boot_id", "/proc/self/ns/pid")


def me() -> dict[str, Any]:
    """Return what this process leaves: number, host, since when, and where the number counts."""
    since = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    return {"pid": os.getpid(), "host": socket.gethostname(), "since": since, "space": _space()}


def holder_of(data: bytes) -> dict[str, Any]:
    """Read what a process left; nothing where it has not written it yet."""
    try:
        found = json.loads(data)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def is_gone(holder: Mapping[str, Any]) -> bool:
    """Say whether we can see that the process has ended: only where its number is one of ours."""
    space, pid = _space(), holder.get("pid")
    if space is None or holder.get("space") != space or not isinstance(pid, int):
        return False
    return not Path(f"/proc/{pid}").exists()


def refusal(folder: Place, holder: Mapping[str, Any]) -> str:
    """Return what a second run is told."""
    facts = [str(holder.get(key, "?")) for key in ("pid", "host", "since")]
    who = "process {} on {}, since {}".format(*facts) if holder else "another process"
    return (
        f"{folder}: another run works in it ({who}); two would pay for the same answers twice: "
        "wait for its end, or end it there"
    )


def _space() -> str | None:
    """Return what tells apart machines, boots and containers; None where the system does not."""
    boot, numbers = _MACHINE
    try:
        return f"{Path(boot).read_text(encoding='ascii').strip()} {Path(numbers).readlink()}"
    except OSError:
        return None
