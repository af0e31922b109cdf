"""Run one engine for the gateway: whole answers, batched streams, time-outs, failures as data."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, suppress
from dataclasses import dataclass
from typing import Any, TypeVar

from waypost.contracts.errors import (
    EngineConnectionError,
    EngineError,
    EngineRequestError,
    EngineServerError,
    EngineTimeoutError,
    SchemaError,
    WaypostError,
)
from waypost.contracts.generation import Chunk, GenerateRequest, joined
from waypost.engines.base import Engine
from waypost.secrets import redact
from waypost.serve.logs import where_raised

ItemT = TypeVar("ItemT")

MOST_HELD = 64
"""Chunks after which a batch is sent before its time."""


async def within(
    items: AsyncGenerator[ItemT, None], first_s: float, between_s: float
) -> AsyncGenerator[ItemT, None]:
    """Pass items on; the source is closed when this generator is.

    Args:
        items: The source.
        first_s: Longest wait for the first item.
        between_s: Longest wait for each later one.

    Raises:
        EngineTimeoutError: an item did not come in time.
    """
    limit, what = first_s, "first token"
    async with aclosing(items):
        while True:
            try:
                async with asyncio.timeout(limit):
                    item = await anext(items)
            except StopAsyncIteration:
                return
            except TimeoutError:
                raise EngineTimeoutError(f"no {what} within {limit:g} s") from None
            yield item
            limit, what = between_s, "further token"


async def batched(
    items: AsyncGenerator[ItemT, None], window_s: float
) -> AsyncGenerator[list[ItemT], None]:
    """Gather items into lists, so that few messages cross a process border.

    The first item, and any that comes after a pause of ``window_s``, is passed on at once;
    others wait until that long has passed since the last list, or until `MOST_HELD` are held.
    Closing this generator closes the source.
    """
    held: list[ItemT] = []
    news = asyncio.Event()
    full = asyncio.Event()

    async def gather() -> None:
        async with aclosing(items):
            async for item in items:
                held.append(item)
                news.set()
                if len(held) >= MOST_HELD:
                    full.set()

    loop = asyncio.get_running_loop()
    producer = asyncio.create_task(gather())
    producer.add_done_callback(lambda _: news.set())
    producer.add_done_callback(lambda _: full.set())
    next_at = 0.0
    try:
        while True:
            await news.wait()
            if (early := next_at - loop.time()) > 0 and not producer.done():
                await _wait_at_most(full, early)
            news.clear()
            full.clear()
            ended = producer.done()
            if held:
                batch, held[:] = held.copy(), []
                yield batch
                next_at = loop.time() + window_s
            if ended:
                await producer  # raises what the source raised
                return
    finally:
        producer.cancel()
        await asyncio.gather(producer, return_exceptions=True)


async def _wait_at_most(event: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return


async def only_engine_errors(items: AsyncIterator[ItemT]) -> AsyncGenerator[ItemT, None]:
    """Pass items on; whatever else an engine raises becomes an EngineServerError.

    Raises:
        EngineError: as the source, or for any other exception of it.
    """
    try:
        async for item in items:
            yield item
    except EngineError:
        raise
    # An engine is a border: a fault in it (or in the library it drives) must not take the
    # request's other models with it. Its message may hold the prompt, so only its type passes.
    except Exception as error:
        raise EngineServerError(f"the engine failed: {type(error).__name__}") from error


logger = logging.getLogger(__name__)

FIRST_RETRY_S = 10.0
LONGEST_RETRY_S = 300.0

Message = dict[str, Any]
"""A chunk as plain data (`Chunk.to_dict`), or ``{"error": EngineError.to_dict()}`` as the last."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How long to wait for an engine, in seconds: for the first token, and for each further."""

    first_s: float
    between_s: float


async def chunks_of(
    engine: Engine, request: GenerateRequest, pace: Pace
) -> AsyncGenerator[Chunk, None]:
    """Answer one request under the time-outs; closing this ends the generation.

    Raises:
        EngineError: whatever fails.
    """
    source = within(engine.generate(request), pace.first_s, pace.between_s)
    async with aclosing(source), aclosing(only_engine_errors(source)) as chunks:
        async for chunk in chunks:
            yield chunk


async def whole_answer(engine: Engine, request: GenerateRequest, pace: Pace) -> list[Chunk]:
    """Answer one request as at most one chunk for each kind of content.

    Raises:
        EngineError: whatever fails.
    """
    async with aclosing(chunks_of(engine, request, pace)) as chunks:
        return [joined([chunk async for chunk in chunks]).to_chunk()]


class LLMHost:
    """One engine behind a process border: plain data in, plain data out.

    An engine that does not start is tried again, at growing intervals, while the host refuses
    requests: the rest of the pool serves, and what was repaired comes into use by itself.

    Args:
        name: Of the LLM, for logs.
        make: Builds the engine; called for each try.
        flush_s: Window within which chunks cross together.
        first_retry_s: Seconds until the second try; doubled for each later one.

    Attributes:
        problem: Why the engine did not start; null where it runs.
    """

    def __init__(
        self,
        name: str,
        make: Callable[[], Engine],
        flush_s: float,
        first_retry_s: float = FIRST_RETRY_S,
    ) -> None:
        self.name = name
        self.problem: str | None = "not started"
        self._make = make
        self._flush_s = flush_s
        self._retry_s = first_retry_s
        self._engine: Engine | None = None
        self._retrying: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Load the engine; where that fails, the log says why and it is tried again later."""
        await self._try_to_start()
        if self.problem is not None:
            self._retrying = asyncio.create_task(self._keep_trying())

    async def _keep_trying(self) -> None:
        while self.problem is not None:
            await asyncio.sleep(self._retry_s)
            self._retry_s = min(2 * self._retry_s, LONGEST_RETRY_S)
            await self._try_to_start()

    async def _try_to_start(self) -> None:
        engine: Engine | None = None
        try:
            engine = self._make()
            await engine.start()
        # A border: whatever an engine's library raises while it loads concerns this LLM alone.
        except Exception as error:  # noqa: BLE001
            told = str(error) if isinstance(error, WaypostError) else where_raised(error)
            self.problem = redact(told)
            logger.error(
                "%s is not served: %s (tried again in %g s)", self.name, told, self._retry_s
            )
            if engine is not None:
                with suppress(Exception):
                    await engine.close()
            return
        self._engine, self.problem = engine, None
        logger.info("%s: the %s engine is ready", self.name, engine.name)

    async def healthy(self) -> bool:
        """Say whether the engine takes requests, or is still to start."""
        return self._engine is None or await self._engine.healthy()

    async def close(self) -> None:
        """Free what the engine took."""
        if self._retrying is not None:
            self._retrying.cancel()
        if self._engine is not None:
            await self._engine.close()

    def _ready_engine(self) -> Engine:
        if self._engine is None:
            raise absent(self.name)
        return self._engine

    async def stream(
        self, request: dict[str, Any], pace: dict[str, float], whole: bool
    ) -> AsyncGenerator[list[Message], None]:
        """Answer a request as lists of messages; an error is the last message of all.

        With ``whole`` there is one list, once the answer is complete.
        """
        try:
            engine, parsed, limits = self._ready_engine(), _parse(request), Pace(**pace)
            if whole:
                yield [c.to_dict() for c in await whole_answer(engine, parsed, limits)]
                return
            chunks = chunks_of(engine, parsed, limits)
            async with aclosing(batched(chunks, self._flush_s)) as batches:
                async for batch in batches:
                    yield [chunk.to_dict() for chunk in batch]
        except EngineError as error:
            yield [_failure(error)]


def absent(name: str) -> EngineConnectionError:
    """Return the failure of an LLM that did not start; why is for the log, not for clients."""
    return EngineConnectionError(f"{name} is not served at present; the server's log says why")


def _parse(request: dict[str, Any]) -> GenerateRequest:
    try:
        return GenerateRequest.from_dict(request)
    except SchemaError as error:
        raise EngineRequestError(f"gateway and LLM node differ in version: {error}") from None


def _failure(error: EngineError) -> Message:
    return {"error": error.to_dict()}
