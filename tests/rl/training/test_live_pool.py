"""A pool behind an OpenAI-style endpoint: a real server on a loopback port."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest

from support.counting_upstream import counting_upstream
from support.fake_upstream import FakeUpstream
from support.fake_upstream import Reply as Said
from support.r1_policy import ANSWER, ASK
from support.r1_world import ScriptedSampler, environment, question
from waypost.contracts.errors import ConfigError
from waypost_rl.training.live_pool import HttpPool
from waypost_rl.training.parts import Ask, Reply
from waypost_rl.training.rollout import roll_out

MODELS = {"cook": "cook-7b", "prover": "org/prover-70b"}
KEY = "sk-a-secret-of-the-pool"


@asynccontextmanager
async def http_pool(url: str, models: Mapping[str, str] = MODELS, **of: Any) -> AsyncIterator[Any]:
    pool = HttpPool(url, models, **of)
    try:
        yield pool
    finally:
        await pool.close()


def ask(query: str = "What is a roast?", candidate: str = "cook") -> Ask:
    return Ask(candidate, query, question())


async def test_a_query_is_sent_greedily_to_its_model():
    async with FakeUpstream() as upstream, http_pool(upstream.url, max_tokens=77) as pool:
        assert await pool.ask(ask("one two three", "prover")) == Reply("one two three", 3, 3)
        await pool.ask(ask())
        sent = upstream.requests[0]
        assert sent.body["model"] == "org/prover-70b"
        assert sent.body["messages"] == [{"role": "user", "content": "one two three"}]
        assert (sent.body["temperature"], sent.body["max_tokens"]) == (0.0, 77)
        assert "stop" not in sent.body
        assert "Authorization" not in sent.headers
        assert upstream.requests[1].body["model"] == "cook-7b"
        assert pool.settings_of("cook") == {
            "model": "cook-7b", "max_tokens": 77, "temperature": 0.0, "system": None,
        }  # fmt: skip


async def test_a_helper_prompt_and_a_key(monkeypatch, caplog):
    monkeypatch.setenv("POOL_KEY", KEY)
    of = {"api_key_env": "POOL_KEY", "system": "Be brief."}
    async with FakeUpstream() as upstream, http_pool(upstream.url, **of) as pool:
        await pool.ask(ask())
        sent = upstream.requests[0]
        assert sent.headers["Authorization"] == f"Bearer {KEY}"
        assert sent.body["messages"][0] == {"role": "system", "content": "Be brief."}
        with caplog.at_level(logging.DEBUG):
            upstream.script(Said(status=401, body={"error": {"message": f"wrong key {KEY}"}}))
            reply = await pool.ask(ask())
        assert reply.text is None
        assert reply.fault
        assert KEY not in reply.fault + caplog.text


@pytest.mark.parametrize(
    "said",
    [
        Said(status=400, body={"error": {"message": "no"}}),
        Said(drop=True),
        Said(body={"choices": []}),
        Said(wire=b"nonsense"),
    ],
    ids=["refused", "dropped", "no choices", "no HTTP"],
)
async def test_a_failed_call_is_a_reply_without_text(said):
    async with FakeUpstream(said) as upstream, http_pool(upstream.url, timeout_s=30) as pool:
        reply = await pool.ask(ask())
        assert (reply.text, reply.output_tokens) == (None, 0)
        assert "cook-7b" in reply.fault
        upstream.default = Said(text="meat")
        assert (await pool.ask(ask())).text == "meat"


async def test_a_dead_llm_costs_its_time_out_and_not_the_others_turns():
    of = {"models": {**MODELS, "dead": "dead"}, "timeout_s": 3.0, "at_once": 2}
    async with FakeUpstream(Said(text="meat")) as upstream, http_pool(upstream.url, **of) as pool:
        upstream.script(*[Said(delay_s=3600)] * 2)
        dead = [asyncio.create_task(pool.ask(ask(candidate="dead"))) for _ in range(6)]
        while upstream.active < 2:
            await asyncio.sleep(0.005)
        alive = await asyncio.gather(*(pool.ask(ask()) for _ in range(6)))
        assert not any(task.done() for task in dead)
        assert [reply.text for reply in alive] == ["meat"] * 6
        # on a slow machine a turn that is given back may come before the end of a later one's time
        upstream.script(*[Said(delay_s=3600)] * 4)
        for reply in await asyncio.gather(*dead):
            assert reply.text is None
            assert "no answer in 3 s" in reply.fault
        # two at a time: the others gave up while they waited for their turn
        assert 2 <= sum(one.body["model"] == "dead" for one in upstream.requests) < 6


async def test_an_endpoint_that_does_not_exist_is_a_failed_call():
    async with FakeUpstream() as upstream:
        url = upstream.url
    async with http_pool(url, timeout_s=3) as pool:
        reply = await pool.ask(ask())
    assert reply.text is None
    assert "cook-7b" in reply.fault


def test_the_searches_of_a_batch_reach_the_endpoint_together():
    with counting_upstream(delay_s=1.0) as upstream:

        async def play() -> None:
            turns = [[ASK.format("cook", f"question {n}?"), ANSWER] for n in range(8)]
            asked = [(question(key=f"q{n}"), 0.0) for n in range(8)]
            sampler = ScriptedSampler(*turns)
            async with http_pool(upstream.url) as pool:
                episodes = await roll_out(asked, environment(), sampler, pool, seed=0)
            assert all("<information>The answer is 7<" in e.transcript.text for e in episodes)
            assert [e.calls[0].output_tokens for e in episodes] == [5] * 8

        asyncio.run(play())
        calls = upstream.calls
        assert sorted(call.text for call in calls) == [f"question {n}?" for n in range(8)]
        assert {call.model for call in calls} == {"cook-7b"}
        assert max(call.begin for call in calls) < min(call.end for call in calls)


async def test_wrong_settings_are_named(monkeypatch):
    monkeypatch.delenv("POOL_KEY", raising=False)
    with pytest.raises(ConfigError, match="POOL_KEY: is not set"):
        HttpPool("http://127.0.0.1:1/v1", MODELS, api_key_env="POOL_KEY")
    with pytest.raises(ConfigError, match="pool: base_url"):
        HttpPool("127.0.0.1", MODELS)
    with pytest.raises(ConfigError, match="pool: has no gpt; it has cook, prover"):
        await HttpPool("http://127.0.0.1:1/v1", MODELS).ask(ask(candidate="gpt"))
