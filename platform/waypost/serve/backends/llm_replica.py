"""Run one engine in an LLM replica: batched streams, whole answers, time-outs, errors as data."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, suppress
from dataclasses import dataclass
from typing import Any, TypeVar

from waypost.contracts.errors import (
    ConfigError,
    EngineConnectionError,
    EngineDeadlineError,
    EngineError,
    EngineRequestError,
    EngineServerError,
    EngineTimeoutError,
    SchemaError,
    WaypostError,
)
from waypost.contracts.generation import Answer, Chunk, GenerateRequest, joined
from waypost.engines.base import Engine
from waypost.secrets import redact
from waypost.serve.logs import where_raised

ItemT = TypeVar("ItemT")

MOST_HELD = 64
"""Most chunks of a batch; a full batch is sent before its time window ends."""


async def within(
    items: AsyncGenerator[ItemT, None], first_s: float, between_s: float
) -> AsyncGenerator[ItemT, None]:
    """Yield the items of a source under time-outs. Closing this generator closes the source.

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
    """Gather items into lists, so that fewer messages are sent between processes.

    The first item, and any item after a pause of ``window_s``, is yielded at once. Other items wait
    until ``window_s`` has passed since the last list, or until `MOST_HELD` items are held. Closing
    this generator closes the source.
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
                await producer  # re-raises the error of the source
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
    """Yield the items of an engine. Any exception but EngineError becomes an EngineServerError.

    Raises:
        EngineError: the source raised it, or another exception.
    """
    try:
        async for item in items:
            yield item
    except EngineError:
        raise
    # A fault in an engine (or its library) must not prevent failover to other LLMs. Its message
    # may hold the prompt, so the error holds only its type.
    except Exception as error:
        raise EngineServerError(f"the engine failed: {type(error).__name__}") from error


logger = logging.getLogger(__name__)

FIRST_RETRY_S = 10.0
LONGEST_RETRY_S = 300.0

Message = dict[str, Any]
"""A chunk as plain data (`Chunk.to_dict`); ``{"answer": Chunk.to_dict(), "seconds": ...}`` for a
whole answer; or ``{"error": EngineError.to_dict()}`` as the last."""


@dataclass(frozen=True, slots=True)
class Pace:
    """Time-outs of an engine in seconds: for the first token, and between tokens.

    A whole answer that gives no sign of life before has `whole_s` in their place.
    """

    first_s: float
    between_s: float
    whole_s: float | None = None


async def chunks_of(
    engine: Engine, request: GenerateRequest, pace: Pace
) -> AsyncGenerator[Chunk, None]:
    """Answer one request under the time-outs. Closing the generator ends the generation.

    Raises:
        EngineError: any failure.
    """
    source = within(engine.generate(request), pace.first_s, pace.between_s)
    async with aclosing(source), aclosing(only_engine_errors(source)) as chunks:
        async for chunk in chunks:
            yield chunk


async def whole_answer(
    engine: Engine, request: GenerateRequest, pace: Pace
) -> tuple[Answer, float]:
    """Answer one request as a whole; return the answer and its seconds.

    Raises:
        EngineDeadlineError: an engine that is asked for whole answers took more than `whole_s`.
        EngineError: any other failure.
    """
    clock = asyncio.get_running_loop().time
    begin = clock()
    if not engine.answers_whole:
        async with aclosing(chunks_of(engine, request, pace)) as chunks:
            return joined([chunk async for chunk in chunks]), clock() - begin
    try:
        async with asyncio.timeout(pace.whole_s) as scope:
            answer = await engine.answer(request)
    except EngineError:
        raise
    except Exception as error:
        if isinstance(error, TimeoutError) and scope.expired():
            problem = f"no whole answer in {pace.whole_s:.3g} s"
            raise EngineDeadlineError(problem) from None
        # see `only_engine_errors`
        raise EngineServerError(f"the engine failed: {type(error).__name__}") from error
    return answer, clock() - begin


class LLMHost:
    """Runs one engine for callers in other processes: plain data in, plain data out.

    A failed start is retried at growing intervals. Until a start succeeds the host refuses
    requests, and the rest of the pool serves.

    Args:
        name: Name of the LLM, for logs.
        make: Builds the engine; called for each start.
        flush_s: Time window within which chunks are sent together.
        first_retry_s: Seconds until the first retry; doubled for each later one.

    Attributes:
        problem: Why the engine did not start; None where it runs.
        refusal: The same for clients; see `reason_for_clients`.
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
        self.refusal = "not started"
        self._make = make
        self._flush_s = flush_s
        self._retry_s = first_retry_s
        self._engine: Engine | None = None
        self._retrying: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Load the engine. A failure is logged and the load is retried later."""
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
        # Any exception of an engine's library during the load concerns this LLM only.
        except Exception as error:  # noqa: BLE001
            told = str(error) if isinstance(error, WaypostError) else where_raised(error)
            self.problem, self.refusal = redact(told), reason_for_clients(error)
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
        """Return whether the engine takes requests or has not started yet."""
        return self._engine is None or await self._engine.healthy()

    async def close(self) -> None:
        """Free the engine's resources."""
        if self._retrying is not None:
            self._retrying.cancel()
        if self._engine is not None:
            await self._engine.close()

    def _ready_engine(self) -> Engine:
        if self._engine is None:
            raise absent(self.name, self.refusal)
        return self._engine

    async def stream(
        self, request: dict[str, Any], pace: dict[str, float], whole: bool
    ) -> AsyncGenerator[list[Message], None]:
        """Answer a request as lists of messages; an error is the last message.

        With ``whole`` there is one list, once the answer is complete.
        """
        try:
            engine, parsed, limits = self._ready_engine(), _parse(request), Pace(**pace)
            if whole:
                answer, seconds = await whole_answer(engine, parsed, limits)
                yield [{"answer": answer.to_chunk().to_dict(), "seconds": seconds}]
                return
            chunks = chunks_of(engine, parsed, limits)
            async with aclosing(batched(chunks, self._flush_s)) as batches:
                async for batch in batches:
                    yield [chunk.to_dict() for chunk in batch]
        except EngineError as error:
            yield [_failure(error)]


LOAD_FAILED = "its load failed; `waypost serve` prints the reason when it starts"


def reason_for_clients(error: Exception) -> str:
    """Return why an LLM did not start: a wrong setting in full, of other errors only the type.

    Other messages may hold paths of this machine.
    """
    if isinstance(error, ConfigError):
        return redact(str(error))
    return f"{type(error).__name__}: {LOAD_FAILED}"


def absent(name: str, reason: str | None) -> EngineConnectionError:
    """Return the error for an LLM that did not start, with the reason for clients."""
    return EngineConnectionError(f"{name} is not served: {reason or LOAD_FAILED}")


def _parse(request: dict[str, Any]) -> GenerateRequest:
    try:
        return GenerateRequest.from_dict(request)
    except SchemaError as error:
        raise EngineRequestError(f"gateway and LLM node differ in version: {error}") from None


def _failure(error: EngineError) -> Message:
    return {"error": error.to_dict()}
