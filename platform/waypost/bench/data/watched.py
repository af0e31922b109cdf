"""Runs a command and watches what it and its descendants take, from /proc (Linux)."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from waypost.bench.gateway.processes import BenchError

_TICKS = os.sysconf("SC_CLK_TCK")
_OWN = re.compile(rb"^(?:RssAnon|VmSwap):\s*(\d+) kB", re.MULTILINE)
_TAIL = 15
_NAP_S = 0.02


@dataclass(frozen=True)
class Process:
    """One process at one moment.

    Attributes:
        pid, parent: Numbers.
        cpu_s: CPU seconds it took so far, of all its threads.
        own_mb: Memory that is its own: anonymous pages, resident or swapped out. Neither pages of
            files, which the system may drop, nor those of Ray's object store, which is counted by
            itself.
    """

    pid: int
    parent: int
    cpu_s: float
    own_mb: float


@dataclass
class Watched:
    """What a command printed and took.

    Attributes:
        said: The JSON that it wrote on stdout.
        wall_s: From its start to its end.
        times: Monotonic seconds of the samples.
        cpu_s: CPU seconds of all its processes, ended ones too, at each of them.
        driver_mb: Most memory of its own (`Process.own_mb`) of the command's own process.
        askers_mb: The same of Ray Data's actors together.
        tree_mb: The same of all its processes together.
    """

    said: dict[str, Any] = field(default_factory=dict)
    wall_s: float = 0.0
    times: list[float] = field(default_factory=list)
    cpu_s: list[float] = field(default_factory=list)
    driver_mb: float = 0.0
    askers_mb: float = 0.0
    tree_mb: float = 0.0

    def cpu_between(self, begin: float, end: float) -> float:
        """Return the CPU seconds taken between two moments, interpolated."""
        low, high = np.interp([begin, end], self.times, self.cpu_s)
        return float(high - low)


def watched(module: str, arguments: Sequence[str], every_s: float) -> Watched:
    """Run a module of the bench to its end.

    Args:
        module: Its name; it writes one JSON object on stdout.
        arguments: Of it.
        every_s: Seconds between two samples.

    Raises:
        BenchError: it failed; the message has its last lines.
    """
    began = time.monotonic()
    seen = Watched(times=[began], cpu_s=[0.0])
    taken: dict[int, float] = {}
    own = {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"}
    with tempfile.TemporaryFile() as out:
        process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            env=own,
            stdout=out,
            stderr=out,
            start_new_session=True,
        )
        try:
            ended = False
            while not ended:
                ended = _ends(process.pid, every_s)
                seen.wall_s = time.monotonic() - began
                _sample(seen, process.pid, taken)  # the last one, too: its CPU time still stands
        finally:
            process.terminate()  # after Ctrl-C; Ray's processes end with their driver
            process.wait()
        out.seek(0)
        lines = out.read().decode("utf-8", "replace").splitlines()
    if process.returncode or not lines:
        shown = "\n".join(f"  {line}" for line in lines[-_TAIL:])
        raise BenchError(f"{module} ended with {process.returncode}:\n{shown}")
    seen.said = json.loads(lines[-1])
    return seen


def _ends(pid: int, within_s: float) -> bool:
    """Wait for a child's end, at most so long; say whether it ended. It stays to be waited for."""
    until = time.monotonic() + within_s
    while True:
        if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
            return True
        if time.monotonic() >= until:
            return False
        time.sleep(min(_NAP_S, within_s))


def _sample(seen: Watched, root: int, taken: dict[int, float]) -> None:
    """Add one sample.

    Args:
        seen: To which.
        root: Number of the command's process.
        taken: CPU seconds by process, kept between samples so that ended ones still count.
    """
    tree = list(descendants(root))
    for one in tree:
        taken[one.pid] = one.cpu_s
    seen.times.append(time.monotonic())
    seen.cpu_s.append(sum(taken.values()))
    seen.driver_mb = max(seen.driver_mb, sum(p.own_mb for p in tree if p.pid == root))
    asking = [p.own_mb for p in tree if _command_line(p.pid).startswith(b"ray::MapWorker")]
    seen.askers_mb = max(seen.askers_mb, sum(asking))
    seen.tree_mb = max(seen.tree_mb, sum(p.own_mb for p in tree))


def descendants(root: int) -> Iterator[Process]:
    """Yield a process and all below it."""
    below: dict[int, list[Process]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and (found := _read(int(entry.name))):
            below.setdefault(found.parent, []).append(found)
            if found.pid == root:
                yield found
    waiting = [root]
    while waiting:
        children = below.get(waiting.pop(), [])
        yield from children
        waiting += [child.pid for child in children]


def _read(pid: int) -> Process | None:
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        status = Path(f"/proc/{pid}/status").read_bytes()
    except OSError:  # it has ended
        return None
    # the name stands in brackets and may itself hold spaces and brackets: proc(5)
    parts = text.rpartition(")")[2].split()
    parent, user, system = int(parts[1]), int(parts[11]), int(parts[12])
    own_kib = sum(map(int, _OWN.findall(status)))  # none of a process that is ending
    return Process(pid, parent, (user + system) / _TICKS, own_kib * 1024 / 1e6)


def _command_line(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""
