"""Whole for whole: what upstreams are asked, deadlines, and hedges."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

import pytest

from support.fake_anthropic import FakeAnthropic
from support.fake_upstream import FakeUpstream, Reply
from support.gateway import chat, echo_pool, running
from waypost.serve.backends import answer_times, hedging

CHAT = "/v1/chat/completions"
ENDLESS_S = 60.0


@pytest.fixture
async def upstream():
    async with FakeUpstream() as server:
        yield server


@pytest.fixture
async def other():
    async with FakeUpstream(Reply(text="of the other")) as server:
        yield server


def llm(name: str, server: FakeUpstream, **config) -> dict:
    config = {"base_url": server.url, "model": "real", "max_retries": 0} | config
    return {"name": name, "engine": "openai", "placement": "inline", "config": config}


@pytest.fixture
async def up(artifact, upstream):
    async with running(artifact, pool=[llm("cook", upstream), *echo_pool()[1:]]) as found:
        yield found


# What an upstream is asked


@pytest.mark.parametrize("stream", [False, True])
async def test_a_whole_answer_is_asked_for_whole_and_a_stream_as_a_stream(up, upstream, stream):
    reply = await up.client.post(CHAT, chat("x y", model="cook", stream=stream))
    assert reply.status == 200
    sent = upstream.requests[0].body
    assert sent["stream"] is stream
    assert ("stream_options" in sent) is stream


async def test_each_of_several_answers_is_asked_for_whole(up, upstream):
    reply = await up.client.post(CHAT, chat("x y", model="cook", n=3))
    assert [each["message"]["content"] for each in reply.json()["choices"]] == ["x y"] * 3
    assert [request.body["stream"] for request in upstream.requests] == [False] * 3
    assert reply.json()["usage"]["completion_tokens"] == 6


async def test_an_upstream_that_only_streams_is_asked_for_a_stream(artifact, upstream):
    pool = [llm("cook", upstream, whole=False), *echo_pool()[1:]]
    async with running(artifact, pool=pool) as up:
        reply = await up.client.post(CHAT, chat("x y", model="cook"))
    assert reply.json()["choices"][0]["message"]["content"] == "x y"
    assert upstream.requests[0].body["stream"] is True


@pytest.mark.parametrize("stream", [False, True])
async def test_the_messages_api_is_asked_the_same_way(artifact, stream):
    async with FakeAnthropic() as server:
        pool = [llm("cook", server) | {"engine": "anthropic"}, *echo_pool()[1:]]
        async with running(artifact, pool=pool) as up:
            reply = await up.client.post(CHAT, chat("x y", model="cook", stream=stream))
        assert reply.status == 200
        assert bool(server.requests[0].body.get("stream")) is stream


async def test_a_cut_connection_of_a_whole_answer_fails_over(up, upstream):
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 999\r\n\r\n"
    upstream.script(Reply(wire=head + b'{"choices": ['))
    reply = await up.client.post(CHAT, chat())
    assert (reply.status, reply.headers["x-waypost-attempts"]) == (200, "2")


async def test_a_client_that_goes_ends_the_upstreams_work(up, upstream):
    upstream.default = Reply(delay_s=ENDLESS_S)
    connection = up.client.open("POST", CHAT, chat(model="cook"))
    async with asyncio.timeout(30):
        while not upstream.active:
            await asyncio.sleep(0.01)
        connection.go_away()
        await connection.end()
        while upstream.active:
            await asyncio.sleep(0.01)
    assert upstream.disconnects == 1


# Deadlines


@asynccontextmanager
async def two(artifact, upstream, other, **changes):
    """Both LLMs behind HTTP; the deadline of one that is known is about .5 s."""
    pool = [llm("cook", upstream), llm("prover", other)]
    late = {"least_s": 0.5, "factor": 1.0}
    async with running(artifact, pool=pool, **({"deadline": late} | changes)) as found:
        yield found


async def learn(up, count: int = 6) -> None:
    for _ in range(count):
        reply = await up.client.post(CHAT, chat(model="cook"))
        assert reply.status == 200


@pytest.fixture(autouse=True)
def few_answers_teach(monkeypatch):
    monkeypatch.setattr(answer_times, "FEWEST", 5)


async def test_an_upstream_that_hangs_is_given_up_and_the_next_is_asked(artifact, upstream, other):
    async with two(artifact, upstream, other) as up:
        await learn(up)
        upstream.script(Reply(delay_s=ENDLESS_S))
        reply = await up.client.post(CHAT, chat())
        assert reply.status == 200
        assert (reply.headers["x-waypost-model"], reply.headers["x-waypost-attempts"]) == (
            "prover",
            "2",
        )
        told = (await up.client.get("/metrics")).body.decode()
        assert 'waypost_failovers_total{model="cook",reason="deadline"} 1.0' in told
        async with asyncio.timeout(30):
            while upstream.active:
                await asyncio.sleep(0.01)


async def test_an_upstream_that_keeps_hanging_rests(artifact, upstream, other):
    async with two(artifact, upstream, other) as up:
        await learn(up)
        upstream.script(*[Reply(delay_s=ENDLESS_S)] * 3)
        attempts = [
            (await up.client.post(CHAT, chat())).headers["x-waypost-attempts"] for _ in range(4)
        ]
        assert attempts == ["2", "2", "2", "1"]


async def test_the_last_llm_has_all_the_time(artifact, upstream, other):
    async with two(artifact, upstream, other) as up:
        await learn(up)
        upstream.script(Reply(delay_s=1.5))
        reply = await up.client.post(CHAT, chat(model="cook"))
        assert reply.status == 200
        other.default = Reply(status=500, body={"error": {"message": "broken"}})
        upstream.default = Reply(delay_s=1.5, text="late")
        body_ = chat(waypost={"allowed_models": ["cook"]})
        assert (await up.client.post(CHAT, body_)).status == 200


async def test_before_answers_are_known_the_longest_deadline_holds(artifact, upstream, other):
    late = {"least_s": 0.1, "most_s": 0.5}
    async with two(artifact, upstream, other, deadline=late) as up:
        upstream.script(Reply(delay_s=ENDLESS_S))
        reply = await up.client.post(CHAT, chat())
        assert reply.headers["x-waypost-model"] == "prover"


async def test_an_engine_that_streams_is_not_bounded_by_a_deadline(artifact):
    pool = echo_pool(cook={"tokens": 12, "tokens_per_s": 10})
    late = {"least_s": 0.2, "most_s": 0.3}
    async with running(artifact, pool=pool, deadline=late) as up:
        reply = await up.client.post(CHAT, chat())
        assert reply.headers["x-waypost-model"] == "cook"


# Hedges


async def test_a_slow_answer_is_hedged_and_the_first_good_one_wins(
    artifact, upstream, other, monkeypatch
):
    monkeypatch.setattr(hedging, "SAVED", 9.0)
    hedge = {"quantile": 0.9, "most_share": 0.9}
    late = {"least_s": 50.0}
    async with two(artifact, upstream, other, hedge=hedge, deadline=late) as up:
        await learn(up)
        upstream.script(Reply(delay_s=ENDLESS_S))
        reply = await up.client.post(CHAT, chat())
        assert reply.headers["x-waypost-model"] == "prover"
        assert reply.headers["x-waypost-attempts"] == "2"
        told = reply.json()["usage"]["waypost"]["hedge"]
        assert told == {"models": ["cook", "prover"], "lost_cost_usd": None}
        async with asyncio.timeout(30):
            while upstream.active:  # the loser is cancelled
                await asyncio.sleep(0.01)
        # the first may win, too; a failure of the second takes nothing away
        upstream.script(Reply(delay_s=1.0, text="of the first"))
        other.script(Reply(status=500, body={"error": {"message": "broken"}}))
        reply = await up.client.post(CHAT, chat())
        assert reply.headers["x-waypost-model"] == "cook"
        metrics = (await up.client.get("/metrics")).body.decode()
        assert 'waypost_hedges_total{model="cook",winner="second"} 1.0' in metrics
        assert 'waypost_hedges_total{model="cook",winner="first"} 1.0' in metrics


async def test_hedges_are_off_by_default_and_within_their_share(artifact, upstream, other):
    slow = Reply(delay_s=0.5)
    for hedge, most in (("off", 0), ({"quantile": 0.5, "most_share": 0.2}, 2)):
        async with two(artifact, upstream, other, hedge=hedge, deadline={"least_s": 60}) as up:
            await learn(up)
            upstream.script(*[slow] * 5)
            asked = len(other.requests)
            for _ in range(5):
                assert (await up.client.post(CHAT, chat())).status == 200
            assert len(other.requests) - asked == most
        upstream.forget()


async def test_where_both_calls_of_a_hedge_fail_the_next_llm_answers(artifact, upstream, other):
    hedge = {"quantile": 0.5, "most_share": 0.9}
    broken = {"error": {"message": "broken"}}
    pool = [llm("cook", upstream), llm("prover", other), echo_pool()[2]]
    async with running(artifact, pool=pool, hedge=hedge) as up:
        await learn(up)
        upstream.script(Reply(status=500, body=broken, delay_s=1.0))
        other.default = Reply(status=500, body=broken)
        reply = await up.client.post(CHAT, chat(waypost={"lambda": 0.0}))
        assert (reply.status, reply.headers["x-waypost-attempts"]) == (200, "3")
        assert reply.headers["x-waypost-model"] == "tiny"
        metrics = (await up.client.get("/metrics")).body.decode()
        assert 'waypost_hedges_total{model="cook",winner="none"} 1.0' in metrics
