"""What the engines that generate in this process share: from a request to its stream of chunks.

The event loop only passes text on: rendering and tokenizing a long prompt take milliseconds, and
generation never ends, so both are other threads'.
"""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from waypost.config import StrictModel
from waypost.contracts.errors import (
    ContextLengthError,
    EngineConnectionError,
    EngineError,
    EngineRequestError,
    EngineTimeoutError,
)
from waypost.contracts.generation import Chunk, GenerateRequest
from waypost.engines._lm_batch import Item, LiveSequence
from waypost.engines._lm_guided import ResponseFormat, asked_schema
from waypost.engines.base import Engine

if TYPE_CHECKING:
    from waypost.engines._lm_batch import Batch, TextModel

Stream = asyncio.Queue[Item]


class LocalConfig(StrictModel):
    """Settings of every engine that generates in this process."""

    model: str = Field(min_length=1)
    """Folder or hub name, found by `waypost.weights.resolve`."""

    dtype: Literal["bfloat16", "float16", "float32"] = "bfloat16"
    """Numbers the model computes with. In bfloat16 a batch may choose another token than the
    request alone would have, where two are nearly as likely; in float32 it does not."""

    threads: int | None = Field(default=None, ge=1)
    """CPU threads of a forward pass; None leaves them to the library (all cores)."""

    nice: int = Field(default=10, ge=0, le=19)
    """Niceness (Unix priority) of the computing threads: event loops and servers on the same cores
    run first. On a CPU only."""

    max_batch_size: int = Field(default=8, ge=1)
    """Requests that generate together."""

    max_waiting: int = Field(default=64, ge=0)
    """Requests that may wait for a place; one more is an EngineOverloadedError."""

    max_output_tokens: int = Field(default=512, ge=1)
    """Default and upper bound of a request's ``max_tokens``."""

    context_length: int = Field(default=4096, ge=2)
    """Most tokens of prompt and answer, where the model itself has room for more. Bounds the
    memory of the key-value cache: max_batch_size times this."""

    response_format: ResponseFormat = "refuse"
    """What happens to a request whose ``response_format`` is ``json_object`` or ``json_schema``:
    ``enforce`` leaves only tokens that keep the answer to it; ``refuse`` refuses the request, and
    another LLM of the ranking is asked. An answer that ``max_tokens`` cuts off ends with
    ``length``, and is no whole JSON."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Parameters of one answer: the request's, with the model's defaults and the engine's bounds.

    Attributes:
        temperature: 0 is greedy.
        top_p: Nucleus mass in (0, 1].
        seed: None draws anew each time.
        max_tokens: Most tokens of the answer, at least 1.
        schema: JSON schema of the answer; None leaves it free.
    """

    temperature: float
    top_p: float
    seed: int | None
    max_tokens: int
    schema: Any = None


class LocalEngine(Engine):
    """Generates with a model that another thread of this process runs.

    ``tools`` are given to the chat template; a call that the model writes stays text.
    ``temperature`` and ``top_p`` default to the model's generation_config.json, which is greedy
    where it says nothing. ``max_tokens`` above the engine's bound is lowered to it; the answer
    then ends with ``length``.
    """

    @classmethod
    def ignored(cls, config: LocalConfig, request: GenerateRequest) -> tuple[str, ...]:
        """Return the fields of ``extra`` but ``response_format``, which is enforced or refused.

        ``tools`` are among them, because calls that the model writes stay text.
        """
        left_out = set(request.extra) - {"response_format"}
        for name in ("tools", "tool_choice"):
            if getattr(request, name) is not None:
                left_out.add(name)
        return tuple(sorted(left_out))

    def __init__(self, config: LocalConfig) -> None:
        self._local = config
        self._batch: Batch | None = None
        self._live: dict[str, LiveSequence[Any]] = {}
        self._outbox: list[tuple[Stream, Item]] = []

    @abstractmethod
    def _begin(self) -> Batch:
        """Load the model and start its thread. Blocks."""

    @abstractmethod
    def _sampling(self, wanted: Wanted) -> Any:
        """Return the sampling parameters for the batch.

        Raises:
            EngineRequestError: where it cannot choose so.
        """

    @property
    def running(self) -> int:
        """Requests that generate or wait."""
        return 0 if self._batch is None else len(self._batch)

    @property
    def output_tokens(self) -> int:
        """Tokens made since the start."""
        return 0 if self._batch is None else self._batch.output_tokens

    async def start(self) -> None:
        """Load the weights.

        Raises:
            WeightsError: where they cannot be obtained or read.
            MissingExtraError: where the engine's library is not installed.
        """
        self._events = asyncio.get_running_loop()
        self._batch = await asyncio.to_thread(self._begin)

    async def generate(self, request: GenerateRequest) -> AsyncGenerator[Chunk, None]:
        """Answer one request; see `Engine.generate`.

        Raises:
            ContextLengthError: where prompt and asked tokens do not fit.
            EngineOverloadedError: where too many wait.
            EngineTimeoutError: when the request's ``timeout_s`` is over.
            EngineServerError: where generation crashed.
            EngineConnectionError: before start and after close.
        """
        batch = self._batch
        if batch is None:
            raise EngineConnectionError(f"the {self.name} engine is not started, or closed")
        until = None if request.timeout_s is None else self._events.time() + request.timeout_s
        stream: Stream = asyncio.Queue()
        sequence = await asyncio.to_thread(self._sequence, batch.model, request, stream)
        self._live[request.request_id] = sequence
        try:
            batch.submit(sequence)
            while True:
                item = await self._next(stream, until)
                if isinstance(item, EngineError):
                    raise item
                yield item
                if item.finish_reason is not None:
                    return
        finally:
            self._live.pop(request.request_id, None)
            if not sequence.finished:
                batch.cancel(sequence)

    async def _next(self, stream: Stream, until: float | None) -> Item:
        try:
            async with asyncio.timeout_at(until):
                return await stream.get()
        except TimeoutError:
            raise EngineTimeoutError("the request's time is over; raise timeout_s") from None

    def _sequence(
        self, model: TextModel, request: GenerateRequest, stream: Stream
    ) -> LiveSequence[Any]:
        schema = asked_schema(request, self._local.response_format, model.name)
        prompt = model.tokens(request)
        temperature, top_p = request.temperature, request.top_p
        wanted = Wanted(
            temperature=model.temperature if temperature is None else temperature,
            top_p=model.top_p if top_p is None else top_p,
            seed=request.seed,
            max_tokens=self._room(model, len(prompt), request.max_tokens),
            schema=schema,
        )
        return LiveSequence(
            prompt=prompt,
            max_tokens=wanted.max_tokens,
            sampling=self._sampling(wanted),
            stop=request.stop,
            decode=model.text,
            put=lambda item: self._outbox.append((stream, item)),
        )

    def _room(self, model: TextModel, prompt: int, asked: int | None) -> int:
        context = min(model.context_length, self._local.context_length)
        most = self._local.max_output_tokens
        if asked is not None and asked < 1:
            raise EngineRequestError(f"max_tokens is {asked}; expected at least 1")
        wanted = 1 if asked is None else min(asked, most)
        if prompt + wanted > context:
            raise ContextLengthError(
                f"{model.name}: a prompt of {prompt} tokens and {wanted} to answer exceed its "
                f"context of {context}"
            )
        return min(most, context - prompt) if asked is None else wanted

    def _flush(self) -> None:
        """Hand what the batch put out to the event loop, in one call a turn."""
        if self._outbox and not self._events.is_closed():
            ready, self._outbox = self._outbox, []
            self._events.call_soon_threadsafe(_deliver, ready)

    async def abort(self, request_id: str) -> None:
        """End that request with the finish reason ``cancelled``."""
        if self._batch is not None and (sequence := self._live.get(request_id)) is not None:
            self._batch.cancel(sequence)

    async def healthy(self) -> bool:
        """Say whether the model is loaded and its thread runs."""
        return self._batch is not None and self._batch.alive

    async def close(self) -> None:
        """End the thread and every request, and free the model."""
        batch, self._batch = self._batch, None
        if batch is not None:
            await asyncio.to_thread(batch.stop)


def _deliver(ready: list[tuple[Stream, Item]]) -> None:
    for stream, item in ready:
        stream.put_nowait(item)
