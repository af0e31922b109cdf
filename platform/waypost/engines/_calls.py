"""The requests an engine is working on: ended early by abort, close and time-outs."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from waypost.contracts.errors import EngineConnectionError, EngineError, EngineTimeoutError
from waypost.contracts.generation import GenerateRequest

ResultT = TypeVar("ResultT")


class Cancelled(Exception):  # noqa: N818 - no failure: the answer ends with this finish reason
    """The request was aborted. Does not leave the engine."""


class Call:
    """One request in progress.

    Attributes:
        deadline: When its whole time is over, on the event loop's clock; None for never.
    """

    def __init__(self, request: GenerateRequest, limit_s: float | None) -> None:
        self.request_id = request.request_id
        self._loop = asyncio.get_running_loop()
        limits = [limit for limit in (request.timeout_s, limit_s) if limit is not None]
        self.deadline = self._loop.time() + min(limits) if limits else None
        self._scope: asyncio.Timeout | None = None
        self._end: Exception | None = None

    async def result(
        self, work: Awaitable[ResultT], within_s: float | None = None, late: str = ""
    ) -> ResultT:
        """Await something for as long as the request lives.

        Args:
            work: What to await; cancelled when the request ends.
            within_s: Seconds it may take; the request's deadline holds besides.
            late: What the time-out says when `within_s` is over.

        Raises:
            EngineTimeoutError: when the time is over.
            Cancelled: when the request was aborted.
            EngineError: the one given to `end`.
        """
        limits = [] if self.deadline is None else [self.deadline]
        if within_s is not None:
            limits.append(self._loop.time() + within_s)
        until = min(limits) if limits else None
        try:
            async with asyncio.timeout_at(until) as scope:
                self._scope = scope
                if self._end is not None:
                    scope.reschedule(self._loop.time())
                result = await work
        except TimeoutError:
            if not scope.expired():
                raise  # the work's own
        else:
            return result
        finally:
            self._scope = None
        self.check()
        raise EngineTimeoutError(late or "the request's time is over; raise timeout_s")

    async def sleep(self, seconds: float) -> None:
        """Wait, or look only whether the request goes on where there is nothing to wait."""
        if seconds > 0:
            await self.result(asyncio.sleep(seconds))
        self.check()

    def check(self) -> None:
        """Raise what ends the request, if something does."""
        if self._end is not None:
            raise self._end
        if self.deadline is not None and self._loop.time() >= self.deadline:
            raise EngineTimeoutError("the request's time is over; raise timeout_s")

    def end(self, why: EngineError | Cancelled) -> None:
        """End the request, also in the middle of what it awaits."""
        self._end = why
        if self._scope is not None and not self._scope.expired():
            self._scope.reschedule(self._loop.time())


class Calls:
    """The requests that run now.

    Attributes:
        open: False before the engine's start and after its close.
        output_tokens: Tokens made or passed on since the start, over all requests.
    """

    def __init__(self, engine: str) -> None:
        self.open = False
        self.output_tokens = 0
        self._engine = engine
        self._running: set[Call] = set()

    def __len__(self) -> int:
        return len(self._running)

    @contextmanager
    def enter(self, request: GenerateRequest, limit_s: float | None = None) -> Iterator[Call]:
        """Count a request as running for the length of the block.

        Args:
            request: Its ``timeout_s`` and `limit_s` bound the whole call; the shorter holds.
            limit_s: The engine's own limit.

        Raises:
            EngineConnectionError: where the engine is not open.
        """
        if not self.open:
            raise EngineConnectionError(f"the {self._engine} engine is not started, or closed")
        call = Call(request, limit_s)
        self._running.add(call)
        try:
            yield call
        finally:
            self._running.discard(call)

    def abort(self, request_id: str) -> None:
        """Cancel the request of that id, if it runs."""
        for call in self._running:
            if call.request_id == request_id:
                call.end(Cancelled())

    def close(self) -> None:
        """Fail what runs and take nothing more."""
        self.open = False
        for call in self._running:
            call.end(EngineConnectionError(f"the {self._engine} engine was closed"))
