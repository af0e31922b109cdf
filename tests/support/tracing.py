"""A trace of Waypost's files that a process runs, and when: `sys.setprofile` in every thread."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from pathlib import Path
from types import FrameType
from typing import Any

EVERY_S = 0.2
"""Seconds between two writes of a process's trace."""

APART_S = 0.005
"""Seconds within which further calls of the same file are not recorded."""

Seen = dict[str, list[float]]
"""File, relative to its source root -> times of its calls, in seconds since the epoch."""


def record(seen: Seen) -> None:
    """Record the files of this process's calls from now on, in this thread and in later ones."""
    names: dict[str, str | None] = {}  # by the code's file; None if it is not Waypost's

    def note(frame: FrameType, event: str, _: Any) -> None:
        if event != "call":
            return
        path = frame.f_code.co_filename
        if path not in names:
            _, found, rest = path.rpartition("/waypost")
            names[path] = f"waypost{rest}" if found and rest.endswith(".py") else None
        name = names[path]
        if name is not None and frame.f_code.co_name != "<module>":
            times, now = seen.setdefault(name, []), time.time()
            if not times or now > times[-1] + APART_S:
                times.append(now)

    threading.setprofile(note)
    sys.setprofile(note)


def record_into(folder: str) -> None:
    """Record into ``<process id>.json`` in a folder, for processes other than the test's."""
    seen: Seen = {}
    path = Path(folder) / f"{os.getpid()}.json"

    def write() -> None:
        sys.setprofile(None)
        while True:
            time.sleep(EVERY_S)
            if seen:
                part = path.with_suffix(".partial")
                part.write_text(json.dumps({name: times[:] for name, times in list(seen.items())}))
                part.replace(path)

    threading.Thread(target=write, daemon=True).start()
    record(seen)


def stop() -> None:
    """Stop recording in this thread and in later ones."""
    threading.setprofile(None)  # type: ignore[arg-type]
    sys.setprofile(None)
