"""End every process that a block started once the block is over, however it ended.

A program that is killed cannot end its own processes. Of ``waypost serve``, most of Ray's end with
it, but two agents, and what Ray's processes started themselves (HAProxy), may live on; the
processes that vLLM computes in wait for ever. So a process of its own waits for the end of the
program, and then ends all that the block started, directly or not.

They are known by a mark: a soft limit on POSIX message queues, which nobody here uses, with a value
of this run. The kernel hands it down to every child and shows it in /proc. Neither parents nor
sessions tell them, because orphans get other parents; nor does the environment, because Ray's
processes write their titles over it.
"""

from __future__ import annotations

import os
import secrets
import selectors
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import TracebackType

GRACE_S = 1.0
"""Time in which processes may end by themselves after the launcher."""

WITHIN_S = 10.0
"""Time after which the watching process gives up on what cannot be killed."""

_POLL_S = 0.1
_MARKS = 2**18
_LINE = "Max msgqueue size"
_OVER = b"\n"
"""Line that says that the block is over. The end of the input alone may not come: processes that
were forked in the block hold it open."""


class Watch:
    """Ends all processes that are started during the block once it is over, or this process killed.

    Does nothing on systems without /proc, and where the limit cannot be set. Blocks of different
    processes may nest: what an inner one starts is ended by the inner one only. In one process they
    may not overlap.

    Attributes:
        mark: The limit in bytes; 0 where there is none.
    """

    def __init__(self) -> None:
        self.mark = 0
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Watch:
        if sys.platform != "linux":
            return self
        import resource

        self._earlier = resource.getrlimit(resource.RLIMIT_MSGQUEUE)
        hard = self._earlier[1]
        most = 4 * _MARKS if hard == resource.RLIM_INFINITY else hard
        if most <= _MARKS:
            return self
        self.mark = most - 1 - secrets.randbelow(_MARKS)
        resource.setrlimit(resource.RLIMIT_MSGQUEUE, (self.mark, hard))
        # started with the mark of this block, so that no outer one ends it before it has done
        # its work; it takes the mark off
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", __name__, str(self.mark), str(os.getpid())],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C and the end of a terminal do not reach it
        )
        return self

    def mark_no_more(self) -> None:
        """Start further processes without the mark; those that bear it are still ended."""
        if self._process is None:
            return
        import resource

        if resource.getrlimit(resource.RLIMIT_MSGQUEUE)[0] == self.mark:
            resource.setrlimit(resource.RLIMIT_MSGQUEUE, self._earlier)

    def remove_at_end(self, folder: Path) -> None:
        """Have a folder removed once the block is over, or this process killed."""
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.write(os.fsencode(folder) + b"\n")
            self._process.stdin.flush()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._process is None:
            return
        self.mark_no_more()
        assert self._process.stdin is not None
        self._process.stdin.write(_OVER)
        self._process.stdin.close()
        self._process.wait()  # at most GRACE_S + WITHIN_S


def marked(mark: int) -> Iterator[int]:
    """Yield the ids of this user's processes that bear a mark, this process excepted."""
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal() or int(entry.name) == os.getpid():
            continue
        with suppress(OSError):  # it has ended
            if entry.stat().st_uid != os.getuid() or _is_zombie(entry):
                continue
            if _limit(entry) == str(mark):
                yield int(entry.name)


def _is_zombie(entry: Path) -> bool:
    """Return whether a process has ended, and only its parent has not asked for its status."""
    return (entry / "stat").read_text().rpartition(")")[2].split()[0] == "Z"


def _limit(entry: Path) -> str:
    lines = (entry / "limits").read_text().splitlines()
    found = next((line for line in lines if line.startswith(_LINE)), _LINE + " -")
    return found.removeprefix(_LINE).split()[0]


def end(mark: int, grace_s: float = GRACE_S, within_s: float = WITHIN_S) -> list[int]:
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


def _folders_named(program: int) -> list[bytes]:
    """Return the lines of standard input up to the end of the block, or of the program."""
    said = b""
    with selectors.DefaultSelector() as waiting:
        waiting.register(sys.stdin.fileno(), selectors.EVENT_READ)
        try:
            waiting.register(os.pidfd_open(program), selectors.EVENT_READ)
        except ProcessLookupError:
            return []
        over = False
        while not over:
            ready = {key.fd for key, _ in waiting.select()}
            if sys.stdin.fileno() in ready:
                part = os.read(sys.stdin.fileno(), 65_536)
                said += part
                over = not part
            else:
                over = True  # the program has ended, and all that it wrote is read
            over = over or said == _OVER or said.endswith(b"\n" + _OVER)
    return [line for line in said.splitlines() if line]


def main() -> None:
    """Wait for the end of the block, `end` the mark of the command line, remove the folders that
    standard input named.
    """
    import resource

    hard = resource.getrlimit(resource.RLIMIT_MSGQUEUE)[1]
    resource.setrlimit(resource.RLIMIT_MSGQUEUE, (hard, hard))
    mark, program = map(int, sys.argv[1:])
    folders = _folders_named(program)
    end(mark)
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
