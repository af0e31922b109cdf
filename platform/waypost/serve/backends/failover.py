"""Asks the LLMs of a ranking in turn until one begins to answer.

Before the first token a failure is invisible: the next LLM is asked. After it, the failure is
the caller's to report. A whole answer has its first token when it is complete.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass, replace

from waypost.contracts.errors import (
    ContextLengthError,
    EngineAuthError,
    EngineConnectionError,
    EngineError,
    EngineLoadingError,
    EngineOverloadedError,
    EngineRequestError,
    EngineServerError,
    EngineTimeoutError,
    WaypostError,
)
from waypost.contracts.generation import Answer, Chunk, GenerateRequest, joined
from waypost.serve.backends.base import LLMClient
from waypost.serve.backends.circuit_breaker import Circuit
from waypost.serve.backends.llm_replica import Pace
from waypost.serve.backends.messages import StaleDecisionError
from waypost.serve.config import Limits

Piece = tuple[int, Chunk]
"""A chunk of the answer with that index."""

_REASONS: dict[type[EngineError], str] = {
    EngineTimeoutError: "timeout",
    EngineConnectionError: "connection",
    EngineOverloadedError: "overloaded",
    EngineLoadingError: "loading",
    EngineServerError: "server",
    ContextLengthError: "context",
    EngineAuthError: "auth",
    EngineRequestError: "request",
}


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


async def read_whole(opened: Opened) -> list[Answer]:
    """Read a whole answer that has begun: one for each request, in order.

    Raises:
        EngineError: it broke off.
    """
    found: dict[int, Answer] = {}
    async with aclosing(opened.pieces) as pieces:
        async for listed in pieces:
            for index, chunk in listed:
                found[index] = joined([chunk])
    return [found[index] for index in sorted(found)]


def other_model_may_answer(error: EngineError) -> bool:
    """Say whether the next LLM of the ranking should be asked after this failure.

    Not where the request itself is at fault; but a key that one service refuses, or a prompt
    that is too long for one LLM, says nothing of the next.
    """
    return error.retryable or isinstance(error, EngineAuthError | ContextLengthError)


class Failover:
    """Walks rankings.

    Args:
        llms: How each LLM is asked.
        limits: Time-outs.
        circuit: Which LLMs to pass over.
        on_failure: Told of every LLM that did not answer.
        wait: Whether to wait for an LLM that still loads, for at most the time of a first token;
            else it is asked after all others, which is to fail.
    """

    def __init__(
        self,
        llms: Mapping[str, LLMClient],
        limits: Limits,
        circuit: Circuit,
        on_failure: Callable[[Failure], None],
        *,
        wait: bool = True,
    ) -> None:
        self._wait = wait
        self._llms = llms
        self._limits = limits
        self._circuit = circuit
        self._on_failure = on_failure

    async def open(
        self,
        ranking: tuple[str, ...],
        requests: Sequence[GenerateRequest],
        *,
        whole: bool,
        pinned: bool = False,
    ) -> Opened:
        """Return the answer of the first LLM that begins one.

        Args:
            ranking: Names, best first; an only one is asked again where its connection broke.
            requests: One for each answer wanted; the same LLM gives them all.
            whole: See `LLMClient.stream`.
            pinned: The client named the LLM: it is told at once where that still loads.

        Raises:
            ExhaustedError: none did.
            StaleDecisionError: none of them is in the pool.
            EngineRequestError: the request is at fault, so that no other LLM was asked.
        """
        deadline = asyncio.get_running_loop().time() + self._limits.total_timeout_s
        self.check(ranking)
        order = self._order(ranking)
        wait = self._wait and not pinned
        failures: list[Failure] = []
        turns = order if len(order) > 1 else order * 2
        for turn, model in enumerate(turns, 1):
            until = self._until(deadline, others=len(order) - turn)
            sent = self._circuit.clock()
            try:
                await self._loaded(model, until, wait)
                pieces = await self._begin(model, requests, whole, until, deadline)
            except EngineError as error:
                failures.append(self._note(model, error, sent))
                if not other_model_may_answer(error):
                    raise
                late = asyncio.get_running_loop().time() >= deadline
                if late or (len(order) == 1 and not isinstance(error, EngineConnectionError)):
                    break
            else:
                return Opened(model, len(failures) + 1, pieces)
        raise ExhaustedError(failures)

    async def call(
        self,
        model: str,
        request: GenerateRequest,
        others: tuple[str, ...],
        deadline: float,
        *,
        whole: bool,
    ) -> Opened:
        """Return the answer of one LLM, of several that are asked in an episode.

        Args:
            model: Whom to ask.
            request: What.
            others: LLMs that may be asked instead: where one of them is known to answer and
                ``model`` is known to fail, it is not asked.
            deadline: Of the whole episode; time is kept for the others.
            whole: See `LLMClient.stream`.

        Raises:
            EngineError: there is no answer.
        """
        if model not in self._llms:
            raise EngineConnectionError(f"{model} is not in the pool")
        others = tuple(name for name in others if name in self._llms)
        last = self._is_last(model) and not all(self._is_last(name) for name in others)
        if last or not self._circuit.admits(model, others):
            raise EngineConnectionError(
                f"{model} is not asked: it failed lately, or has not loaded"
            )
        sent = self._circuit.clock()
        until = self._until(deadline, len(others))
        try:
            await self._loaded(model, until, self._wait)
            pieces = await self._begin(model, [request], whole, until, deadline)
        except EngineError as error:
            self._note(model, error, sent)
            raise
        return Opened(model, 1, pieces)

    def check(self, ranking: tuple[str, ...]) -> None:
        """Check that an LLM of the ranking is served.

        Raises:
            StaleDecisionError: none of them is in the pool.
        """
        if not any(name in self._llms for name in ranking):
            raise StaleDecisionError("no model of the ranking is served")

    def _note(self, model: str, error: EngineError, sent: float) -> Failure:
        failure = Failure(model, error)
        self._circuit.failed(model, error, sent)
        self._on_failure(failure)
        return failure

    def _order(self, ranking: tuple[str, ...]) -> tuple[str, ...]:
        """Return who is asked, in turn: first those that are known to answer."""
        # the router may be a moment behind a changed pool
        served = tuple(name for name in ranking if name in self._llms)
        order = self._circuit.order(served)
        if any(self._is_last(name) for name in order):
            return tuple(sorted(order, key=self._is_last))
        return order

    def _is_last(self, model: str) -> bool:
        """Say whether an LLM is asked after the others: it could not load, or is passed over."""
        loading = self._llms[model].loading
        return not loading.ready and not (self._wait and loading.loading_s is not None)

    async def _loaded(self, model: str, until: float, wait: bool) -> None:
        """Return once an LLM has loaded, or could not.

        Raises:
            EngineLoadingError: it still loads.
        """
        loading = self._llms[model].loading
        if wait and loading.loading_s is not None:
            left = until - asyncio.get_running_loop().time()
            with suppress(TimeoutError):
                async with asyncio.timeout(min(left, self._limits.first_token_timeout_s)):
                    await loading.wait()
        if (seconds := loading.loading_s) is not None:
            raise EngineLoadingError(f"{model} is still loading, for {seconds:.0f} s now")

    def _until(self, deadline: float, others: int) -> float:
        """Return when an attempt ends: time is kept for the other models, where there are any.

        Without it an LLM that makes a token now and then would use up the time of all.
        """
        left = deadline - asyncio.get_running_loop().time()
        kept = min(others * self._limits.first_token_timeout_s, left / 2)
        return deadline - max(0.0, kept)

    async def _begin(
        self,
        model: str,
        requests: Sequence[GenerateRequest],
        whole: bool,
        until: float,
        deadline: float,
    ) -> AsyncGenerator[list[Piece], None]:
        sent = self._circuit.clock()
        # a whole answer has to be complete by then, a stream to have begun
        left = (until if whole else deadline) - asyncio.get_running_loop().time()
        pace = Pace(
            min(self._limits.first_token_timeout_s, left),
            min(self._limits.between_tokens_timeout_s, left),
        )
        timed = [replace(request, timeout_s=left) for request in requests]
        source = ask(self._llms[model], timed, pace, whole=whole)
        try:
            async with asyncio.timeout_at(until):
                first = await anext(source)
        except TimeoutError:
            raise EngineTimeoutError("the time for the whole answer is over") from None
        except StopAsyncIteration:
            raise EngineServerError("the engine ended without an answer") from None
        self._circuit.began(model, sent)
        pieces = self._continue(model, sent, first, source, deadline)
        # a generator that was never begun cannot close what it holds: it is begun here
        await anext(pieces)
        return pieces

    async def _continue(
        self,
        model: str,
        sent: float,
        first: list[Piece],
        source: AsyncGenerator[list[Piece], None],
        deadline: float,
    ) -> AsyncGenerator[list[Piece], None]:
        loop = asyncio.get_running_loop()
        async with aclosing(source):
            yield []
            yield first
            while True:
                try:
                    pieces = await anext(source)
                except StopAsyncIteration:
                    self._circuit.succeeded(model, sent)
                    return
                except EngineError as error:
                    # where all the time is over, a client that reads slowly is the likelier cause
                    if loop.time() < deadline:
                        self._circuit.failed(model, error, sent)
                    raise
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
