"""Forms of requests that clients are known to send, and what of them reaches an upstream."""

from __future__ import annotations

import json

import pytest

from support.fake_upstream import FakeUpstream, Reply
from support.gateway import chat, echo_pool, running

CHAT = "/v1/chat/completions"
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
PARTS = [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]


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


@pytest.mark.parametrize(
    "messages",
    [
        [{"role": "developer", "content": "be brief"}, {"role": "user", "content": "x"}],
        [{"role": "developer", "content": PARTS}, {"role": "user", "content": PARTS}],
        [
            {"role": "user", "content": "x", "name": "Ann"},
            {"role": "assistant", "content": None, "tool_calls": [CALL]},
            {"role": "tool", "tool_call_id": "c", "content": PARTS},
        ],
        [
            {"role": "user", "content": "x"},
            {"role": "assistant", "content": [{"type": "refusal", "refusal": "no"}]},
            {"role": "user", "content": "why"},
        ],
        [
            {"role": "user", "content": "x"},
            {"role": "assistant", "content": None, "refusal": "no", "audio": None},
            {"role": "user", "content": ""},
        ],
        [
            {"role": "user", "content": "x"},
            {"role": "assistant", "content": "", "tool_calls": None},
        ],
    ],
    ids=["developer", "parts", "tool in parts", "refusal part", "refusal", "no text"],
)
async def test_messages_go_on_as_they_are(up, upstream, messages):
    reply = await up.client.post(CHAT, {"model": "cook", "messages": messages})
    assert reply.status == 200
    assert upstream.requests[0].body["messages"] == messages
    local = await up.client.post(CHAT, {"model": "prover", "messages": messages})
    assert local.status == 200


@pytest.mark.parametrize(
    "fields",
    [
        {"service_tier": "flex", "store": False, "metadata": {"a": "b"}, "seed": 1},
        {"tools": [TOOL], "tool_choice": "auto", "parallel_tool_calls": False},
        {"logprobs": True, "top_logprobs": 2},
        {"reasoning_effort": "none", "verbosity": "low", "prompt_cache_key": "k", "user": "u"},
        {"modalities": ["text"], "frequency_penalty": 0, "logit_bias": {"1": 5}},
    ],
    ids=str,
)
async def test_fields_go_on(up, upstream, fields):
    reply = await up.client.post(CHAT, chat("x", model="cook", **fields))
    assert reply.status == 200
    body = upstream.requests[0].body
    wanted = {k: v for k, v in fields.items() if k != "modalities"}
    assert {k: body.get(k) for k in wanted} == wanted


@pytest.mark.parametrize(
    "fields",
    [
        dict.fromkeys(("stop", "n", "stream", "stream_options", "tools", "tool_choice", "seed")),
        dict.fromkeys(("logprobs", "top_logprobs", "max_tokens", "user", "metadata", "store")),
        {"tools": [], "tool_choice": "auto", "parallel_tool_calls": True},
        {"logprobs": False, "user": "", "stop": []},
    ],
    ids=str,
)
async def test_what_says_nothing_does_not_go_on(up, upstream, fields):
    reply = await up.client.post(CHAT, chat("x", model="cook", **fields))
    assert reply.status == 200
    ours = {"stream", "stream_options"}
    assert not {*upstream.requests[0].body} & {*fields} - ours - {"user"}


async def test_log_probabilities_come_back_whole_and_streamed(up, upstream):
    told = {"content": [{"token": "a", "logprob": -0.1, "bytes": [97], "top_logprobs": []}]}
    choice = {"index": 0, "delta": {"content": "a"}, "logprobs": told, "finish_reason": None}
    upstream.script(*2 * [Reply(raw=_stream(choice))])
    body = chat("x", model="cook", logprobs=True)
    whole = await up.client.post(CHAT, body)
    assert whole.json()["choices"][0]["logprobs"] == told
    stream = await up.client.post(CHAT, body | {"stream": True})
    found = [event["choices"][0]["logprobs"] for event in stream.events()[:-1]]
    assert [one for one in found if one] == [told]
    local = await up.client.post(CHAT, chat("x", model="prover", logprobs=True, top_logprobs=1))
    assert local.headers["x-waypost-ignored"] == "logprobs, top_logprobs"


def _stream(choice: dict) -> bytes:
    end = {"index": 0, "delta": {}, "finish_reason": "stop"}
    events = [{"id": "a", "choices": [one]} for one in (choice, end)]
    lines = [b"data: " + json.dumps(event).encode() + b"\n\n" for event in events]
    return b"".join([*lines, b"data: [DONE]\n\n"])


@pytest.mark.parametrize("path", [CHAT + "/", "/v1//chat/completions", "/v1/models/"])
async def test_paths_with_a_slash_too_many(up, path):
    post = "chat" in path
    reply = await (up.client.post(path, chat("x")) if post else up.client.get(path))
    assert reply.status == 200
