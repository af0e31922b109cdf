"""Whose fault a refusal is: that of one LLM passes to the next, that of all is the request's."""

from __future__ import annotations

import pytest

from support.fake_upstream import FakeUpstream, Reply
from support.gateway import chat, echo_pool, running

CHAT = "/v1/chat/completions"
LACKS = [
    "max_tokens is too large: 32000. This model supports at most 16384 completion tokens.",
    "'temperature' does not support 0.2 with this model.",
    "This model does not support tools",
    "This response_format type is unavailable now",
]
LONG = "prompt is too long: 205000 tokens > 200000 maximum"


def refusal(message: str, status: int = 400, **fields) -> Reply:
    error = {"message": message, "type": "invalid_request_error"} | fields
    return Reply(status=status, body={"error": error})


@pytest.fixture
async def upstream():
    async with FakeUpstream() as server:
        yield server


def entry(upstream: FakeUpstream, name: str, **config) -> dict:
    config = {"base_url": upstream.url, "model": "real", "max_retries": 0, **config}
    return {"name": name, "engine": "openai", "placement": "inline", "config": config}


@pytest.fixture
async def up(artifact, upstream):
    async with running(artifact, pool=[entry(upstream, "cook"), *echo_pool()[1:]]) as found:
        yield found


@pytest.fixture
async def alone(artifact, upstream):
    pool = [entry(upstream, name) for name in ("cook", "prover", "tiny")]
    async with running(artifact, pool=pool) as found:
        yield found


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("message", [*LACKS, LONG])
async def test_what_one_llm_lacks_another_may_have(up, upstream, message, stream):
    upstream.script(refusal(message))
    reply = await up.client.post(CHAT, chat(stream=stream))
    assert (reply.status, reply.headers["x-waypost-attempts"]) == (200, "2")
    assert reply.headers["x-waypost-model"] != "cook"


async def test_a_type_alone_tells_a_context_exceeded(up, upstream):
    upstream.script(refusal("x", type="exceed_context_size_error"))
    reply = await up.client.post(CHAT, chat())
    assert (reply.status, reply.headers["x-waypost-attempts"]) == (200, "2")


async def test_where_every_llm_refuses_every_reason_is_told(alone, upstream):
    upstream.script(*(refusal(message) for message in LACKS[:3]))
    reply = await alone.client.post(CHAT, chat())
    error = reply.json()["error"]
    assert (reply.status, error["code"], error["type"]) == (
        400,
        "refused_by_model",
        "invalid_request_error",
    )
    assert all(message.rstrip(".") in error["message"] for message in LACKS[:3])
    assert all(name in error["message"] for name in ("cook", "prover", "tiny"))
    assert reply.headers["x-waypost-attempts"] == "3"


async def test_where_it_is_too_long_for_all_the_code_says_so(alone, upstream):
    upstream.default = refusal(LONG)
    reply = await alone.client.post(CHAT, chat())
    assert (reply.status, reply.json()["error"]["code"]) == (400, "context_length_exceeded")


async def test_reasons_of_several_kinds_are_the_requests_too(alone, upstream):
    upstream.script(refusal(LONG), refusal(LACKS[2]), refusal("Content Exists Risk"))
    reply = await alone.client.post(CHAT, chat())
    assert (reply.status, reply.json()["error"]["code"]) == (400, "refused_by_model")


async def test_what_failed_otherwise_is_not_the_requests_fault(alone, upstream):
    upstream.script(refusal(LACKS[2]), refusal("broken", 500), refusal("no such model", 404))
    reply = await alone.client.post(CHAT, chat())
    assert (reply.status, reply.json()["error"]["code"]) == (502, "all_models_failed")


async def test_a_request_at_fault_is_told_with_what_came_before(alone, upstream):
    upstream.script(refusal(LACKS[2]), refusal("messages: expected a list"))
    reply = await alone.client.post(CHAT, chat())
    message = reply.json()["error"]["message"]
    assert reply.status == 400
    assert "does not support tools" in message
    assert "expected a list" in message
    assert len(upstream.requests) == 2


async def test_an_llm_that_is_named_tells_what_it_lacks(up, upstream):
    upstream.script(refusal(LACKS[2]))
    reply = await up.client.post(CHAT, chat(model="cook"))
    assert (reply.status, reply.json()["error"]["code"]) == (400, "refused_by_model")
    assert len(upstream.requests) == 1


async def test_what_an_llm_lacks_does_not_let_it_rest(up, upstream):
    upstream.script(*(refusal(LACKS[2]) for _ in range(5)))
    for _ in range(5):
        await up.client.post(CHAT, chat())
    reply = await up.client.post(CHAT, chat())
    assert (reply.headers["x-waypost-model"], reply.headers["x-waypost-attempts"]) == ("cook", "1")


async def test_the_file_adds_lines(artifact, upstream):
    own = [{"about": "llm", "wording": "only on weekdays"}]
    pool = [entry(upstream, "cook", refusals=own), *echo_pool()[1:]]
    async with running(artifact, pool=pool) as up:
        upstream.script(refusal("Served only on weekdays"))
        reply = await up.client.post(CHAT, chat())
        assert (reply.status, reply.headers["x-waypost-attempts"]) == (200, "2")
