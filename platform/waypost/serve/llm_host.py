"""Runs one engine for the gateway: whole answers, batched streams, failures as data."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, suppress
from dataclasses import dataclass
from typing import Any

from waypost.contracts.errors import (
    EngineConnectionError,
    EngineError,
    EngineRequestError,
    SchemaError,
    WaypostError,
)
from waypost.contracts.generation import Chunk, GenerateRequest, Usage
from waypost.engines.base import Engine
from waypost.secrets import redact
from waypost.serve.logs import where_raised
from waypost.serve.pacing import batched, only_engine_errors, within

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
