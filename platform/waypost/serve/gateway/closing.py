"""The end of a gateway: new requests are refused, those in flight finish or are ended."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from waypost.serve.gateway.errors import StoppingError
from waypost.serve.gateway.http import Exchange


class Closing:
    """Whether the gateway stops, and the requests that it works on.

    Attributes:
        begun: Whether it stops.
    """

    def __init__(self) -> None:
        self.begun = False
        self._at_work: set[Exchange] = set()
        self._done = asyncio.Event()

    @property
    def open(self) -> int:
        """Number of requests in flight."""
        return len(self._at_work)

    def check(self) -> None:
        """Refuse a request while the gateway stops.

        Raises:
            StoppingError: it does.
        """
        if self.begun:
            raise StoppingError

    @contextmanager
    def working(self, http: Exchange) -> Iterator[None]:
        """Count a request as in flight during the block.

        Raises:
            StoppingError: the gateway stops.
        """
        self.check()
        self._at_work.add(http)
        try:
            yield
        finally:
            self._at_work.discard(http)
            self._note()

    def begin(self, after_s: float) -> None:
        """Stop, and end the requests still in flight after ``after_s`` seconds."""
        if not self.begun:
            self.begun = True
            asyncio.get_running_loop().call_later(after_s, self._end_all)
            self._note()

    async def done(self) -> None:
        """Return once the gateway stops and no request is in flight."""
        await self._done.wait()

    def _end_all(self) -> None:
        for http in tuple(self._at_work):
            http.stop()

    def _note(self) -> None:
        if self.begun and not self._at_work:
            self._done.set()
