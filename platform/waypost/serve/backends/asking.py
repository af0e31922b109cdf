"""Ask single LLMs for streams, or for whole answers: under learned deadlines, and hedged."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Any

from waypost.contracts.errors import (
    EngineDeadlineError,
    EngineError,
    EngineServerError,
    EngineTimeoutError,
)
from waypost.contracts.generation import Answer, Chunk, GenerateRequest, total
from waypost.serve.backends.answer_times import AnswerTimes
from waypost.serve.backends.base import LLMClient
from waypost.serve.backends.circuit_breaker import Circuit
from waypost.serve.backends.failures import Failure, Piece, check_silence
from waypost.serve.backends.hedging import Budget, Hedged, race
from waypost.serve.backends.llm_replica import Pace
from waypost.serve.limits import DeadlineArgs, HedgeArgs, Limits
from waypost.sessions.reasoning import Providers

Note = Callable[[str, EngineError, float], Failure]
"""Counts the failure of an LLM that was asked at a time."""

Answers = Coroutine[Any, Any, list[Answer]]


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


@dataclass(slots=True)
class Whole:
    """Whole answers, one for each request; see `Opened` for the other fields.

    Attributes:
        hedged: How the hedge ended, where there was one.
    """

    model: str
    attempts: int
    answers: list[Answer]
    failed: frozenset[str] = frozenset()
    empty: bool = False
    hedged: Hedged | None = None


@dataclass(slots=True)
class Walk:
    """The LLMs that may still be asked for one request, and what those asked before did."""

    turns: deque[str]
    deadline: float
    single: bool
    wait: bool
    failures: list[Failure] = field(default_factory=list)
    hedged: Hedged | None = None

    def others(self, model: str) -> tuple[str, ...]:
        """Return the LLMs that may be asked after this one."""
        return () if self.single else tuple(name for name in self.turns if name != model)


@dataclass(frozen=True)
class Asking:
    """What is asked of every LLM.

    Attributes:
        limits: Time-outs.
        content_filter, deadline, hedge: See `ServeArgs`.
        max_tokens: LLM -> most tokens of one answer, for those that have a limit of their own.
        providers: The provider of each LLM, to which its reasoning is bound.
    """

    limits: Limits = field(default_factory=Limits)
    content_filter: str = "next"
    deadline: DeadlineArgs = field(default_factory=DeadlineArgs)
    hedge: HedgeArgs | None = None
    max_tokens: Mapping[str, int] = field(default_factory=dict)
    providers: Providers = field(default_factory=lambda: Providers({}))

    def of(self, model: str, request: GenerateRequest, left_s: float) -> GenerateRequest:
        """Return the request as one LLM gets it."""
        tokens = request.max_tokens
        if tokens is not None and model in self.max_tokens:
            tokens = min(tokens, self.max_tokens[model])
        messages, _ = self.providers.sent(model, request.messages)
        return replace(request, timeout_s=left_s, max_tokens=tokens, messages=messages)

    def limit(self, model: str, request: GenerateRequest) -> int | None:
        """Return the most tokens of an answer; None where neither side gives a limit."""
        given = (request.max_tokens, self.max_tokens.get(model))
        return min((tokens for tokens in given if tokens is not None), default=None)

    def pace(self, left_s: float, whole_s: float | None = None) -> Pace:
        """Return the time-outs of an answer that has so many seconds."""
        return Pace(
            min(self.limits.first_token_timeout_s, left_s),
            min(self.limits.between_tokens_timeout_s, left_s),
            whole_s,
        )


class WholeAnswers:
    """Asks single LLMs for whole answers.

    Args:
        llms: Client of each LLM.
        asking: What is asked of each.
        circuit: Circuit breakers.
        times: LLM -> times of its answers; those of new LLMs are added.
        note: Counts a failure.
        on_hedge: Called for every hedge when it has ended.
    """

    def __init__(
        self,
        llms: Mapping[str, LLMClient],
        asking: Asking,
        circuit: Circuit,
        times: dict[str, AnswerTimes],
        note: Note,
        on_hedge: Callable[[Hedged], None],
    ) -> None:
        self._llms = llms
        self._asking = asking
        self._circuit = circuit
        self._times = times
        self._note = note
        self._on_hedge = on_hedge
        self._budget = None if asking.hedge is None else Budget(asking.hedge.most_share)

    async def ask(
        self, model: str, requests: Sequence[GenerateRequest], until: float, *, others: bool
    ) -> list[Answer]:
        """Ask one LLM.

        Args:
            model: Name of the LLM.
            requests: One for each wanted answer.
            until: When all time is over, on the event loop's clock.
            others: Whether another LLM may be asked afterwards; else the LLM has all the time.

        Raises:
            EngineError: there is no answer.
        """
        asking = self._asking
        sent = self._circuit.clock()
        times = self._times.get(model) or self._times.setdefault(model, AnswerTimes())
        left = until - asyncio.get_running_loop().time()
        limit = left
        if others:
            limit = min(left, self._deadline_s(times, asking.limit(model, requests[0])))
        timed = [asking.of(model, request, left) for request in requests]
        try:
            async with asyncio.timeout_at(until):
                found = await ask_whole(self._llms[model], timed, asking.pace(left, limit))
        except TimeoutError:
            raise EngineTimeoutError("the time for the whole answer is over") from None
        except EngineDeadlineError:
            times.gave_up()
            raise
        answers = [answer for answer, _ in found]
        check_said(answers, requests, filtered_is_answer=asking.content_filter == "answer")
        for answer, seconds in found:
            times.answered(seconds, answer.usage.output_tokens)
        self._circuit.succeeded(model, sent)
        return answers

    def _deadline_s(self, times: AnswerTimes, max_tokens: int | None) -> float:
        late = self._asking.deadline
        usual = times.within_s(late.quantile, max_tokens)
        if usual is None:
            return late.most_s
        return min(max(late.factor * usual, late.least_s), late.most_s)

    async def answer(
        self,
        model: str,
        request: GenerateRequest,
        walk: Walk,
        call: Callable[[str], Answers],
        able: Callable[[str], bool],
    ) -> tuple[str, list[Answer]]:
        """Call one LLM, and another one besides where a hedge is due; return which one answers.

        Args:
            model: The LLM to call.
            request: The first of the requests.
            walk: The LLMs that may still be asked; the other one is taken out of it.
            call: Calls an LLM.
            able: Says whether an LLM takes requests now.

        Raises:
            EngineError: there is no answer; failures after the second call are noted.
        """
        if self._budget is None:
            return model, await call(model)
        if walk.hedged is None and not walk.failures:
            self._budget.asked()
        after_s = self._hedge_after_s(model, request, walk)
        if after_s is None:
            return model, await call(model)
        asked = self._circuit.clock()
        models = [model]

        def second() -> Answers | None:
            name = self._second(walk, able)
            if name is None:
                return None
            models.append(name)
            return call(name)

        def failed(number: int, error: EngineError) -> None:
            walk.failures.append(self._note(models[number], error, asked))

        winner, lost = None, None
        try:
            found = await race(call(model), second, after_s, failed)
            winner = models[found.winner]
            lost = None if found.lost is None else total(one.usage for one in found.lost)
        finally:
            if len(models) > 1:
                walk.hedged = Hedged((models[0], models[1]), winner, lost)
                self._on_hedge(walk.hedged)
        return winner, found.value

    def _hedge_after_s(self, model: str, request: GenerateRequest, walk: Walk) -> float | None:
        """Return after what time to hedge; None where it cannot be, or was, hedged."""
        hedge, times = self._asking.hedge, self._times.get(model)
        if hedge is None or times is None or walk.hedged is not None or not walk.others(model):
            return None
        return times.within_s(hedge.quantile, self._asking.limit(model, request))

    def _second(self, walk: Walk, able: Callable[[str], bool]) -> str | None:
        """Take the next LLM of the ranking for a hedge, if the budget allows one."""
        assert self._budget is not None  # a hedge is due
        resting = self._circuit.resting()
        found = next((name for name in walk.turns if name not in resting and able(name)), None)
        if found is None or not self._budget.take():
            return None
        walk.turns.remove(found)
        return found


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
