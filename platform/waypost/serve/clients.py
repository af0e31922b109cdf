"""How the gateway reaches a router and an LLM, wherever they run: two small protocols.

The clients here run them in the gateway's own process; `ray_clients` has those that call a
deployment. The gateway cannot tell them apart.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any, Protocol

from waypost.contracts.errors import EngineOverloadedError
from waypost.contracts.generation import Chunk, GenerateRequest
from waypost.contracts.records import Decision
from waypost.engines.base import Engine
from waypost.serve.decider import Decider, read_reply
from waypost.serve.llm_host import Pace, chunks_of, whole_answer


class RouterClient(Protocol):
    """Decides."""

    async def start(self) -> None:
        """Make ready to decide."""
        ...

    async def decide(self, query: dict[str, Any], router: str) -> Decision:
        """Decide one query.

        Args:
            query: As `Query.of` reads it.
            router: Name of a loaded router.

        Raises:
            PolicyError, SchemaError: the query cannot be decided as asked.
            RouterUnavailableError: the router cannot be reached.
        """
        ...

    async def close(self) -> None:
        """Free what `start` took."""
        ...


class LLMClient(Protocol):
    """Asks one LLM."""

    async def start(self) -> None:
        """Make ready to answer."""
        ...

    def stream(
        self, request: GenerateRequest, pace: Pace, *, whole: bool
    ) -> AsyncGenerator[list[Chunk], None]:
        """Answer one request as lists of chunks.

        With ``whole`` there is one list, once the answer is complete. Closing the generator
        ends the generation.

        Raises:
            EngineError: at the first or any later list.
        """
        ...

    async def close(self) -> None:
        """Free what `start` took."""
        ...


class LocalRouter:
    """A router in this process."""

    def __init__(self, decider: Decider) -> None:
        self.decider = decider

    async def start(self) -> None:
        """Load the artifacts."""
        await self.decider.start()

    async def decide(self, query: dict[str, Any], router: str) -> Decision:
        """Decide one query; see `RouterClient.decide`."""
        return read_reply(await self.decider.decide(query, router))

    async def close(self) -> None:
        """End the threads."""
        await self.decider.close()


class LocalLLM:
    """An engine in this process, with the queue that a deployment would have.

    Args:
        engine: Started by `start`.
        max_ongoing: Requests worked on at a time.
        max_queued: Requests that wait; one more is refused.
        queue_timeout_s: Longest wait.
    """

    def __init__(
        self, engine: Engine, max_ongoing: int, max_queued: int, queue_timeout_s: float
    ) -> None:
        self.engine = engine
        self._queue_timeout_s = queue_timeout_s
        self._places = asyncio.Semaphore(max_ongoing)
        self._most = max_ongoing + max_queued
        self._present = 0

    async def start(self) -> None:
        """Start the engine."""
        await self.engine.start()

    async def close(self) -> None:
        """Close the engine."""
        await self.engine.close()

    async def stream(
        self, request: GenerateRequest, pace: Pace, *, whole: bool
    ) -> AsyncGenerator[list[Chunk], None]:
        """Answer one request; see `LLMClient.stream`."""
        if self._present >= self._most:
            raise EngineOverloadedError(f"{self._present} requests are in progress or waiting")
        self._present += 1
        try:
            await self._take_place()
            try:
                if whole:
                    yield await whole_answer(self.engine, request, pace)
                    return
                async with aclosing(chunks_of(self.engine, request, pace)) as chunks:
                    async for chunk in chunks:
                        yield [chunk]
            finally:
                self._places.release()
        finally:
            self._present -= 1

    async def _take_place(self) -> None:
        if not self._places.locked():
            await self._places.acquire()
            return
        try:
            async with asyncio.timeout(self._queue_timeout_s):
                await self._places.acquire()
        except TimeoutError:
            raise EngineOverloadedError(
                f"no place was free within {self._queue_timeout_s:g} s"
            ) from None
