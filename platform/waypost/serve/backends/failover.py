"""Failover: ask the LLMs of a ranking in turn until one begins to answer.

A failure before the first token leads to the next LLM. A later failure is raised to the caller. A
whole (not streamed) answer has its first token when it is complete.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass, replace

from waypost.contracts.errors import (
    EngineConnectionError,
    EngineError,
    EngineLoadingError,
    EngineServerError,
    EngineTimeoutError,
)
from waypost.contracts.generation import Answer, Chunk, GenerateRequest, joined
from waypost.serve.backends.base import LLMClient
from waypost.serve.backends.circuit_breaker import Circuit
from waypost.serve.backends.failures import (
    ExhaustedError,
    Failure,
    Piece,
    check_silence,
    held_pieces,
    other_model_may_answer,
)
from waypost.serve.backends.llm_replica import Pace
from waypost.serve.backends.messages import StaleDecisionError
from waypost.serve.limits import Limits


@dataclass(slots=True)
class Opened:
    """An answer that has begun.

    Attributes:
        model: The LLM that answers.
        attempts: Number of calls tried, this one included.
        pieces: The answer from its first token on; raises EngineError where it ends early.
        failed: LLMs that were called before and did not answer.
        empty: Whether the answer has no word, and neither had that of any other LLM.
    """

    model: str
    attempts: int
    pieces: AsyncGenerator[list[Piece], None]
    failed: frozenset[str] = frozenset()
    empty: bool = False


async def read_whole(opened: Opened) -> list[Answer]:
    """Read a whole answer that has begun: one for each request, in order.

    Raises:
        EngineError: the answer ended early.
    """
    found: dict[int, Answer] = {}
    async with aclosing(opened.pieces) as pieces:
        async for listed in pieces:
            for index, chunk in listed:
                found[index] = joined([chunk])
    return [found[index] for index in sorted(found)]


class Failover:
    """Asks the LLMs of rankings in turn.

    Args:
        llms: Client of each LLM.
        limits: Time-outs.
        circuit: Circuit breakers.
        on_failure: Called for every LLM that did not answer.
        wait: Whether to wait for an LLM that is loading, at most for the first-token time-out.
            Otherwise it is asked after all others, and the call fails.
        content_filter: See `ServeArgs`.
        max_tokens: LLM -> most tokens of one answer, for those that have a limit of their own.
    """

    def __init__(
        self,
        llms: Mapping[str, LLMClient],
        limits: Limits,
        circuit: Circuit,
        on_failure: Callable[[Failure], None],
        *,
        wait: bool = True,
        content_filter: str = "next",
        max_tokens: Mapping[str, int] | None = None,
    ) -> None:
        self._wait = wait
        self._max_tokens = max_tokens or {}
        self._content_filter = content_filter
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
            ranking: Names, best first. A single LLM that has loaded is called a second time where
                its connection broke.
            requests: One for each wanted answer; the same LLM gives them all.
            whole: See `LLMClient.stream`.
            pinned: Whether the client named the LLM; then there is no wait for one that is loading.

        Raises:
            ExhaustedError: no LLM began an answer.
            StaleDecisionError: none of them is in the pool.
            EngineRequestError: the request is wrong; no further LLM was asked. Where others failed
                before, it is the last failure of an ExhaustedError.
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
                if not self.goes_on(error):
                    if len(failures) > 1:
                        break
                    raise
                late = asyncio.get_running_loop().time() >= deadline
                if late or (len(order) == 1 and not self._may_retry(model, error)):
                    break
            else:
                failed = frozenset(failure.model for failure in failures)
                return Opened(model, len(failures) + 1, pieces, failed)
        held = held_pieces([failure.error for failure in failures])
        if held is None:
            raise ExhaustedError(failures)
        others = frozenset(failure.model for failure in failures[1:])
        return Opened(failures[0].model, len(failures), _told(held), others, empty=True)

    def goes_on(self, error: EngineError) -> bool:
        """Return whether another LLM is asked after this failure; see `other_model_may_answer`."""
        return other_model_may_answer(error, self._content_filter)

    async def call(
        self,
        model: str,
        request: GenerateRequest,
        others: tuple[str, ...],
        deadline: float,
        *,
        whole: bool,
    ) -> Opened:
        """Return the answer of one LLM to one call of an episode.

        Args:
            model: Name of the LLM.
            request: The request.
            others: LLMs that may be asked instead. The call fails at once where ``model`` rests or
                is not loaded, and one of them is available.
            deadline: Deadline of the whole episode; time is reserved for the others.
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
        whole: bool,
        until: float,
        deadline: float,
    ) -> AsyncGenerator[list[Piece], None]:
        sent = self._circuit.clock()
        # by then a whole answer must be complete, and a stream must have begun
        left = (until if whole else deadline) - asyncio.get_running_loop().time()
        pace = Pace(
            min(self._limits.first_token_timeout_s, left),
            min(self._limits.between_tokens_timeout_s, left),
        )
        timed = [self._for(model, request, left) for request in requests]
        source = ask(self._llms[model], timed, pace, whole=whole)
        try:
            async with asyncio.timeout_at(until):
                first = await first_said(
                    source, requests, filtered_is_answer=self._content_filter == "answer"
                )
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

    def _for(self, model: str, request: GenerateRequest, left_s: float) -> GenerateRequest:
        most, asked = self._max_tokens.get(model), request.max_tokens
        tokens = asked if most is None or asked is None else min(asked, most)
        return replace(request, timeout_s=left_s, max_tokens=tokens)

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
