"""Lets in as many requests as the gateway works on; some wait, the rest are turned away.

A request takes its place when its body is there.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from waypost.contracts.errors import WaypostError

LONGEST_ADVICE_S = 60
_SMOOTHING = 0.1


class TooBusyError(WaypostError):
    """The queue is full, or the wait was too long; `retry_after_s` advises when to come back."""

    def __init__(self, message: str, retry_after_s: int) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class StoppingError(WaypostError):
    """The server stops: nothing new is begun, and what is not complete by then is ended."""

    def __init__(self) -> None:
        super().__init__("the server is stopping; retry later")


class Gate:
    """A bounded number of requests at work, a bounded number waiting, first come first served.

    Attributes:
        in_flight: Requests at work.
    """

    def __init__(self, max_in_flight: int, max_queued: int, timeout_s: float) -> None:
        self.in_flight = 0
        self._most = max_in_flight
        self._most_waiting = max_queued
        self._timeout_s = timeout_s
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._mean_s = 0.1

    @property
    def waiting(self) -> int:
        """Requests that wait for their turn."""
        return len(self._waiting)

    def check(self) -> None:
        """Refuse before anything is read where there is no room even to wait.

        Raises:
            TooBusyError: no place is free and the queue is full.
        """
        if self.in_flight >= self._most and len(self._waiting) >= self._most_waiting:
            raise TooBusyError("the server is at its limit; retry later", self._advice())

    @asynccontextmanager
    async def admit(self) -> AsyncIterator[None]:
        """Hold a place for the length of the block.

        Raises:
            TooBusyError: no place is free and the queue is full, or the wait was too long.
        """
        await self._enter()
        loop = asyncio.get_running_loop()
        begin = loop.time()
        try:
            yield
        finally:
            self._mean_s += _SMOOTHING * (loop.time() - begin - self._mean_s)
            self._leave()

    async def _enter(self) -> None:
        self.check()
        if self.in_flight < self._most:
            self.in_flight += 1
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            async with asyncio.timeout(self._timeout_s):
                await turn
        except BaseException as error:
            self._give_up(turn)
            if isinstance(error, TimeoutError):
                message = f"the request waited {self._timeout_s:g} s for its turn; retry later"
                raise TooBusyError(message, self._advice()) from None
            raise

    def _give_up(self, turn: asyncio.Future[None]) -> None:
        if turn in self._waiting:
            self._waiting.remove(turn)
        elif not turn.cancelled():
            self._leave()  # the turn came at the moment the caller went

    def _leave(self) -> None:
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)  # the place passes on
                return
        self.in_flight -= 1

    def _advice(self) -> int:
        ahead = (len(self._waiting) + 1) / self._most
        return max(1, min(LONGEST_ADVICE_S, math.ceil(ahead * self._mean_s)))
