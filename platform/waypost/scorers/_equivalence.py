"""Whether two LaTeX answers mean the same, asked of math-verify in a process of its own.

math-verify limits its time by a signal, which works in the main thread of a process only and
does not interrupt a long multiplication of integers. So a helper process imports it once and
answers behind the sandbox's barriers, with limits on its processor time and memory; one that
passes them is gone, and the next question starts another. There is one helper for each process
of Waypost, and it ends with it.
"""

from __future__ import annotations

import atexit
import importlib.util
import json
import logging
import os
import select
import subprocess
import sys
import threading
from functools import lru_cache
from typing import Any

from waypost.contracts.errors import MissingExtraError, SandboxError
from waypost.sandbox.run import boot_source

logger = logging.getLogger(__name__)

CPU_S = 2
"""Seconds of processor time of one comparison; one that needs more finds no equality."""
WALL_S = 120.0
"""Seconds on the clock. `CPU_S` is what bounds a comparison: a score must not be lower because a
machine is busy."""
MEMORY_BYTES = 1 << 30
LIFE_CPU_S = 600
"""After so much processor time a helper is replaced, and with it what its caches hold."""
MAX_CHARACTERS = 600
"""A longer answer is no short mathematical answer, and is not compared."""
_START_S = 120.0


@lru_cache(maxsize=4096)
def equivalent(gold: str, said: str) -> bool:
    """Say whether two answers in LaTeX, without dollar signs, are mathematically equal.

    Raises:
        MissingExtraError: math-verify is not installed.
        SandboxError: the helper process cannot be started.
    """
    if max(len(gold), len(said)) > MAX_CHARACTERS:
        return False
    answer = _HELPER.ask([gold, said])
    if answer is None:
        logger.warning("an answer to a maths question took too long to compare; it scores 0")
    return answer is True


class _Helper:
    """The helper process, started at the first question, again where it is gone."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._owner = 0

    def ask(self, pair: list[str]) -> Any:
        """Return True or False, or None where there was no answer in time."""
        with self._lock:
            process = self._running()
            assert process.stdin is not None
            try:
                process.stdin.write(json.dumps(pair).encode() + b"\n")
                process.stdin.flush()
                return self._receive(process, WALL_S)
            except (OSError, ValueError):
                self._stop()
                return None

    def _running(self) -> subprocess.Popen[bytes]:
        # A forked copy of this process must not talk over its parent's pipes.
        if self._process is not None and self._owner == os.getpid():
            if self._process.poll() is None:
                return self._process
            self._stop()
        if importlib.util.find_spec("math_verify") is None:
            raise MissingExtraError("math_verify", "data")
        limits = {"cpu_s": CPU_S, "life_cpu_s": LIFE_CPU_S, "memory_bytes": MEMORY_BYTES}
        command = [sys.executable, "-I", "-B", "-c", boot_source(_MODULES), json.dumps(limits)]
        try:
            process = subprocess.Popen(
                command,
                env={},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        except OSError as error:
            raise SandboxError(f"cannot start a process to compare answers: {error}") from error
        self._process, self._owner = process, os.getpid()
        try:
            ready = self._receive(process, _START_S)
        except ValueError:
            ready = None
        if ready != "ready":
            self._stop()
            raise SandboxError("the process that compares answers ended before it was ready")
        return process

    def _receive(self, process: subprocess.Popen[bytes], wait_s: float) -> Any:
        assert process.stdout is not None
        if not select.select([process.stdout], [], [], wait_s)[0]:
            self._stop()
            return None
        return json.loads(process.stdout.readline())

    def _stop(self) -> None:
        process, self._process = self._process, None
        if process is None or self._owner != os.getpid():
            return
        process.kill()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                try:
                    pipe.close()
                except OSError:
                    logger.debug("a pipe of the helper process was closed already")
        process.wait()

    def close(self) -> None:
        """End the helper; the next question starts another."""
        with self._lock:
            self._stop()


_MODULES = ("waypost.sandbox._confine", "waypost.scorers._equivalence_worker")
_HELPER = _Helper()
atexit.register(_HELPER.close)
