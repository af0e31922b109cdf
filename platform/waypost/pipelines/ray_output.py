"""What Ray prints by itself, kept from where results go."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import tempfile
import threading
from collections.abc import Iterator
from typing import Any

logger = logging.getLogger(__name__)

_LISTENER = "ray_listen_error_messages"
"""Ray's thread that prints on standard output what the raylet has to say."""

_LEVEL_IS_SET = b"Set ray log level from environment variable"


class _Results:
    """Standard output as it was, but for what Ray's listener prints: that goes to our log.

    Mostly it is that a worker died, and an actor with an event loop often does so as it ends. It
    must not stand among results, which a program may read. What such a death means for the work,
    whoever waits for the work is told by an exception.
    """

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        if threading.current_thread().name != _LISTENER:
            return int(self._stream.write(text) or 0)
        if text.strip():
            logger.debug("Ray says: %s", text.strip())
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextlib.contextmanager
def results_only() -> Iterator[None]:
    """Keep what Ray prints out of standard output while the block runs."""
    with contextlib.redirect_stdout(_Results(sys.stdout)):
        yield


@contextlib.contextmanager
def without_first_words() -> Iterator[None]:
    """Leave out the line in which Ray's C++ part says that its log level was set.

    It is written to the descriptor, whatever the level. Anything else that is written to standard
    error meanwhile is there when the block ends.
    """
    try:
        kept = os.dup(2)
    except OSError:  # closed
        yield
        return
    with tempfile.TemporaryFile() as said:
        _flush()
        os.dup2(said.fileno(), 2)
        try:
            yield
        finally:
            _flush()
            os.dup2(kept, 2)
            os.close(kept)
            said.seek(0)
            os.write(2, b"".join(line for line in said if _LEVEL_IS_SET not in line))


def _flush() -> None:
    with contextlib.suppress(OSError, ValueError, AttributeError):
        sys.stderr.flush()
