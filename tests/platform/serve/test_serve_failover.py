from __future__ import annotations

import asyncio
from contextlib import aclosing

import pytest

from support.skipping_loop import skips_waits
from waypost.contracts.errors import (
    ContextLengthError,
    EngineAuthError,
    EngineConnectionError,
    EngineError,
    EngineOverloadedError,
    EngineRequestError,
    EngineServerError,
    EngineTimeoutError,
)
from waypost.contracts.generation import Answer, GenerateRequest, Usage
from waypost.engines import make_engine
from waypost.serve.backends.asking import Asking, Whole, ask, ask_whole
from waypost.serve.backends.base import Loading, LocalLLM
from waypost.serve.backends.circuit_breaker import Circuit
from waypost.serve.backends.failover import Failover
from waypost.serve.backends.failures import ExhaustedError, other_model_may_answer
from waypost.serve.backends.llm_replica import Pace
from waypost.serve.limits import Limits

PACE = Pace(5, 5)


class Raises:
    """An LLM that fails before its first token."""

    loading = Loading()
    loading.loaded(True)

    def __init__(self, error: EngineError) -> None:
        self.error, self.asked = error, 0

    async def start(self) -> None: ...

    async def close(self) -> None: ...

    async def stream(self, request, pace):
        yield [(await self.answer(request, pace))[0]]

    async def answer(self, request, pace):
        self.asked += 1
        raise self.error


class Hangs(Raises):
    """An LLM that never answers; knows when it was let go."""

    def __init__(self) -> None:
        super().__init__(EngineServerError(""))
        self.let_go = 0

    async def answer(self, request, pace):
        self.asked += 1
        try:
            await asyncio.sleep(60)
        finally:
            self.let_go += 1


async def echo(**config) -> LocalLLM:
    llm = LocalLLM("echo", make_engine("echo", config), 8, 8, 1.0)
    await llm.start()
    return llm


def request(text: str = "one two three", **fields) -> GenerateRequest:
    return GenerateRequest("r", messages=[{"role": "user", "content": text}], **fields)


def failover(llms, failures=None, **limits) -> Failover:
    told = [].append if failures is None else failures.append
    return Failover(llms, Asking(Limits(**limits)), Circuit(), told)


async def text_of(opened) -> str:
    if isinstance(opened, Whole):
        return "".join(answer.text for answer in opened.answers)
    async with aclosing(opened.pieces) as lists:
        return "".join([chunk.text async for pieces in lists for _, chunk in pieces])


@pytest.mark.parametrize("whole", [True, False])
async def test_the_next_model_answers_where_the_first_fails_before_its_token(whole):
    failures = []
    llms = {"a": Raises(EngineServerError("500")), "b": Raises(EngineTimeoutError("late"))}
    llms["c"] = await echo()
    walk = failover(llms, failures)
    opened = await (walk.whole if whole else walk.open)(("a", "b", "c"), [request()])
    assert (opened.model, opened.attempts) == ("c", 3)
    assert await text_of(opened) == "one two three"
    assert [(f.model, f.reason) for f in failures] == [("a", "server"), ("b", "timeout")]


@pytest.mark.parametrize(
    ("error", "goes_on"),
    [
        (EngineConnectionError("lost"), True),
        (EngineOverloadedError("429", status=429), True),
        (EngineServerError("500"), True),
        (EngineAuthError("key", status=401), True),
        (ContextLengthError("long"), True),
        (EngineRequestError("no such model", status=404, retryable=True), True),
        (EngineRequestError("bad", status=400), False),
        (EngineRequestError("bad"), False),
    ],
)
def test_which_failures_are_the_models_and_which_the_requests(error, goes_on):
    assert other_model_may_answer(error) is goes_on


async def test_a_request_at_fault_is_told_at_once():
    llms = {"a": Raises(EngineRequestError("bad")), "b": Raises(EngineServerError("never"))}
    with pytest.raises(EngineRequestError, match="bad"):
        await failover(llms).whole(("a", "b"), [request()])
    assert llms["b"].asked == 0


async def test_where_all_fail_every_failure_is_told_in_order():
    llms = {"a": Raises(EngineServerError("x")), "b": Raises(EngineTimeoutError("y"))}
    with pytest.raises(ExhaustedError, match="a: x; b: y") as caught:
        await failover(llms).open(("a", "b"), [request()])
    assert [failure.reason for failure in caught.value.failures] == ["server", "timeout"]


async def test_the_same_failure_of_one_model_is_told_once_and_each_call_counts():
    llms = {"a": Raises(EngineConnectionError("lost"))}
    with pytest.raises(ExhaustedError, match=r"no model answered: a: lost$") as caught:
        await failover(llms).whole(("a",), [request()])
    assert len(caught.value.failures) == 2


async def test_a_pinned_model_that_did_not_load_is_called_once():
    llm = Raises(EngineConnectionError("a is not served: no key"))
    llm.loading = Loading()
    llm.loading.loaded(False)
    with pytest.raises(ExhaustedError, match=r"no model answered: a is not served: no key$"):
        await failover({"a": llm}).whole(("a",), [request()])
    assert llm.asked == 1


async def test_a_model_that_is_no_longer_served_is_passed_over():
    opened = await failover({"b": await echo()}).whole(("gone", "b"), [request()])
    assert (opened.model, opened.attempts) == ("b", 1)


async def test_a_pinned_model_is_asked_again_only_where_its_connection_broke():
    lost, broken = Raises(EngineConnectionError("lost")), Raises(EngineServerError("500"))
    for llm, times in ((lost, 2), (broken, 1)):
        with pytest.raises(ExhaustedError):
            await failover({"a": llm}).whole(("a",), [request()])
        assert llm.asked == times


@skips_waits
async def test_a_model_that_never_answers_is_left_at_the_end_of_the_whole_time():
    hangs = Hangs()
    with pytest.raises(ExhaustedError, match="whole answer is over"):
        await failover({"a": hangs}, total_timeout_s=0.05).whole(("a", "a2"), [request()])
    assert hangs.let_go == 1


@skips_waits
async def test_a_model_that_dribbles_does_not_use_up_the_time_of_the_others():
    llms = {"slow": await echo(tokens=100, tokens_per_s=20), "quick": await echo()}
    walk = failover(llms, total_timeout_s=1.0, first_token_timeout_s=0.5)
    opened = await walk.whole(("slow", "quick"), [request()])
    assert (opened.model, await text_of(opened)) == ("quick", "one two three")
    assert len(llms["slow"].engine.calls) == 0


@skips_waits
async def test_a_stream_has_all_the_time_once_it_has_begun():
    llms = {"slow": await echo(tokens=9, tokens_per_s=10), "quick": await echo()}
    walk = failover(llms, total_timeout_s=1.2, first_token_timeout_s=1.0)
    opened = await walk.open(("slow", "quick"), [request()])
    assert opened.model == "slow"
    assert (await text_of(opened)).count("one") == 3


async def test_a_model_whose_streams_break_is_passed_over():
    llms = {"a": await echo(fail_with="mid_stream"), "b": await echo()}
    walk = failover(llms)
    opened = await walk.open(("a", "b"), [request()])
    with pytest.raises(EngineConnectionError):
        await text_of(opened)
    opened = await walk.open(("a", "b"), [request()])
    assert (opened.model, await text_of(opened)) == ("b", "one two three")


@skips_waits
async def test_a_client_that_reads_slowly_says_nothing_of_the_model():
    circuit = Circuit()
    llms = {"a": await echo()}
    walk = Failover(llms, Asking(Limits(total_timeout_s=0.05)), circuit, [].append)
    for _ in range(4):
        opened = await walk.open(("a",), [request()])
        await anext(opened.pieces)
        await asyncio.sleep(0.06)
        with pytest.raises(EngineTimeoutError):
            await anext(opened.pieces)
    assert circuit.resting() == ()


@skips_waits
async def test_a_slow_first_token_fails_over():
    llms = {"slow": await echo(delay_s=5.0), "quick": await echo()}
    walk = failover(llms, first_token_timeout_s=0.05)
    opened = await walk.open(("slow", "quick"), [request()])
    assert opened.model == "quick"
    assert len(llms["slow"].engine.calls) == 0
    await opened.pieces.aclose()


@skips_waits
async def test_a_whole_answer_that_stalls_half_way_fails_over():
    llms = {"stalls": await echo(tokens_per_s=2.0), "quick": await echo()}
    walk = failover(llms, first_token_timeout_s=5.0, between_tokens_timeout_s=0.05)
    opened = await walk.whole(("stalls", "quick"), [request()])
    assert opened.model == "quick"


async def test_a_failure_after_the_first_token_is_the_callers():
    llms = {"a": await echo(fail_with="mid_stream"), "b": await echo()}
    opened = await failover(llms).open(("a", "b"), [request()])
    assert opened.model == "a"
    with pytest.raises(EngineConnectionError):
        await text_of(opened)


async def test_the_whole_answer_of_a_model_that_breaks_off_comes_from_the_next():
    llms = {"a": await echo(fail_with="mid_stream"), "b": await echo()}
    opened = await failover(llms).whole(("a", "b"), [request()])
    assert (opened.model, await text_of(opened)) == ("b", "one two three")


async def test_a_model_that_lost_its_connection_is_passed_over_next_time():
    llms = {"a": Raises(EngineConnectionError("lost")), "b": await echo()}
    walk = failover(llms)
    for attempts in (2, 1):
        opened = await walk.whole(("a", "b"), [request()])
        assert (opened.model, opened.attempts) == ("b", attempts)


@skips_waits
async def test_letting_an_opened_answer_go_stops_the_generation():
    llm = await echo(tokens=1000, tokens_per_s=200)
    opened = await failover({"a": llm}).open(("a",), [request()])
    assert len(llm.engine.calls) == 1
    await opened.pieces.aclose()
    assert len(llm.engine.calls) == 0


@skips_waits
async def test_cancelling_before_the_first_token_lets_the_model_go():
    hangs = Hangs()
    task = asyncio.create_task(failover({"a": hangs}).whole(("a",), [request()]))
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert hangs.let_go == 1


@skips_waits
async def test_several_answers_are_made_at_the_same_time_and_told_apart():
    llm = await echo(tokens_per_s=100)
    requests = [request("a b"), request("c d")]
    found = {0: "", 1: ""}
    async with aclosing(ask(llm, requests, PACE)) as lists:
        async for pieces in lists:
            for index, chunk in pieces:
                found[index] += chunk.text
    assert found == {0: "a b", 1: "c d"}


async def test_several_whole_answers_come_as_one_list():
    found = await ask_whole(await echo(), [request("a"), request("b")], PACE)
    assert [answer for answer, _ in found] == [Answer(text, "stop", Usage(1, 1)) for text in "ab"]


@skips_waits
async def test_where_one_of_several_answers_fails_the_others_are_ended():
    llm = await echo(tokens=1000, tokens_per_s=100, fail_with="500", fail_first_n=1)
    with pytest.raises(EngineServerError):
        async for _ in ask(llm, [request(), request()], PACE):
            pass
    llm = await echo(tokens=1000, tokens_per_s=100, fail_with="500", fail_first_n=1)
    with pytest.raises(EngineServerError):
        await ask_whole(llm, [request(), request()], PACE)
    assert len(llm.engine.calls) == 0


@skips_waits
async def test_a_full_queue_of_an_inline_engine_is_an_overload():
    llm = LocalLLM(
        "echo", make_engine("echo", {"delay_s": 30}), max_ongoing=1, max_queued=0, queue_timeout_s=1
    )
    await llm.start()
    first = asyncio.create_task(llm.answer(request(), PACE))
    await asyncio.sleep(0.01)
    with pytest.raises(EngineOverloadedError, match="1 requests"):
        await llm.answer(request(), PACE)
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)


@skips_waits
async def test_a_long_wait_for_an_inline_engine_is_an_overload():
    llm = LocalLLM(
        "echo",
        make_engine("echo", {"delay_s": 30}),
        max_ongoing=1,
        max_queued=5,
        queue_timeout_s=0.02,
    )
    await llm.start()
    first = asyncio.create_task(llm.answer(request(), PACE))
    await asyncio.sleep(0.01)
    with pytest.raises(EngineOverloadedError, match=r"within 0\.02 s"):
        await llm.answer(request(), PACE)
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
