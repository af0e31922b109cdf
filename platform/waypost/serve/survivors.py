"""End every process of a run of ``waypost serve`` once the run is over, however it ended.

A program that is killed cannot end its own processes. Ray's end with their parent by the kernel's
help, but what they started (HAProxy, the engine processes of vLLM) lives on. So a run has a mark in
the environment that all its processes inherit, and a process of its own, outside of its session,
that waits for the end of the launcher and then ends what still bears the mark.
"""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import TracebackType

VARIABLE = "WAYPOST_RUN"
GRACE_S = 1.0
"""Time in which processes may end by themselves after the launcher."""

WITHIN_S = 10.0
"""Time after which the watching process gives up on what cannot be killed."""

_POLL_S = 0.1


class Watch:
    """Ends all processes that are started during the block once it is over, or this process killed.

    Attributes:
        mark: Value of `VARIABLE` in their environment.
    """

    def __init__(self) -> None:
        self.mark = secrets.token_hex(16)

    def __enter__(self) -> Watch:
        # started before the mark is set, so that it does not bear it
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", __name__, self.mark],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C and the end of a terminal do not reach it
        )
        self._earlier = os.environ.get(VARIABLE)
        os.environ[VARIABLE] = self.mark
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._earlier is None:
            os.environ.pop(VARIABLE, None)
        else:
            os.environ[VARIABLE] = self._earlier
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()  # at most GRACE_S + WITHIN_S


def marked(mark: str) -> Iterator[int]:
    """Yield the ids of the processes of this user that bear a mark, this process excepted."""
    wanted = f"{VARIABLE}={mark}".encode()
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal() or int(entry.name) == os.getpid():
            continue
        with suppress(OSError):  # ended, or another user's
            if wanted in (entry / "environ").read_bytes().split(b"\0"):
                yield int(entry.name)


def end(mark: str, grace_s: float = GRACE_S, within_s: float = WITHIN_S) -> list[int]:
    """End the processes that bear a mark.

    Args:
        mark: The mark.
        grace_s: Time in which they may end by themselves.
        within_s: Time for the rest.

    Returns:
        The ids of those that still live.
    """
    begin = time.monotonic()
    while left := list(marked(mark)):
        passed_s = time.monotonic() - begin
        if passed_s > grace_s + within_s:
            break
        if passed_s > grace_s:
            for pid in left:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        time.sleep(_POLL_S)
    return left


def main() -> None:
    """Wait for the end of standard input, then `end` the mark of the command line."""
    while os.read(0, 1):
        pass
    end(sys.argv[1])


if __name__ == "__main__":
    main()
