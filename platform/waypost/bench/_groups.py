"""The process groups that a bench starts, and their end when the bench is told to stop."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

STOP_S = 60.0
"""Seconds between SIGTERM and SIGKILL: `waypost serve` finishes open requests and stops Ray."""

_NAP_S = 0.02


class _Known:
    """What this process has started, and whether a signal waits for the end of a start."""

    def __init__(self) -> None:
        self.processes: list[subprocess.Popen[Any]] = []
        self.starting, self.told = False, False


_known = _Known()


def begin(command: Sequence[str], **options: Any) -> subprocess.Popen[Any]:
    """Start a command in a session of its own; `finish` ends it, or the end of `ended_on_sigterm`.

    Ctrl-C then reaches only the bench, which stops what it started.

    Args:
        command: Command line.
        **options: Options of `subprocess.Popen`.
    """
    # A signal between the start and the note of it would leave a process that nobody knows.
    _known.starting = True
    try:
        process = subprocess.Popen(command, start_new_session=True, **options)
        _known.processes.append(process)
    finally:
        _known.starting = False
    if _known.told:
        raise SystemExit(128 + signal.SIGTERM)
    return process


def finish(process: subprocess.Popen[Any], within_s: float = STOP_S) -> None:
    """End a process that `begin` started: SIGTERM, then SIGKILL to what is left of its group.

    Args:
        process: The process; it may have ended.
        within_s: Seconds that it has for its end after SIGTERM.
    """
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        ends(process.pid, within_s)
        # before its end is collected: until then no other group can have its number
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    if process in _known.processes:
        _known.processes.remove(process)


def ends(pid: int, within_s: float) -> bool:
    """Wait at most ``within_s`` for a child's end; return whether it ended. Do not reap it."""
    until = time.monotonic() + within_s
    while True:
        if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
            return True
        if time.monotonic() >= until:
            return False
        time.sleep(min(_NAP_S, within_s))


def _raise(number: int, frame: FrameType | None) -> None:
    if _known.starting:
        _known.told = True
    else:
        raise SystemExit(128 + number)


@contextmanager
def ended_on_sigterm(within_s: float = STOP_S) -> Iterator[None]:
    """End what `begin` started at the block's end, which SIGTERM brings about by `SystemExit`.

    Only in the main thread of a process.

    Args:
        within_s: Seconds that each process has for its end; see `finish`.
    """
    before = signal.signal(signal.SIGTERM, _raise) or signal.SIG_DFL
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a second one would cut the end short
        for process in reversed(tuple(_known.processes)):
            finish(process, within_s)
        _known.told = False
        signal.signal(signal.SIGTERM, before)
