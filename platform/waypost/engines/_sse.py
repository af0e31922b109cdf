"""Server-sent events, as far as OpenAI-style streams use them."""

from __future__ import annotations

from waypost.contracts.errors import EngineServerError

MAX_EVENT_BYTES = 16 * 2**20
"""Longest event that is taken; an endless line must not fill the memory."""


class EventParser:
    """Turns the bytes of a stream, cut anywhere, into the data of its events.

    Lines end in LF or CRLF. Comments and the fields event, id and retry are skipped; the data
    lines of one event are joined by newlines; an event without data is none.
    """

    def __init__(self) -> None:
        self._line = bytearray()  # a line whose end has not come yet
        self._data: list[bytes] = []

    def feed(self, part: bytes) -> list[str]:
        """Take the next bytes; return the data of the events they complete.

        Raises:
            EngineServerError: where an event is longer than `MAX_EVENT_BYTES`.
        """
        events: list[str] = []
        *ended, rest = part.split(b"\n")
        for line in ended:
            if self._line:
                line, self._line = bytes(self._line) + line, bytearray()
            self._take(line.removesuffix(b"\r"), events)
        self._line += rest
        if len(self._line) + sum(map(len, self._data)) > MAX_EVENT_BYTES:
            raise EngineServerError(f"an event of the stream exceeds {MAX_EVENT_BYTES} bytes")
        return events

    def finish(self) -> list[str]:
        """Return the data of a last event whose empty line never came."""
        events: list[str] = []
        self._take(bytes(self._line).removesuffix(b"\r"), events)
        self._line.clear()
        self._take(b"", events)
        return events

    def _take(self, line: bytes, events: list[str]) -> None:
        if not line:
            if self._data:
                events.append(b"\n".join(self._data).decode("utf-8", errors="replace"))
                self._data = []
        elif line.startswith(b"data:"):
            self._data.append(line[5:].removeprefix(b" "))
