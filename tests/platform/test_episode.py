"""The episode loop: concurrency, votes, failures, caps, accounts."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable

import pytest

from support.skipping_loop import SkippingLoop
from waypost.contracts.errors import ConfigError, EngineServerError, SchemaError
from waypost.contracts.records import Decision, Query
from waypost.contracts.step_router import (
    Action,
    Call,
    CallResult,
    Delegate,
    EpisodeState,
    FinalAnswer,
    StepRouter,
    Vote,
)
from waypost.episode import EpisodeLimits, EpisodeResult, run_episode


class Scripted(StepRouter):
    """Takes one action after another; answers with the last step's first text."""

    name = "scripted"

    def __init__(self, *actions: Delegate) -> None:
        self.actions = actions

    def step(self, state: EpisodeState) -> Action:
        if len(state.steps) < len(self.actions):
            return self.actions[len(state.steps)]
        result = state.steps[-1][0]
        return FinalAnswer(result.text, result.call.model)

    def route_single(self, query: object) -> Decision:
        return Decision("best", ("best",))


def run(
    router: StepRouter, call: Callable[[Call], object], limits: EpisodeLimits | None = None
) -> EpisodeResult:
    with asyncio.Runner(loop_factory=SkippingLoop) as runner:
        return runner.run(run_episode(router, Query("q?"), call, limits))  # type: ignore[arg-type]


def ask(*models: str, vote: Vote | None = None, purpose: str = "answer") -> Delegate:
    return Delegate(tuple(Call(model, "?", purpose=purpose) for model in models), vote)


async def echo(call: Call) -> CallResult:
    """Say who was asked, for 10 tokens and half a dollar."""
    return CallResult(call, f"from {call.model}", None, 7, 3, 0.5)


def test_an_answer_its_model_and_its_accounts():
    result = run(Scripted(ask("a", "b"), ask("c")), echo)
    assert (result.text, result.model, result.ended_by) == ("from c", "c", "answer")
    assert [len(step) for step in result.steps] == [2, 1]
    assert (result.input_tokens, result.output_tokens, result.cost_usd) == (21, 9, 1.5)
    assert (result.unpriced_calls, result.error) == (0, None)


def test_the_calls_of_a_delegation_run_at_the_same_time():
    together = asyncio.Barrier(3)

    async def meet(call: Call) -> CallResult:
        await together.wait()  # returns only when all three are in flight
        return await echo(call)

    result = run(Scripted(ask("a", "b", "c")), meet, EpisodeLimits(wall_s=5))
    assert [one.text for one in result.calls] == ["from a", "from b", "from c"]


def test_a_settled_vote_cancels_the_rest_and_counts_what_it_used():
    cancelled = []

    async def call(one: Call) -> CallResult:
        if one.model == "fast":
            return CallResult(one, "yes", None, 1, 1, 0.1)
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cancelled.append(one.model)
            if one.model == "silent":
                raise
            return CallResult(one, None, "aborted", 5, 2, 0.2)
        raise AssertionError("was not cancelled")

    vote = Vote("^yes$", (0, 1, 1, 1))
    result = run(Scripted(ask("fast", "telling", "silent", vote=vote)), call)
    assert sorted(cancelled) == ["silent", "telling"]
    assert [one.cancelled for one in result.calls] == [False, True, True]
    assert result.input_tokens == 6
    assert result.cost_usd == pytest.approx(0.3)
    assert result.unpriced_calls == 1
    assert result.wall_s < 5


def test_a_failed_call_is_a_result_with_its_error():
    async def fail(call: Call) -> CallResult:
        raise EngineServerError("broken")

    result = run(Scripted(ask("a")), fail)
    assert (result.text, result.ended_by) == (None, "answer")
    assert result.error == "EngineServerError: broken"


def test_a_fault_of_the_caller_is_raised_and_the_other_calls_end(caplog):
    ended = []

    async def call(one: Call) -> CallResult:
        if one.model == "bad":
            raise ValueError("a bug")
        try:
            await asyncio.sleep(60)
        finally:
            ended.append(one.model)
        raise AssertionError

    with caplog.at_level("ERROR"), pytest.raises(ValueError, match="a bug"):
        run(Scripted(ask("slow", "bad", "bad")), call)
    gc.collect()
    assert ended == ["slow"]
    assert not caplog.records  # nothing of an exception that was never retrieved


@pytest.mark.parametrize(
    ("limits", "ended_by"),
    [
        (EpisodeLimits(max_steps=1), "steps"),
        (EpisodeLimits(max_tokens=10), "tokens"),
        (EpisodeLimits(max_cost_usd=0.5), "money"),
    ],
)
def test_at_a_cap_the_best_answer_so_far_counts(limits, ended_by):
    result = run(Scripted(ask("a"), ask("b")), echo, limits)
    assert (result.text, result.model, result.ended_by) == ("from a", "a", ended_by)
    assert len(result.steps) == 1


def test_a_cap_does_not_forbid_to_answer():
    assert run(Scripted(ask("a")), echo, EpisodeLimits(max_steps=1)).ended_by == "answer"


def test_at_a_cap_without_an_answer_the_last_resort_is_asked():
    router = Scripted(ask("a", purpose="decompose"), ask("b"))
    result = run(router, echo, EpisodeLimits(max_steps=1))
    assert (result.text, result.model, result.ended_by) == ("from best", "best", "steps")
    assert result.cost_usd == 1.0
    assert result.calls[-1].call.prompt == "q?"


def test_at_the_end_of_the_time_finished_calls_are_kept():
    async def call(one: Call) -> CallResult:
        if one.model == "slow":
            await asyncio.sleep(60)
        return await echo(one)

    result = run(Scripted(ask("slow", "b"), ask("c")), call, EpisodeLimits(wall_s=0.05))
    assert (result.text, result.model, result.ended_by) == ("from b", "b", "time")
    assert result.steps[0][0].cancelled


def test_where_even_the_last_resort_is_silent_there_is_no_text():
    async def hang(call: Call) -> CallResult:
        await asyncio.sleep(60)
        raise AssertionError

    result = run(Scripted(ask("a")), hang, EpisodeLimits(wall_s=0.02, last_call_s=0.02))
    assert (result.text, result.model, result.ended_by) == (None, None, "time")
    assert "no LLM gave an answer in time" in str(result.error)


def test_steps_may_be_taken_elsewhere_and_are_bounded_in_time():
    class Remote:
        async def step(self, state: EpisodeState) -> Action:
            await asyncio.sleep(0 if not state.steps else 60)
            return ask("a")

        async def fallback(self, state: EpisodeState) -> Action:
            return FinalAnswer("so far", "a")

    result = run(Remote(), echo, EpisodeLimits(wall_s=0.05))
    assert (result.text, result.ended_by) == ("so far", "time")


def test_a_fallback_that_does_not_return_is_bounded_in_time():
    class Hanging:
        async def step(self, state: EpisodeState) -> Action:
            return ask("a", purpose="decompose")

        async def fallback(self, state: EpisodeState) -> Action:
            await asyncio.sleep(60)
            raise AssertionError

    limits = EpisodeLimits(max_steps=1, last_call_s=0.02)
    result = run(Hanging(), echo, limits)
    assert (result.text, result.ended_by) == (None, "steps")


def test_limits_name_every_fault():
    with pytest.raises(ConfigError) as caught:
        EpisodeLimits(max_steps=0, wall_s=-1.0)
    assert [fault.where for fault in caught.value.faults] == [
        "episode: max_steps",
        "episode: wall_s",
    ]


def test_a_final_answer_ends_the_episode_and_a_failed_one_does_not():
    final = Delegate((Call("a", "q", final=True),))
    result = run(Scripted(final, ask("b")), echo)
    assert (result.text, result.model, result.ended_by) == ("from a", "a", "answer")
    assert len(result.steps) == 1

    async def a_fails(call: Call) -> CallResult:
        if call.model == "a":
            raise EngineServerError("500")
        return await echo(call)

    result = run(Scripted(final, ask("b")), a_fails)
    assert (result.text, len(result.steps)) == ("from b", 2)


def test_a_final_call_stands_alone():
    with pytest.raises(SchemaError, match="stands alone"):
        Delegate((Call("a", "q", final=True), Call("b", "q")))
