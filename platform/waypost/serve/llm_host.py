"""Runs one engine for the gateway: whole answers, batched streams, failures as data."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from waypost.contracts.errors import EngineError, EngineRequestError, SchemaError
from waypost.contracts.generation import Chunk, GenerateRequest, Usage
from waypost.engines.base import Engine
from waypost.serve.pacing import batched, only_engine_errors, within

logger = logging.getLogger(__name__)

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
    texts: list[str] = []
    tool_calls: list[dict[str, Any]] = []
    last = Chunk()
    async with aclosing(chunks_of(engine, request, pace)) as chunks:
        async for last in chunks:
            texts.append(last.text)
            tool_calls.extend(last.tool_calls)
    reason, usage = last.finish_reason or "stop", last.usage or Usage()
    return [Chunk("".join(texts), tuple(tool_calls), reason, usage)]


class LLMHost:
    """One engine behind a process border: plain data in, plain data out.

    Args:
        name: Of the LLM, for logs.
        engine: Started by `start`.
        flush_s: Window within which chunks cross together.
    """

    def __init__(self, name: str, engine: Engine, flush_s: float) -> None:
        self.name = name
        self.engine = engine
        self._flush_s = flush_s

    async def start(self) -> None:
        """Load the engine.

        Raises:
            WaypostError: where it cannot be had.
        """
        await self.engine.start()
        logger.info("%s: the %s engine is ready", self.name, self.engine.name)

    async def close(self) -> None:
        """Free what the engine took."""
        await self.engine.close()

    async def answer(self, request: dict[str, Any], pace: dict[str, float]) -> list[Message]:
        """Answer a request whole: the messages of its whole answer, or its error."""
        try:
            parsed = _parse(request)
            return [c.to_dict() for c in await whole_answer(self.engine, parsed, Pace(**pace))]
        except EngineError as error:
            return [_failure(error)]

    async def stream(
        self, request: dict[str, Any], pace: dict[str, float]
    ) -> AsyncGenerator[list[Message], None]:
        """Answer a request as lists of messages; an error is the last message of all."""
        try:
            chunks = chunks_of(self.engine, _parse(request), Pace(**pace))
            async with aclosing(batched(chunks, self._flush_s)) as batches:
                async for batch in batches:
                    yield [chunk.to_dict() for chunk in batch]
        except EngineError as error:
            yield [_failure(error)]


def _parse(request: dict[str, Any]) -> GenerateRequest:
    try:
        return GenerateRequest.from_dict(request)
    except SchemaError as error:
        raise EngineRequestError(f"gateway and LLM node differ in version: {error}") from None


def _failure(error: EngineError) -> Message:
    return {"error": error.to_dict()}
