"""Time-outs and batching of a stream of chunks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import TypeVar

from waypost.contracts.errors import EngineError, EngineServerError, EngineTimeoutError

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
