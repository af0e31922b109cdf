"""Asks the LLMs of a ranking in turn until one begins to answer.

Before the first token a failure is invisible: the next LLM is asked. After it, the failure is
the caller's to report. A whole answer has its first token when it is complete.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace

from waypost.contracts.errors import (
    ContextLengthError,
    EngineAuthError,
    EngineConnectionError,
    EngineError,
    EngineOverloadedError,
    EngineRequestError,
    EngineServerError,
    EngineTimeoutError,
    WaypostError,
)
from waypost.contracts.generation import Chunk, GenerateRequest
from waypost.serve.circuit import Circuit
from waypost.serve.clients import LLMClient
from waypost.serve.llm_host import Pace
from waypost.serve.settings import Limits

Piece = tuple[int, Chunk]
"""A chunk of the answer with that index."""

_REASONS: dict[type[EngineError], str] = {
    EngineTimeoutError: "timeout",
    EngineConnectionError: "connection",
    EngineOverloadedError: "overloaded",
    EngineServerError: "server",
    ContextLengthError: "context",
    EngineAuthError: "auth",
    EngineRequestError: "request",
}
_OTHER_MODEL_MAY_ANSWER = frozenset({401, 402, 403, 404, 408, 429})


@dataclass(frozen=True, slots=True)
class Failure:
    """One LLM that did not answer."""

    model: str
    error: EngineError

    @property
    def reason(self) -> str:
        """One word for it, as the metrics have it."""
        return _REASONS.get(type(self.error), "other")


class ExhaustedError(WaypostError):
    """No LLM of the ranking answered; `failures` says why, in the order they were asked."""

    def __init__(self, failures: Sequence[Failure]) -> None:
        self.failures = tuple(failures)
        told = "; ".join(f"{f.model}: {f.error}" for f in failures)
        super().__init__(f"no model answered: {told}")


@dataclass(slots=True)
class Opened:
    """An answer that has begun.

    Attributes:
        model: The LLM that answers.
        attempts: LLMs asked, this one included.
        pieces: The answer from its first token on; raises EngineError where it breaks off.
    """

    model: str
    attempts: int
    pieces: AsyncGenerator[list[Piece], None]


def other_model_may_answer(error: EngineError) -> bool:
    """Say whether the next LLM of the ranking should be asked after this failure.

    Not where the request itself is at fault; but a key that one service refuses, or a prompt
    that is too long for one LLM, says nothing of the next.
    """
    if error.retryable or isinstance(error, EngineAuthError | ContextLengthError):
        return True
    return error.status in _OTHER_MODEL_MAY_ANSWER


class Failover:
    """Walks rankings.

    Args:
        llms: How each LLM is asked.
        limits: Time-outs.
        circuit: Which LLMs to pass over.
        on_failure: Told of every LLM that did not answer.
    """

    def __init__(
        self,
        llms: Mapping[str, LLMClient],
        limits: Limits,
        circuit: Circuit,
        on_failure: Callable[[Failure], None],
    ) -> None:
        self._llms = llms
        self._limits = limits
        self._circuit = circuit
        self._on_failure = on_failure

    async def open(
        self, ranking: tuple[str, ...], requests: Sequence[GenerateRequest], *, whole: bool
    ) -> Opened:
        """Return the answer of the first LLM that begins one.

        Args:
            ranking: Names, best first; an only one is asked again where its connection broke.
            requests: One for each answer wanted; the same LLM gives them all.
            whole: See `LLMClient.stream`.

        Raises:
            ExhaustedError: none did.
            EngineRequestError: the request is at fault, so that no other LLM was asked.
        """
        deadline = asyncio.get_running_loop().time() + self._limits.total_timeout_s
        order = self._circuit.order(ranking)
        failures: list[Failure] = []
        for model in order if len(order) > 1 else order * 2:
            if model not in self._llms:
                continue  # the router may be a moment behind a changed pool
            try:
                pieces = await self._begin(model, requests, whole, deadline)
            except EngineError as error:
                failures.append(Failure(model, error))
                self._circuit.failed(model, error)
                self._on_failure(failures[-1])
                if not other_model_may_answer(error):
                    raise
                late = asyncio.get_running_loop().time() >= deadline
                if late or (len(order) == 1 and not isinstance(error, EngineConnectionError)):
                    break
            else:
                self._circuit.succeeded(model)
                return Opened(model, len(failures) + 1, pieces)
        raise ExhaustedError(failures)

    async def _begin(
        self, model: str, requests: Sequence[GenerateRequest], whole: bool, deadline: float
    ) -> AsyncGenerator[list[Piece], None]:
        left = deadline - asyncio.get_running_loop().time()
        pace = Pace(
            min(self._limits.first_token_timeout_s, left),
            min(self._limits.between_tokens_timeout_s, left),
        )
        timed = [replace(request, timeout_s=left) for request in requests]
        source = ask(self._llms[model], timed, pace, whole=whole)
        try:
            async with asyncio.timeout_at(deadline):
                first = await anext(source)
        except TimeoutError:
            raise EngineTimeoutError("the time of the whole request is over") from None
        except StopAsyncIteration:
            raise EngineServerError("the engine ended without an answer") from None
        pieces = _continue(first, source, deadline)
        # a generator that was never begun cannot close what it holds: it is begun here
        await anext(pieces)
        return pieces


async def _continue(
    first: list[Piece], source: AsyncGenerator[list[Piece], None], deadline: float
) -> AsyncGenerator[list[Piece], None]:
    loop = asyncio.get_running_loop()
    async with aclosing(source):
        yield []
        yield first
        async for pieces in source:
            yield pieces
            if loop.time() > deadline:
                raise EngineTimeoutError("the time of the whole request is over")


async def ask(
    llm: LLMClient, requests: Sequence[GenerateRequest], pace: Pace, *, whole: bool
) -> AsyncGenerator[list[Piece], None]:
    """Ask one LLM for all answers at the same time; whole ones come as a single list.

    Raises:
        EngineError: of the first that fails; the others are ended.
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
                        task.result()  # raises what it raised
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
