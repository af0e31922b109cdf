"""Protocols of the gateway's clients for a router and an LLM, and clients for the same process.

`waypost.serve.backends.ray` has the clients that call a deployment. The gateway uses both alike.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from waypost.contracts.errors import (
    EngineOverloadedError,
    WaypostError,
)
from waypost.contracts.generation import Answer, Chunk, GenerateRequest
from waypost.contracts.step_router import Action
from waypost.engines.base import Engine
from waypost.secrets import redact
from waypost.serve.backends.llm_replica import (
    Pace,
    absent,
    chunks_of,
    reason_for_clients,
    whole_answer,
)
from waypost.serve.backends.messages import Reply, Routed, read_action, read_routed
from waypost.serve.backends.router_replica import Decider
from waypost.serve.plan import RouterPlan

logger = logging.getLogger(__name__)


class Loading:
    """Load state of a router or an LLM, as its client knows it.

    Attributes:
        ready: Whether it is loaded. After a failed load it is False; the load may be retried.
        problem: Why the last load failed, for clients; None where it did not, or is not known.
    """

    def __init__(self) -> None:
        self.ready = False
        self.problem: str | None = None
        self._begun = time.monotonic()
        self._ended = asyncio.Event()

    @property
    def state(self) -> Literal["ready", "loading", "failed"]:
        """The state in one word."""
        if self.ready:
            return "ready"
        return "failed" if self._ended.is_set() else "loading"

    @property
    def loading_s(self) -> float | None:
        """Seconds since the load began; None once it has succeeded or failed."""
        return None if self._ended.is_set() else time.monotonic() - self._begun

    def loaded(self, ready: bool, problem: str | None = None) -> None:
        """Record that the load has ended, and why it failed."""
        self.ready = ready
        self.problem = problem
        self._ended.set()

    async def wait(self) -> None:
        """Return once the load has ended."""
        await self._ended.wait()


@dataclass(slots=True)
class Load:
    """Requests of this process at one LLM.

    Attributes:
        in_flight: Those that it works on.
        queued: Those that wait for a free place.
    """

    in_flight: int = 0
    queued: int = 0


class RouterClient(Protocol):
    """A client of the router node."""

    loading: Loading

    async def start(self) -> None:
        """Prepare for decisions."""
        ...

    async def decide(self, query: dict[str, Any], router: str) -> Routed:
        """Decide one query.

        Args:
            query: As `Query.of` reads it.
            router: Name of a loaded router; ``auto`` is the default one.

        Raises:
            PolicyError, SchemaError: the query has a wrong form, or no LLM may answer it.
            RouterUnavailableError: the router cannot be reached.
        """
        ...

    async def decide_aside(self, queries: list[tuple[dict[str, Any], str]]) -> list[Reply]:
        """Decide queries, each with the name of its router, without holding up `decide`.

        Raises:
            RouterUnavailableError: the router cannot be reached. Other failures are data.
        """
        ...

    async def step(
        self, state: dict[str, Any], router: str, version: str, *, capped: bool = False
    ) -> Action:
        """Take one step of an episode.

        Args:
            state: `EpisodeState.to_dict`.
            router: Name of a loaded step router; ``auto`` is the default one.
            version: Version of the router in its decision; it must not change in an episode.
            capped: Whether a cap was reached; then `StepRouter.fallback` is called.

        Raises:
            StaleDecisionError: the router of that name was replaced by another version.
            PolicyError: no LLM is left that the router may ask.
            RouterUnavailableError: the router cannot be reached, or failed.
        """
        ...

    async def adopt(self, plan: RouterPlan) -> None:
        """Decide by another plan from now on.

        Raises:
            ArtifactError, WeightsError, PoolMismatchError: the plan cannot be loaded. The earlier
                plan stays in force.
        """
        ...

    async def close(self) -> None:
        """Free the resources of `start`."""
        ...


class LLMClient(Protocol):
    """A client of one LLM."""

    loading: Loading
    load: Load

    async def start(self) -> None:
        """Begin to load. Nothing is raised: after a failed load `Loading.ready` is False."""
        ...

    def stream(self, request: GenerateRequest, pace: Pace) -> AsyncGenerator[list[Chunk], None]:
        """Answer one request as lists of chunks. Closing the generator ends the generation.

        Raises:
            EngineError: before the first or any later list.
        """
        ...

    async def answer(self, request: GenerateRequest, pace: Pace) -> tuple[Answer, float]:
        """Answer one request as a whole; return the answer and its seconds, waits left out.

        Cancelling the call ends the generation.

        Raises:
            EngineError: there is no answer.
        """
        ...

    async def drain(self) -> None:
        """Return once no request is worked on here."""
        ...

    async def close(self) -> None:
        """Free what `start` took."""
        ...


class LocalRouter:
    """A router in this process."""

    def __init__(self, decider: Decider) -> None:
        self.decider = decider
        self.loading = Loading()

    async def start(self) -> None:
        """Load the artifacts."""
        await self.decider.start()
        self.loading.loaded(True)

    async def decide(self, query: dict[str, Any], router: str) -> Routed:
        """Decide one query; see `RouterClient.decide`."""
        return read_routed(await self.decider.decide(query, router))

    async def decide_aside(self, queries: list[tuple[dict[str, Any], str]]) -> list[Reply]:
        """Decide queries aside; see `Decider.decide_aside`."""
        return await self.decider.decide_aside(queries)

    async def step(
        self, state: dict[str, Any], router: str, version: str, *, capped: bool = False
    ) -> Action:
        """Take one step of an episode; see `RouterClient.step`."""
        return read_action(await self.decider.step(state, router, version, capped))

    async def adopt(self, plan: RouterPlan) -> None:
        """Decide by another plan; see `Decider.adopt`."""
        await self.decider.adopt(plan)

    async def close(self) -> None:
        """End the threads."""
        await self.decider.close()


class AbsentLLM:
    """Client of an LLM that cannot be served here; refuses every request.

    Args:
        name: Name of the LLM.
    """

    def __init__(self, name: str) -> None:
        self.loading = Loading()
        self.load = Load()
        # the reason in full holds a path, and `waypost serve` prints it
        self.loading.loaded(False, "its Python environment cannot be used")
        self._name = name

    async def start(self) -> None:
        """Do nothing."""

    async def drain(self) -> None:
        """Return at once."""

    async def close(self) -> None:
        """Do nothing."""

    def stream(self, request: GenerateRequest, pace: Pace) -> AsyncGenerator[list[Chunk], None]:
        """Refuse one request; see `LLMClient.stream`."""
        raise absent(self._name, self.loading.problem)

    async def answer(self, request: GenerateRequest, pace: Pace) -> tuple[Answer, float]:
        """Refuse one request; see `LLMClient.answer`."""
        raise absent(self._name, self.loading.problem)


class LocalLLM:
    """Client of an engine in this process, with a queue as a deployment has.

    Args:
        name: Name of the LLM, for messages.
        engine: The engine, which `start` starts.
        max_ongoing: Most requests in flight.
        max_queued: Most queued requests; further ones are refused.
        queue_timeout_s: Longest wait in the queue.

    Attributes:
        problem: Why the engine did not start; None where it did.
    """

    def __init__(
        self,
        name: str,
        engine: Engine,
        max_ongoing: int,
        max_queued: int,
        queue_timeout_s: float,
    ) -> None:
        self.engine = engine
        self.problem: str | None = None
        self.loading = Loading()
        self.load = Load()
        self._name = name
        self._idle = asyncio.Event()
        self._idle.set()
        self._queue_timeout_s = queue_timeout_s
        self._places = asyncio.Semaphore(max_ongoing)
        self._most = max_ongoing + max_queued

    async def start(self) -> None:
        """Start the engine; log the reason of a failure."""
        try:
            await self.engine.start()
        except WaypostError as error:
            logger.error("%s is not served: %s", self._name, error)
            self.problem = redact(str(error))
            self.loading.loaded(False, reason_for_clients(error))
        else:
            self.loading.loaded(True)

    async def drain(self) -> None:
        """Return once no request is worked on here."""
        await self._idle.wait()

    async def close(self) -> None:
        """Close the engine."""
        await self.engine.close()

    async def stream(
        self, request: GenerateRequest, pace: Pace
    ) -> AsyncGenerator[list[Chunk], None]:
        """Answer one request; see `LLMClient.stream`."""
        await self._enter()
        try:
            async with aclosing(chunks_of(self.engine, request, pace)) as chunks:
                async for chunk in chunks:
                    yield [chunk]
        finally:
            self._leave()

    async def answer(self, request: GenerateRequest, pace: Pace) -> tuple[Answer, float]:
        """Answer one request; see `LLMClient.answer`."""
        await self._enter()
        try:
            return await whole_answer(self.engine, request, pace)
        finally:
            self._leave()

    async def _enter(self) -> None:
        """Wait for a place.

        Raises:
            EngineOverloadedError: there is none, or none in time.
            EngineConnectionError: the engine did not start.
        """
        if not self.loading.ready:
            raise absent(self._name, self.loading.problem)
        present = self.load.in_flight + self.load.queued
        if present >= self._most:
            raise EngineOverloadedError(f"{present} requests are in progress or waiting")
        self._idle.clear()
        self.load.queued += 1
        try:
            await self._take_place()
            self.load.in_flight += 1
        finally:
            self.load.queued -= 1
            self._look_idle()

    def _leave(self) -> None:
        self._places.release()
        self.load.in_flight -= 1
        self._look_idle()

    def _look_idle(self) -> None:
        if not self.load.in_flight and not self.load.queued:
            self._idle.set()

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
