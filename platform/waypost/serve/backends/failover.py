"""Failover: ask the LLMs of a ranking in turn until one answers, or begins a stream.

A failure before the first token of a stream leads to the next LLM, a later one is raised to the
caller. A whole answer leads to the next LLM wherever it fails, and where it takes longer than the
LLM's earlier answers allow; it may be hedged.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import aclosing, suppress
from typing import Any, TypeVar

from waypost.contracts.errors import (
    EngineConnectionError,
    EngineError,
    EngineLoadingError,
    EngineTimeoutError,
)
from waypost.contracts.generation import Answer, GenerateRequest, joined
from waypost.serve.backends.answer_times import AnswerTimes
from waypost.serve.backends.asking import Asking, Opened, Walk, Whole, WholeAnswers, ask, first_said
from waypost.serve.backends.base import LLMClient
from waypost.serve.backends.circuit_breaker import Circuit
from waypost.serve.backends.failures import (
    ExhaustedError,
    Failure,
    Piece,
    held_pieces,
    other_model_may_answer,
)
from waypost.serve.backends.hedging import Hedged
from waypost.serve.backends.messages import StaleDecisionError

BegunT = TypeVar("BegunT")


class Failover:
    """Asks the LLMs of rankings in turn.

    Args:
        llms: Client of each LLM.
        asking: What is asked of each.
        circuit: Circuit breakers.
        on_failure: Called for every LLM that did not answer.
        wait: Whether to wait for an LLM that is loading, at most for the first-token time-out.
            Otherwise it is asked after all others, and the call fails.
        times: LLM -> times of its answers; those of new LLMs are added.
        on_hedge: Called for every hedge when it has ended.
    """

    def __init__(
        self,
        llms: Mapping[str, LLMClient],
        asking: Asking,
        circuit: Circuit,
        on_failure: Callable[[Failure], None],
        *,
        wait: bool = True,
        times: dict[str, AnswerTimes] | None = None,
        on_hedge: Callable[[Hedged], None] = lambda _: None,
    ) -> None:
        self._wait = wait
        self._llms = llms
        self._asking = asking
        self._limits = asking.limits
        self._circuit = circuit
        self._on_failure = on_failure
        times = {} if times is None else times
        self._whole = WholeAnswers(llms, asking, circuit, times, self._note, on_hedge)

    async def open(
        self,
        ranking: tuple[str, ...],
        requests: Sequence[GenerateRequest],
        *,
        pinned: bool = False,
    ) -> Opened:
        """Return the stream of the first LLM that begins one.

        Args:
            ranking: Names, best first. A single LLM that has loaded is called a second time where
                its connection broke.
            requests: One for each wanted answer; the same LLM gives them all.
            pinned: Whether the client named the LLM; then there is no wait for one that is loading.

        Raises:
            ExhaustedError: no LLM began an answer.
            StaleDecisionError: none of them is in the pool.
            EngineRequestError: the request is wrong; no further LLM was asked. Where others failed
                before, it is the last failure of an ExhaustedError.
        """
        walk = self._walk(ranking, pinned)

        async def begin(model: str) -> tuple[str, AsyncGenerator[list[Piece], None]]:
            until = self._until(walk.deadline, len(walk.others(model)))
            await self._loaded(model, until, walk.wait)
            return model, await self._begin(model, requests, until, walk.deadline)

        begun = await self._first(walk, begin)
        failures = walk.failures
        if begun is not None:
            model, pieces = begun
            return Opened(model, len(failures) + 1, pieces, _names(failures))
        held = self._held(failures)
        return Opened(
            failures[0].model, len(failures), _told(held), _names(failures[1:]), empty=True
        )

    async def whole(
        self,
        ranking: tuple[str, ...],
        requests: Sequence[GenerateRequest],
        *,
        pinned: bool = False,
    ) -> Whole:
        """Return the whole answers of the first LLM that gives them; see `open`.

        Raises:
            ExhaustedError, StaleDecisionError, EngineRequestError: as `open`.
        """
        walk = self._walk(ranking, pinned)

        def call(model: str) -> Coroutine[Any, Any, list[Answer]]:
            return self._ask_whole(model, requests, walk)

        found = await self._first(
            walk, lambda model: self._whole.answer(model, requests[0], walk, call, self._able)
        )
        failures, hedged = walk.failures, walk.hedged
        if found is not None:
            model, answers = found
            cancelled = hedged is not None and not _names(failures) & set(hedged.models)
            attempts = len(failures) + 1 + cancelled
            return Whole(model, attempts, answers, _names(failures), hedged=hedged)
        held = [joined([chunk]) for _, chunk in self._held(failures)]
        others = _names(failures[1:])
        return Whole(failures[0].model, len(failures), held, others, empty=True, hedged=hedged)

    def _walk(self, ranking: tuple[str, ...], pinned: bool) -> Walk:
        deadline = asyncio.get_running_loop().time() + self._limits.total_timeout_s
        self.check(ranking)
        order = self._order(ranking)
        single = len(order) == 1
        turns = deque(order * 2 if single else order)
        return Walk(turns, deadline, single, self._wait and not pinned)

    async def _first(self, walk: Walk, begin: Callable[[str], Awaitable[BegunT]]) -> BegunT | None:
        """Return what the first LLM gives that does not fail, or None; note the failures."""
        while walk.turns:
            model = walk.turns.popleft()
            sent, before = self._circuit.clock(), len(walk.failures)
            try:
                return await begin(model)
            except EngineError as error:
                if len(walk.failures) == before:  # those of a hedge are noted already
                    walk.failures.append(self._note(model, error, sent))
                if not self.goes_on(error):
                    if len(walk.failures) > 1:
                        break
                    raise
                late = asyncio.get_running_loop().time() >= walk.deadline
                if late or (walk.single and not self._may_retry(model, error)):
                    break
        return None

    async def _ask_whole(
        self, model: str, requests: Sequence[GenerateRequest], walk: Walk
    ) -> list[Answer]:
        others = walk.others(model)
        until = self._until(walk.deadline, len(others))
        await self._loaded(model, until, walk.wait)
        return await self._whole.ask(model, requests, until, others=bool(others))

    def _held(self, failures: Sequence[Failure]) -> list[Piece]:
        """Return an empty answer, where all are empty.

        Raises:
            ExhaustedError: there is another failure.
        """
        held = held_pieces([failure.error for failure in failures])
        if held is None:
            raise ExhaustedError(failures)
        return held

    def goes_on(self, error: EngineError) -> bool:
        """Return whether another LLM is asked after this failure; see `other_model_may_answer`."""
        return other_model_may_answer(error, self._asking.content_filter)

    async def call(
        self, model: str, request: GenerateRequest, others: tuple[str, ...], deadline: float
    ) -> Opened:
        """Return the stream of one LLM for one call of an episode.

        Args:
            model: Name of the LLM.
            request: The request.
            others: LLMs that may be asked instead. The call fails at once where ``model`` rests or
                is not loaded, and one of them is available.
            deadline: Deadline of the whole episode; time is reserved for the others.

        Raises:
            EngineError: there is no answer.
        """
        until = self._until_of_call(model, others, deadline)
        sent = self._circuit.clock()
        try:
            await self._loaded(model, until, self._wait)
            pieces = await self._begin(model, [request], until, deadline)
        except EngineError as error:
            self._note(model, error, sent)
            raise
        return Opened(model, 1, pieces)

    async def call_whole(
        self, model: str, request: GenerateRequest, others: tuple[str, ...], deadline: float
    ) -> Answer:
        """Return the whole answer of one LLM to one call of an episode; see `call`.

        Raises:
            EngineError: there is no answer.
        """
        until = self._until_of_call(model, others, deadline)
        sent = self._circuit.clock()
        try:
            await self._loaded(model, until, self._wait)
            found = await self._whole.ask(model, [request], until, others=bool(others))
        except EngineError as error:
            self._note(model, error, sent)
            raise
        return found[0]

    def _until_of_call(self, model: str, others: tuple[str, ...], deadline: float) -> float:
        if model not in self._llms:
            raise EngineConnectionError(f"{model} is not in the pool")
        others = tuple(name for name in others if name in self._llms)
        last = self._is_last(model) and not all(self._is_last(name) for name in others)
        if last or not self._circuit.admits(model, others):
            raise EngineConnectionError(
                f"{model} is not asked: it failed lately, or has not loaded"
            )
        return self._until(deadline, len(others))

    def check(self, ranking: tuple[str, ...]) -> None:
        """Check that an LLM of the ranking is served.

        Raises:
            StaleDecisionError: none of them is in the pool.
        """
        if not any(name in self._llms for name in ranking):
            raise StaleDecisionError("no model of the ranking is served")

    def _may_retry(self, model: str, error: EngineError) -> bool:
        return isinstance(error, EngineConnectionError) and self._llms[model].loading.ready

    def _note(self, model: str, error: EngineError, sent: float) -> Failure:
        failure = Failure(model, error)
        self._circuit.failed(model, error, sent)
        self._on_failure(failure)
        return failure

    def _order(self, ranking: tuple[str, ...]) -> tuple[str, ...]:
        """Return the served LLMs of the ranking, those that load, failed or rest last."""
        # after a change of the pool the router may lag behind
        served = tuple(name for name in ranking if name in self._llms)
        order = self._circuit.order(served)
        if any(self._is_last(name) for name in order):
            return tuple(sorted(order, key=self._is_last))
        return order

    def _able(self, model: str) -> bool:
        return self._llms[model].loading.ready

    def _is_last(self, model: str) -> bool:
        """Return whether an LLM is asked after the others: its load failed, or is not awaited."""
        loading = self._llms[model].loading
        return not loading.ready and not (self._wait and loading.loading_s is not None)

    async def _loaded(self, model: str, until: float, wait: bool) -> None:
        """Return once the load of an LLM has succeeded or failed.

        Raises:
            EngineLoadingError: it is still loading.
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
        """Return the deadline of an attempt, with time reserved for the other LLMs, if any.

        Otherwise an LLM that generates slowly could use up the whole time-out.
        """
        left = deadline - asyncio.get_running_loop().time()
        kept = min(others * self._limits.first_token_timeout_s, left / 2)
        return deadline - max(0.0, kept)

    async def _begin(
        self,
        model: str,
        requests: Sequence[GenerateRequest],
        until: float,
        deadline: float,
    ) -> AsyncGenerator[list[Piece], None]:
        sent = self._circuit.clock()
        left = deadline - asyncio.get_running_loop().time()
        timed = [self._asking.of(model, request, left) for request in requests]
        source = ask(self._llms[model], timed, self._asking.pace(left))
        try:
            async with asyncio.timeout_at(until):
                filtered = self._asking.content_filter == "answer"
                first = await first_said(source, requests, filtered_is_answer=filtered)
        except TimeoutError:
            raise EngineTimeoutError("the time for the whole answer is over") from None
        except EngineError:
            await source.aclose()
            raise
        self._circuit.began(model, sent)
        pieces = self._continue(model, sent, first, source, deadline)
        # closing a generator that never ran frees nothing, so it is started here
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
                    # at the end of the total time-out a slow client is the likelier cause
                    if loop.time() < deadline:
                        self._circuit.failed(model, error, sent)
                    raise
                yield pieces
                if loop.time() > deadline:
                    raise EngineTimeoutError("the time of the whole request is over")


async def _told(pieces: list[Piece]) -> AsyncGenerator[list[Piece], None]:
    yield pieces


def _names(failures: Sequence[Failure]) -> frozenset[str]:
    return frozenset(failure.model for failure in failures)
