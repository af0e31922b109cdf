"""Odd answers of upstreams, whole and streamed: what the client gets is the same."""

from __future__ import annotations

import json

import pytest

from support.fake_upstream import FakeUpstream, Reply
from support.gateway import chat, echo_pool, running
from support.openai_events import stream_of
from waypost.serve.gateway.responses import joined_tool_calls

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


CALL = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}
OTHER = {"id": "c1", "type": "function", "function": {"name": "g", "arguments": "{}"}}
AS_OBJECT = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": {"a": 1}}}
USAGE = {"prompt_tokens": 3, "completion_tokens": 5, "total_tokens": 8}
ANSWER = json.dumps({"choices": [{"index": 0, "delta": {"content": "a b"}}]})
END = json.dumps({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})


def body(message: dict, reason: str | None = "stop", **beside) -> Reply:
    choice = {"index": 0, "message": {"role": "assistant", **message}}
    if reason is not None:
        choice["finish_reason"] = reason
    return Reply(body={"choices": [choice], **beside})


def sse(*events: str) -> Reply:
    return Reply(raw="".join(f"data: {event}\n\n" for event in events).encode())


async def said(up, upstream, reply: Reply, *, stream: bool, **fields) -> dict:
    """Return message, finish reason and usage of an answer in either form."""
    upstream.script(reply)
    options = {"stream_options": {"include_usage": True}} if stream else {}
    asked = chat("x", model="cook", stream=stream, **fields, **options)
    answer = await up.client.post(CHAT, asked)
    assert answer.status == 200, answer.body
    if not stream:
        (choice,) = answer.json()["choices"]
        message = {k: v for k, v in choice["message"].items() if k != "role" and v}
        return {**message, "reason": choice["finish_reason"], "usage": answer.json()["usage"]}
    *events, last = answer.events()
    assert last == "[DONE]"
    choices = [event["choices"][0] for event in events if event["choices"]]
    message, calls = {}, []
    for choice in choices:
        calls += choice["delta"].pop("tool_calls", [])
        for name, value in choice["delta"].items():
            if name != "role" and value:
                message[name] = message.get(name, type(value)()) + value
    if calls:
        message["tool_calls"] = joined_tool_calls(calls)
    return {**message, "reason": choices[-1]["finish_reason"], "usage": events[-1]["usage"]}


TOOLS = {"tools": [{"type": "function", "function": {"name": n, "parameters": {}}} for n in "fg"]}
ODD = {
    "finish_reason missing": (
        body({"content": "a b"}, None, usage=USAGE),
        sse(ANSWER, "[DONE]"),
        {"content": "a b", "reason": "stop"},
    ),
    "finish_reason null, then told": (
        body({"content": "a b"}, usage=USAGE),
        sse(ANSWER.replace("}}", '}, "finish_reason": null}'), END, "[DONE]"),
        {"content": "a b", "reason": "stop"},
    ),
    "[DONE] in quotes": (
        body({"content": "a b"}),
        sse(ANSWER, END, '"[DONE]"'),
        {"content": "a b", "reason": "stop"},
    ),
    "text behind [DONE]": (
        body({"content": "a b"}),
        sse(ANSWER, END, "[DONE] {'cost': 1}"),
        {"content": "a b", "reason": "stop"},
    ),
    "usage in a last event without choices": (
        body({"content": "a b"}, usage=USAGE),
        Reply(raw=stream_of({"content": "a b"}, usage=USAGE)),
        {"content": "a b", "reason": "stop", "tokens": (3, 5)},
    ),
    "one id for two calls": (
        body({"content": None, "tool_calls": [CALL, OTHER]}, "tool_calls"),
        Reply(
            raw=stream_of(
                {"tool_calls": [{"index": 0, **CALL}]},
                {"tool_calls": [{"index": 1, **OTHER}]},
                reason="tool_calls",
            )
        ),
        {"calls": [("f", '{"a": 1}'), ("g", "{}")], "reason": "tool_calls"},
    ),
    "arguments as an object": (
        body({"content": None, "tool_calls": [AS_OBJECT]}, "tool_calls"),
        Reply(raw=stream_of({"tool_calls": [{"index": 0, **AS_OBJECT}]}, reason="tool_calls")),
        {"calls": [("f", '{"a": 1}')], "reason": "tool_calls"},
    ),
    "calls without content": (
        body({"tool_calls": [CALL]}, "tool_calls"),
        Reply(raw=stream_of({"content": None, "tool_calls": [CALL]}, reason="tool_calls")),
        {"calls": [("f", '{"a": 1}')], "reason": "tool_calls"},
    ),
    "events without choices before": (
        body({"content": "a b"}),
        sse('{"choices": []}', '{"choices": null}', "{}", ANSWER, END, "[DONE]"),
        {"content": "a b", "reason": "stop"},
    ),
    "usage absent, with thinking": (
        body({"content": "a" * 8, "reasoning_content": "b" * 32}),
        Reply(raw=stream_of({"reasoning_content": "b" * 32}, {"content": "a" * 8})),
        {"content": "a" * 8, "reasoning_content": "b" * 32, "reason": "stop", "tokens": (1, 10)},
    ),
    "usage absent, with calls": (
        body({"content": None, "tool_calls": [CALL]}, "tool_calls"),
        Reply(raw=stream_of({"tool_calls": [{"index": 0, **CALL}]}, reason="tool_calls")),
        # a character of the name and eight of the arguments
        {"calls": [("f", '{"a": 1}')], "reason": "tool_calls", "tokens": (1, 3)},
    ),
    "an end of another name": (
        body({"content": "a b"}, "model_length"),
        Reply(raw=stream_of({"content": "a b"}, reason="model_length")),
        {"content": "a b", "reason": "length"},
    ),
    "no index of the choice": (
        Reply(body={"choices": [{"message": {"content": "a b"}, "finish_reason": "stop"}]}),
        sse(ANSWER.replace('"index": 0, ', ""), END, "[DONE]"),
        {"content": "a b", "reason": "stop"},
    ),
    "content as parts": (
        body({"content": [{"type": "text", "text": "a b"}]}),
        Reply(raw=stream_of({"content": [{"type": "text", "text": "a b"}]})),
        {"content": "a b", "reason": "stop"},
    ),
}


@pytest.mark.parametrize("form", ["whole", "stream", "stream for whole"])
@pytest.mark.parametrize("name", ODD)
async def test_odd_answers_are_kept(up, upstream, name, form):
    whole, streamed, expected = ODD[name]
    expected = dict(expected)
    stream = form == "stream"
    reply = whole if form == "whole" else streamed
    found = await said(up, upstream, reply, stream=stream, **TOOLS)
    if (tokens := expected.pop("tokens", None)) is not None:
        usage = found["usage"]
        assert (usage["prompt_tokens"], usage["completion_tokens"]) == tokens
    if (calls := expected.pop("calls", None)) is not None:
        told = found["tool_calls"]
        assert [(c["function"]["name"], c["function"]["arguments"]) for c in told] == calls
        assert len({call["id"] for call in told}) == len(calls)
        assert "content" not in found
    assert {key: found[key] for key in expected} == expected


FAILED = {
    "an error in a 200 body": (
        Reply(body={"error": {"message": "overloaded", "code": 503}}),
        Reply(stream_error={"message": "overloaded", "code": 503}, text=""),
    ),
    "no choices": (Reply(body={"choices": []}), sse('{"choices": []}', "[DONE]")),
    "[DONE] in quotes without an answer": (Reply(body={}), sse('"[DONE]"')),
    "text behind [DONE] without an end": (Reply(body={}), sse("[DONE] x")),
    "no object": (Reply(body=[1]), sse("[1]")),
    "no JSON": (Reply(wire=b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nno"), sse("no")),
}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("name", FAILED)
async def test_what_is_no_answer_fails_over_in_both_forms(up, upstream, name, stream):
    upstream.script(FAILED[name][stream])
    reply = await up.client.post(CHAT, chat(stream=stream))
    assert reply.status == 200
    assert reply.headers["x-waypost-attempts"] == "2"
    assert reply.headers["x-waypost-model"] != "cook"


async def test_an_end_that_is_none_after_half_an_answer_is_an_error_event(up, upstream):
    upstream.script(Reply(raw=f'data: {ANSWER}\n\ndata: "[DONE]"\n\n'.encode(), split=64))
    reply = await up.client.post(CHAT, chat(model="cook", stream=True))
    assert "error" in reply.events()[-1]
    upstream.script(sse(ANSWER, '"[DONE]"'))
    reply = await up.client.post(CHAT, chat())
    assert reply.headers["x-waypost-model"] != "cook"
