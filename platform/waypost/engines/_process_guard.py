"""Ends vLLM's processes where this one is killed.

vLLM computes in processes of its own, which do not notice that the process that started them was
killed (0.6.3: they wait for ever and keep the model's memory). A shell that reads a pipe of ours
does: the pipe ends with us, whatever ends us.
"""

from __future__ import annotations

import subprocess
from collections.abc import Sequence

_SCRIPT = 'read -r _; kill -9 "$@"'


class Warden:
    """Watches over this process on behalf of its children.

    Args:
        pids: Processes to end when this one has ended.
    """

    def __init__(self, pids: Sequence[int]) -> None:
        # started last, so that none of them holds an end of the pipe
        self._shell = subprocess.Popen(
            ["/bin/sh", "-c", _SCRIPT, "waypost-warden", *map(str, pids)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # a Ctrl+C at the terminal is not for it
        )

    def dismiss(self) -> None:
        """Let the processes be: they have ended, or are about to be ended in order."""
        self._shell.kill()
        self._shell.wait()
        if self._shell.stdin is not None:
            self._shell.stdin.close()
