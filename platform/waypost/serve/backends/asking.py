"""Ask one LLM for the answers of one request, as streams or whole."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from waypost.contracts.errors import EngineServerError
from waypost.contracts.generation import Answer, Chunk, GenerateRequest
from waypost.serve.backends.base import LLMClient
from waypost.serve.backends.failures import Piece, check_silence
from waypost.serve.backends.llm_replica import Pace


async def ask_whole(
    llm: LLMClient, requests: Sequence[GenerateRequest], pace: Pace
) -> list[tuple[Answer, float]]:
    """Ask one LLM for all whole answers at the same time; see `LLMClient.answer`.

    Raises:
        EngineError: the first failure; the other requests are cancelled.
    """
    if len(requests) == 1:
        return [await llm.answer(requests[0], pace)]
    tasks = [asyncio.create_task(llm.answer(request, pace)) for request in requests]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def check_said(
    answers: Sequence[Answer], requests: Sequence[GenerateRequest], *, filtered_is_answer: bool
) -> None:
    """Check that whole answers say something; see `check_silence`.

    Raises:
        SaidNothingError, FilteredError: they are no answers.
    """
    if any(answer.says_something for answer in answers):
        return
    ends = {index: answer.to_chunk() for index, answer in enumerate(answers)}
    held = list(ends.items())
    check_silence(held, ends, requests, filtered_is_answer=filtered_is_answer)


async def first_said(
    source: AsyncGenerator[list[Piece], None],
    requests: Sequence[GenerateRequest],
    *,
    filtered_is_answer: bool,
) -> list[Piece]:
    """Return the pieces up to the first that says something, or all; see `check_silence`.

    Raises:
        EngineError: as the source and `check_silence` do.
    """
    held: list[Piece] = []
    ends: dict[int, Chunk] = {}
    async for pieces in source:
        held.extend(pieces)
        if any(chunk.says_something for _, chunk in pieces):
            return held
        ends |= {index: chunk for index, chunk in pieces if chunk.finish_reason is not None}
        if len(ends) == len(requests):
            break
    if not held:
        raise EngineServerError("the engine ended without an answer")
    check_silence(held, ends, requests, filtered_is_answer=filtered_is_answer)
    return held


async def ask(
    llm: LLMClient, requests: Sequence[GenerateRequest], pace: Pace
) -> AsyncGenerator[list[Piece], None]:
    """Ask one LLM for the streams of all answers at the same time.

    Raises:
        EngineError: the first failure; the other requests are cancelled.
    """
    if len(requests) == 1:
        async with aclosing(llm.stream(requests[0], pace)) as lists:
            async for chunks in lists:
                yield [(0, chunk) for chunk in chunks]
        return
    news: asyncio.Queue[list[Piece] | None] = asyncio.Queue()

    async def one(index: int, request: GenerateRequest) -> None:
        async with aclosing(llm.stream(request, pace)) as lists:
            async for chunks in lists:
                news.put_nowait([(index, chunk) for chunk in chunks])

    tasks = [asyncio.create_task(one(i, request)) for i, request in enumerate(requests)]
    for task in tasks:
        task.add_done_callback(lambda _: news.put_nowait(None))
    try:
        running = len(tasks)
        while running:
            pieces = await news.get()
            if pieces is None:
                running -= 1
                for task in tasks:
                    if task.done():
                        task.result()  # re-raises its error
            else:
                yield pieces
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
