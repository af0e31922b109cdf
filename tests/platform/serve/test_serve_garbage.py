"""Upstreams that answer nonsense: it is theirs, never a fault of the gateway's (500)."""

from __future__ import annotations

import json
from typing import Any

import pytest

from support.fake_upstream import FakeUpstream, Reply
from support.gateway import chat, echo_pool, running

CHAT = "/v1/chat/completions"


@pytest.fixture
async def upstream():
    async with FakeUpstream() as server:
        yield server


@pytest.fixture
async def up(artifact, upstream):
    config = {"base_url": upstream.url, "model": "real", "max_retries": 0}
    cook = {"name": "cook", "engine": "openai", "placement": "inline", "config": config}
    async with running(artifact, pool=[cook, *echo_pool()[1:]]) as found:
        yield found


def message(**fields: Any) -> dict[str, Any]:
    """A whole answer with these fields in its message."""
    inner = {"role": "assistant", "content": "fine", **fields}
    return {"choices": [{"index": 0, "message": inner, "finish_reason": "stop"}]}


CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
ODD = {
    "no choices": {},
    "choices of another type": {"choices": {"0": 1}},
    "a choice of another type": {"choices": [5]},
    "a message of another type": {"choices": [{"index": 0, "message": "text"}]},
    "a finish reason of another type": {"choices": [{"message": {}, "finish_reason": {}}]},
    "content of another type": message(content={"a": [1]}),
    "content with a lone surrogate": message(content="a \ud800 b"),
    "control characters": message(content="\x00\r\nx-evil: 1\x1b[2J"),
    "calls of another type": message(tool_calls=7),
    "a call of another type": message(tool_calls=[1, None, "x"]),
    "a call without a function": message(tool_calls=[{"id": "c"}]),
    "a function of another type": message(tool_calls=[{**CALL, "function": [1]}]),
    "arguments of another type": message(
        tool_calls=[{**CALL, "function": {"name": 5, "arguments": {"a": 1}}}]
    ),
    "indices of other types": message(
        tool_calls=[{**CALL, "index": "x"}, {**CALL, "index": None}, {**CALL, "index": [1]}]
    ),
    "negative usage": message() | {"usage": {"prompt_tokens": -9, "completion_tokens": -9}},
    "usage without end": message() | {"usage": {"prompt_tokens": 10**400, "completion_tokens": 1}},
    "usage of another type": message() | {"usage": [1, 2]},
    "an error in a 200": {"error": {"message": "no", "code": ["x"], "type": {}}},
    "an error that is a text": {"error": "no"},
    "an error that is a number": {"error": 503},
    "a list": [1, 2, 3],
    "a number": 7,
}


def wire(body: object, status: int = 200) -> Reply:
    data = json.dumps(body).encode()
    head = f"HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {len(data)}"
    return Reply(wire=f"{head}\r\n\r\n".encode() + data)


def events(body: object) -> Reply:
    """The same as a stream: what was a message is a delta."""
    text = json.dumps(body).replace('"message": {', '"delta": {')
    return Reply(raw=f"data: {text}\n\ndata: [DONE]\n\n".encode())


@pytest.mark.parametrize("name", ODD)
async def test_an_odd_answer(up, upstream, name):
    for make in (wire, events):
        for stream in (False, True):
            upstream.default = make(ODD[name])
            reply = await up.client.post(CHAT, chat(stream=stream))
            assert reply.status == 200, reply.body
            assert reply.ended
            assert "x-evil" not in reply.headers
            if stream:
                assert reply.events()[-1] == "[DONE]" or "error" in reply.events()[-1]
            else:
                json.loads(reply.body)
    assert (await up.client.get("/metrics")).status == 200


@pytest.mark.parametrize("name", ODD)
async def test_an_odd_refusal(up, upstream, name):
    for status in (401, 404, 429, 500, 302):
        upstream.default = wire(ODD[name], status)
        reply = await up.client.post(CHAT, chat())
        assert reply.status == 200, (status, reply.body)
        assert reply.headers["x-waypost-model"] != "cook"


@pytest.mark.parametrize(
    "header", ["nan", "-5", "1e400", "inf", "Wed, 99 Foo", "5, 6", "\x7f", "", "9" * 400]
)
async def test_an_odd_retry_after(up, upstream, header):
    upstream.default = Reply(
        wire=b"HTTP/1.1 429 X\r\nContent-Length: 2\r\nRetry-After: %s\r\n\r\n{}" % header.encode()
    )
    reply = await up.client.post(CHAT, chat())
    assert (reply.status, reply.headers["x-waypost-attempts"]) == (200, "2")
    reply = await up.client.post(CHAT, chat(model="cook"))
    assert reply.status in {429, 502}
    if reply.status == 429:
        assert 1 <= int(reply.headers["retry-after"]) < 1e9
