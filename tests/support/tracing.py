"""Which of our files a process runs, and when: `sys.setprofile` in every thread."""

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
"""How often a process writes down what it has run."""

APART_S = 0.005
"""Calls of one file that are nearer than this are noted once."""

Seen = dict[str, list[float]]
"""File, relative to its source root, to the times (s since the epoch) of its calls."""


def record(seen: Seen) -> None:
    """Note from now on the files of this process' calls, in this thread and in later ones."""
    names: dict[str, str | None] = {}  # by the code's file; None is not ours

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
    """Do so, and keep ``<process id>.json`` in a folder: for processes that a test cannot ask."""
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
    """End `record` for this thread and for later ones."""
    threading.setprofile(None)  # type: ignore[arg-type]
    sys.setprofile(None)
