"""Bounds the bodies that are on their way: so many at a time, each for so long."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Arrivals:
    """A bounded number of bodies on their way; one more ends the one that has taken longest.

    A body that is sent at once is here for a moment, so that clients who send slowly, however
    many, take no place from those who do not.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._arriving: dict[int, asyncio.Timeout] = {}  # in the order of their begin

    @asynccontextmanager
    async def within(self, timeout_s: float) -> AsyncIterator[None]:
        """Bound the time of the block.

        Raises:
            TimeoutError: it is over, or the block gave way to another.
        """
        async with asyncio.timeout(timeout_s) as scope:
            if len(self._arriving) >= self._most:
                slowest = self._arriving.pop(next(iter(self._arriving)))
                if not slowest.expired():
                    slowest.reschedule(0.0)
            self._arriving[id(scope)] = scope
            try:
                yield
            finally:
                self._arriving.pop(id(scope), None)
