"""The gateway in front of a real HTTP upstream: what passes through, and what never shows."""

from __future__ import annotations

import logging

import pytest

from support.fake_upstream import FakeUpstream, Reply
from support.gateway import chat, echo_pool, running
from waypost.secrets import key_ring

CHAT = "/v1/chat/completions"
CANARY = "sk-canary-0123456789"
TOOL = {"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}
DELTAS = (
    {"index": 0, "id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"a"'}},
    {"index": 0, "function": {"arguments": ": 1}"}},
)


@pytest.fixture
async def upstream():
    async with FakeUpstream() as server:
        yield server


def pool(upstream: FakeUpstream) -> list[dict]:
    config = {"base_url": upstream.url, "model": "real", "service": "shop", "max_retries": 0}
    return [
        {"name": "cook", "engine": "openai", "placement": "inline", "config": config},
        *echo_pool()[1:],
    ]


@pytest.fixture
async def up(artifact, upstream, monkeypatch):
    monkeypatch.setenv("API_KEYS", f'{{"shop": "{CANARY}"}}')
    key_ring.cache_clear()
    async with running(artifact, pool=pool(upstream)) as found:
        yield found
    key_ring.cache_clear()


async def test_tools_and_openais_other_fields_pass_through(up, upstream):
    body = chat(
        "x",
        model="cook",
        tools=[TOOL],
        tool_choice="auto",
        response_format={"type": "json_object"},
        logit_bias={"5": 1.5},
        waypost={"extra": {"top_k": 3}},
    )
    reply = await up.client.post(CHAT, body)
    assert reply.status == 200
    assert "x-waypost-ignored" not in reply.headers
    sent = upstream.requests[0].body
    for field in ("tools", "tool_choice", "response_format", "logit_bias", "messages"):
        assert sent[field] == body[field]
    assert (sent["model"], sent["top_k"]) == ("real", 3)
    assert "waypost" not in sent


async def test_tool_calls_come_back_whole_and_as_deltas(up, upstream):
    upstream.script(Reply(tool_calls=DELTAS), Reply(tool_calls=DELTAS))
    whole = await up.client.post(CHAT, chat("x", model="cook", tools=[TOOL]))
    choice = whole.json()["choices"][0]
    assert choice["finish_reason"] == "tool_calls"
    (call,) = choice["message"]["tool_calls"]
    assert call["function"] == {"name": "add", "arguments": '{"a": 1}'}
    stream = await up.client.post(CHAT, chat("x", model="cook", tools=[TOOL], stream=True))
    deltas = [event["choices"][0]["delta"] for event in stream.events()[:-1]]
    found = [call for delta in deltas for call in delta.get("tool_calls", [])]
    assert "".join(call["function"]["arguments"] for call in found) == '{"a": 1}'


async def test_an_image_passes_through(up, upstream):
    parts = [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}]
    reply = await up.client.post(CHAT, {"messages": [{"role": "user", "content": parts}]})
    assert reply.headers["x-waypost-model"] == "cook"
    assert upstream.requests[0].body["messages"][0]["content"] == parts


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (Reply(status=400, body={"error": {"message": "bad"}}), 400),
        (Reply(status=401, body={"error": {"message": f"bad key {CANARY}"}}), 200),
        (Reply(status=404, body={"error": {"message": "no model"}}), 200),
        (Reply(status=429, body={"error": {"message": "later"}}), 200),
        (Reply(status=500, body={"error": {"message": "broken"}}), 200),
        (Reply(drop=True), 200),
    ],
    ids=["400", "401", "404", "429", "500", "drop"],
)
async def test_what_the_upstream_refuses_and_what_another_model_answers(
    up, upstream, answer, status
):
    upstream.script(answer)
    reply = await up.client.post(CHAT, chat())
    assert reply.status == status
    assert (reply.headers.get("x-waypost-model") == "cook") is False


async def test_a_stream_that_the_upstream_cuts_ends_with_an_error_event(up, upstream):
    upstream.script(Reply(text="a b c d", cut_after=2))
    reply = await up.client.post(CHAT, chat("x", model="cook", stream=True))
    assert reply.status == 200
    assert "error" in reply.events()[-1]


async def test_no_key_is_in_any_answer_or_log_line(up, upstream, caplog):
    broken = {"error": {"message": f"Incorrect API key provided: {CANARY}"}}
    seen = b""
    with caplog.at_level(logging.DEBUG):
        for status in (400, 401, 429, 500):
            for stream in (False, True):
                upstream.script(Reply(status=status, body=broken))
                body = chat("x", model="cook", stream=stream)
                reply = await up.client.post(CHAT, body)
                seen += reply.body + b"".join(name + value for name, value in reply.raw)
        for path in ("/metrics", "/v1/models", "/openapi.json"):
            seen += (await up.client.get(path)).body
    assert upstream.requests
    assert CANARY.encode() not in seen
    assert CANARY not in caplog.text
