"""Run an episode of a step router: call the LLMs, count tokens and dollars, stop at the caps."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol

from waypost.contracts.errors import ConfigError, EngineError, Fault
from waypost.contracts.records import Query
from waypost.contracts.steps import Action, Call, CallResult, Delegate, EpisodeState, FinalAnswer

EndedBy = Literal["answer", "steps", "tokens", "money", "time"]

_CANCEL_S = 2.0
"""Seconds to wait for a cancelled call to report its usage; later usage is not counted."""
_CANCELLED = "cancelled: the step had ended"


class Stepper(Protocol):
    """A step router, or a proxy of one that runs in another process."""

    def step(self, state: EpisodeState) -> Action | Awaitable[Action]: ...  # noqa: D102

    def fallback(self, state: EpisodeState) -> Action | Awaitable[Action]: ...  # noqa: D102


@dataclass(frozen=True, slots=True)
class EpisodeLimits:
    """Caps of one episode. A step that has begun is finished; only `wall_s` interrupts it.

    Attributes:
        max_steps: Maximum number of delegations.
        max_tokens: Maximum prompt and generated tokens of all calls; None is no cap.
        max_cost_usd: Maximum known dollars of all calls; None is no cap.
        wall_s: Maximum seconds of the episode; running calls are then cancelled.
        last_call_s: Further seconds after a cap, for the router's fallback and its call.
    """

    max_steps: int = 8
    max_tokens: int | None = None
    max_cost_usd: float | None = None
    wall_s: float = 120.0
    last_call_s: float = 60.0

    def __post_init__(self) -> None:
        least = {
            "max_steps": 1,
            "max_tokens": 0,
            "max_cost_usd": 0,
            "wall_s": 0,
            "last_call_s": 0.001,
        }
        given = {name: getattr(self, name) for name in least}
        if found := [
            Fault(f"episode: {name}", f"is {value!r}; expected a number of at least {least[name]}")
            for name, value in given.items()
            if value is not None and not value >= least[name]
        ]:
            raise ConfigError(found)


@dataclass(frozen=True, slots=True)
class EpisodeResult:
    """Answer and usage of an episode.

    Attributes:
        text: The answer; None without one.
        model: The LLM that gave the answer; None if the router gave it.
        steps: Results of all calls by step, including the fallback's.
        input_tokens: Prompt tokens of all calls.
        output_tokens: Generated tokens of all calls.
        cost_usd: Dollars of the calls with a known cost.
        unpriced_calls: Number of calls with an unknown cost.
        wall_s: Seconds from start to end.
        ended_by: ``answer``, or the cap that was reached.
        error: The latest failure, if `text` is None.
    """

    text: str | None
    model: str | None
    steps: tuple[tuple[CallResult, ...], ...]
    input_tokens: int
    output_tokens: int
    cost_usd: float
    unpriced_calls: int
    wall_s: float
    ended_by: EndedBy
    error: str | None = None

    @property
    def calls(self) -> tuple[CallResult, ...]:
        """All results, in the order of the steps."""
        return tuple(result for step in self.steps for result in step)


async def run_episode(
    router: Stepper,
    query: Query,
    call: Callable[[Call], Awaitable[CallResult]],
    limits: EpisodeLimits | None = None,
) -> EpisodeResult:
    """Run a step router to its answer.

    The calls of one delegation run at the same time. When its vote is settled, the remaining calls
    are cancelled. At a cap the router's `fallback` decides: by default the latest answer, else one
    call of its best single LLM, whose answer ends the episode.

    Args:
        router: The step router; its steps may be awaitable.
        query: The question.
        call: Makes one call and returns answer and usage. An EngineError counts as a failed
            result. When cancelled it may return the usage so far; otherwise tokens count as 0 and
            dollars as unknown.
        limits: Caps; None is the defaults of `EpisodeLimits`.

    Returns:
        The result. The failure of an LLM is not raised but returned in ``error``.

    Raises:
        WaypostError: The router's step raised it.
    """
    limits = limits or EpisodeLimits()
    started = _now()
    deadline = started + limits.wall_s
    state = EpisodeState(query)
    cap: EndedBy | None = None
    while cap is None:
        wanted = await _within(router.step, state, deadline)
        if isinstance(wanted, FinalAnswer):
            return _result(wanted, state, started, "answer")
        if wanted is None:
            cap = "time"
        elif (cap := _cap(state, limits)) is None:
            state = state.after(await _delegate(wanted, call, deadline))
            last = state.steps[-1][0]
            if last.call.final and last.ok:
                return _result(FinalAnswer(last.text, last.call.model), state, started, "answer")
    deadline = _now() + limits.last_call_s
    action = await _within(router.fallback, state, deadline) or FinalAnswer(None)
    if isinstance(action, Delegate):
        state = state.after(await _delegate(action, call, deadline))
        best = next((result for result in state.steps[-1] if result.ok), None)
        action = FinalAnswer(None) if best is None else FinalAnswer(best.text, best.call.model)
    return _result(action, state, started, cap)


def _now() -> float:
    return asyncio.get_running_loop().time()


async def _within(
    decide: Callable[[EpisodeState], Action | Awaitable[Action]],
    state: EpisodeState,
    deadline: float,
) -> Action | None:
    """Return the router's action, or None at the time-out."""
    if (left := deadline - _now()) <= 0:
        return None
    timer = asyncio.timeout(left)
    try:
        async with timer:
            action = decide(state)
            return await action if inspect.isawaitable(action) else action
    except TimeoutError:
        if not timer.expired():
            raise
        return None


def _cap(state: EpisodeState, limits: EpisodeLimits) -> EndedBy | None:
    results = [result for step in state.steps for result in step]
    tokens = sum(result.input_tokens + result.output_tokens for result in results)
    if len(state.steps) >= limits.max_steps:
        return "steps"
    if limits.max_tokens is not None and tokens >= limits.max_tokens:
        return "tokens"
    if limits.max_cost_usd is not None and _dollars(results) >= limits.max_cost_usd:
        return "money"
    return None


async def _delegate(
    action: Delegate, call: Callable[[Call], Awaitable[CallResult]], deadline: float
) -> list[CallResult]:
    tasks = [asyncio.ensure_future(_guarded(call, one)) for one in action.calls]
    try:
        await _until_settled(action, tasks, deadline)
    finally:
        running = {task for task in tasks if not task.done()}
        for task in running:
            task.cancel()
        if running:
            await asyncio.wait(running, timeout=_CANCEL_S)
        for task in tasks:
            if task.done() and not task.cancelled():
                task.exception()  # one fault is raised; this keeps asyncio from logging the others
    results = []
    for task, one in zip(tasks, action.calls, strict=True):
        result = _finished(task) or CallResult(one, None, _CANCELLED)
        cut = task in running and not result.ok
        results.append(replace(result, cancelled=True) if cut else result)
    return results


async def _guarded(call: Callable[[Call], Awaitable[CallResult]], one: Call) -> CallResult:
    try:
        return await call(one)
    except EngineError as error:
        return CallResult(one, None, f"{type(error).__name__}: {error}")


async def _until_settled(
    action: Delegate, tasks: Sequence[asyncio.Task[CallResult]], deadline: float
) -> None:
    running = set(tasks)
    while running and (left := deadline - _now()) > 0:
        done, running = await asyncio.wait(
            running, timeout=left, return_when=asyncio.FIRST_COMPLETED
        )
        for task in done:
            task.result()  # raises a fault of the caller, which ends the episode
        if action.vote and action.vote.outcome([_finished(task) for task in tasks]) is not None:
            return


def _finished(task: asyncio.Task[CallResult]) -> CallResult | None:
    return task.result() if task.done() and not task.cancelled() else None


def _dollars(results: Sequence[CallResult]) -> float:
    return sum(result.cost_usd or 0.0 for result in results)


def _result(
    action: FinalAnswer, state: EpisodeState, started: float, ended_by: EndedBy
) -> EpisodeResult:
    calls = [result for step in state.steps for result in step]
    errors = [result.error for result in calls if result.error is not None and not result.cancelled]
    nothing = errors[-1] if errors else "no LLM gave an answer in time"
    return EpisodeResult(
        text=action.text,
        model=action.model,
        steps=state.steps,
        input_tokens=sum(result.input_tokens for result in calls),
        output_tokens=sum(result.output_tokens for result in calls),
        cost_usd=_dollars(calls),
        unpriced_calls=sum(result.cost_usd is None for result in calls),
        wall_s=_now() - started,
        ended_by=ended_by,
        error=nothing if action.text is None else None,
    )
