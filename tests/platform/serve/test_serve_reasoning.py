"""Reasoning of an earlier turn over HTTP: back to its provider, and to no other."""

from __future__ import annotations

import pytest

from support.fake_anthropic import FakeAnthropic, Said, refused
from support.fake_upstream import FakeUpstream, Reply
from support.gateway import chat, running
from support.openai_events import stream_of
from waypost.sessions.reasoning import TAG

CHAT = "/v1/chat/completions"
THOUGHT = {"type": "thinking", "thinking": "hm", "signature": "s"}
TEXT = {"type": "text", "text": "ok"}


@pytest.fixture
async def other():
    async with FakeUpstream() as server:
        yield server


@pytest.fixture
async def maker():
    async with FakeAnthropic() as server:
        server.default = Said(blocks=(THOUGHT, TEXT))
        yield server


def entry(name, engine, url):
    config = {"base_url": url, "model": "real", "max_retries": 0}
    return {"name": name, "engine": engine, "placement": "inline", "config": config}


@pytest.fixture
async def up(artifact, maker, other):
    pool = [entry("cook", "anthropic", maker.url), entry("prover", "openai", other.url)]
    async with running(artifact, pool=pool) as found:
        yield found


async def test_a_signed_thought_goes_back_to_its_maker_alone(up, maker, other):
    first = await up.client.post(CHAT, chat("x", model="cook"))
    message = first.json()["choices"][0]["message"]
    assert message["reasoning_content"] == "hm"
    assert message[TAG] == message["thinking_blocks"][0][TAG]
    turns = [*chat("x")["messages"], message, {"role": "user", "content": "y"}]
    back = await up.client.post(CHAT, {"model": "cook", "messages": turns})
    assert "x-waypost-ignored" not in back.headers
    assert maker.requests[1].body["messages"][1]["content"] == [THOUGHT, TEXT]
    away = await up.client.post(CHAT, {"model": "prover", "messages": turns})
    assert away.headers["x-waypost-ignored"] == "reasoning_content, thinking_blocks"
    sent = other.requests[0].body["messages"][1]
    assert sent == {"role": "assistant", "content": "ok", "refusal": None}


async def test_after_a_failover_the_next_llm_gets_no_thought(up, maker, other):
    first = await up.client.post(CHAT, chat())
    assert first.headers["x-waypost-model"] == "cook"
    message = first.json()["choices"][0]["message"]
    turns = [*chat()["messages"], message, *chat()["messages"]]
    maker.script(refused("overloaded_error"))
    reply = await up.client.post(CHAT, {"model": "auto", "messages": turns})
    assert reply.headers["x-waypost-model"] == "prover"
    assert reply.headers["x-waypost-ignored"] == "reasoning_content, thinking_blocks"
    assert maker.requests[1].body["messages"][1]["content"] == [THOUGHT, TEXT]
    sent = other.requests[0].body["messages"][1]
    assert sent == {"role": "assistant", "content": "ok", "refusal": None}


async def test_a_stream_has_the_tag_once(up, other):
    other.script(Reply(raw=stream_of({"reasoning": "h"}, {"reasoning": "m"}, {"content": "ok"})))
    reply = await up.client.post(CHAT, chat("x", model="prover", stream=True))
    deltas = [event["choices"][0]["delta"] for event in reply.events()[:-1] if event["choices"]]
    tags = [delta[TAG] for delta in deltas if TAG in delta]
    assert len(tags) == 1
    said = {"role": "assistant", "content": "ok", "reasoning": "hm", TAG: tags[0]}
    turns = [*chat("x")["messages"], said, {"role": "user", "content": "y"}]
    await up.client.post(CHAT, {"model": "prover", "messages": turns})
    assert other.requests[1].body["messages"][1] == {
        "role": "assistant", "content": "ok", "reasoning": "hm",
    }  # fmt: skip
