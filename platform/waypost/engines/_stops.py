"""Stop strings over a text that arrives in pieces."""

from __future__ import annotations

from collections.abc import Iterable


class StopFilter:
    """Lets text through up to the first stop string, and never a part of one.

    Text that may be the beginning of a stop string is held back until the next piece decides.
    Empty stop strings are ignored.

    Attributes:
        stopped: True once a stop string was found; everything later is dropped.
    """

    def __init__(self, stops: Iterable[str] = ()) -> None:
        self.stopped = False
        self._stops = tuple(stop for stop in stops if stop)
        self._held = ""

    def push(self, text: str) -> str:
        """Take the next piece; return what may be shown now."""
        if not self._stops:
            return text
        if self.stopped:
            return ""
        text, self._held = self._held + text, ""
        found = [at for stop in self._stops if (at := text.find(stop)) >= 0]
        if found:
            self.stopped = True
            return text[: min(found)]
        keep = max(_overlap(text, stop) for stop in self._stops)
        if keep:
            text, self._held = text[:-keep], text[-keep:]
        return text

    def flush(self) -> str:
        """Return what was held back, at the end of an answer that no stop string ended."""
        held, self._held = self._held, ""
        return held


def _overlap(text: str, stop: str) -> int:
    """Return the length of the longest end of `text` that begins `stop` (but is not all of it)."""
    longest = min(len(text), len(stop) - 1)
    return next((size for size in range(longest, 0, -1) if text.endswith(stop[:size])), 0)
