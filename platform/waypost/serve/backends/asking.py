"""Ask one LLM for one answer, or for several at the same time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from waypost.contracts.generation import Chunk, GenerateRequest
from waypost.serve.backends.base import LLMClient
from waypost.serve.backends.llm_replica import Pace

Piece = tuple[int, Chunk]
"""Index of an answer, and a chunk of it."""


async def ask(
    llm: LLMClient, requests: Sequence[GenerateRequest], pace: Pace, *, whole: bool
) -> AsyncGenerator[list[Piece], None]:
    """Ask one LLM for all answers at the same time; whole ones come as a single list.

    Raises:
        EngineError: the first failure; the other requests are cancelled.
    """
    if len(requests) == 1:
        async with aclosing(llm.stream(requests[0], pace, whole=whole)) as lists:
            async for chunks in lists:
                yield [(0, chunk) for chunk in chunks]
        return
    news: asyncio.Queue[list[Piece] | None] = asyncio.Queue()

    async def one(index: int, request: GenerateRequest) -> None:
        async with aclosing(llm.stream(request, pace, whole=whole)) as lists:
            async for chunks in lists:
                news.put_nowait([(index, chunk) for chunk in chunks])

    tasks = [asyncio.create_task(one(i, request)) for i, request in enumerate(requests)]
    for task in tasks:
        task.add_done_callback(lambda _: news.put_nowait(None))
    try:
        gathered: list[Piece] = []
        running = len(tasks)
        while running:
            pieces = await news.get()
            if pieces is None:
                running -= 1
                for task in tasks:
                    if task.done():
                        task.result()  # re-raises its error
            elif whole:
                gathered.extend(pieces)
            else:
                yield pieces
        if whole:
            yield gathered
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
