"""Compare two LaTeX answers for mathematical equality with math-verify, in a helper process.

math-verify limits its time by a signal. This works only in the main thread of a process and does
not interrupt a long multiplication of integers. The helper process therefore imports it once and
compares answers inside the sandbox, with limits on processor time and memory. A helper that exceeds
a limit ends, and the next comparison starts another. Each process of Waypost has one helper, which
ends with it.
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
"""Processor time of one comparison, in seconds; beyond it the answers count as unequal."""
WALL_S = 120.0
"""Limit on the wall-clock time of one comparison, in seconds. It is far above `CPU_S`, so that a
busy machine does not lower scores."""
MEMORY_BYTES = 1 << 30
LIFE_CPU_S = 600
"""Processor time after which a helper and its caches are replaced, in seconds."""
MAX_CHARACTERS = 600
"""Longer answers are not compared and count as unequal."""
_START_S = 120.0


@lru_cache(maxsize=4096)
def equivalent(gold: str, said: str) -> bool:
    """Return whether two LaTeX answers (without dollar signs) are mathematically equal.

    Raises:
        MissingExtraError: math-verify is not installed.
        SandboxError: the helper process cannot be started.
    """
    if max(len(gold), len(said)) > MAX_CHARACTERS:
        return False
    answer = _HELPER.ask([gold, said])
    if answer is None:
        logger.warning("the comparison of a maths answer took too long; it scores 0")
    return answer is True


class _Helper:
    """The helper process, started by the first comparison and again after it has ended."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._owner = 0

    def ask(self, pair: list[str]) -> Any:
        """Return True or False, or None if the helper ends or gives no answer in time."""
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
        # A fork of this process must not use its parent's pipes.
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
            raise SandboxError("the process that compares answers ended during its start")
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
                    logger.debug("a pipe of the helper process is already closed")
        process.wait()

    def close(self) -> None:
        """End the helper; the next comparison starts another."""
        with self._lock:
            self._stop()


_MODULES = ("waypost.sandbox._confine", "waypost.scorers._equivalence_worker")
_HELPER = _Helper()
atexit.register(_HELPER.close)
