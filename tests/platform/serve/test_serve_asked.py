"""What clients send: limits of tokens, fields of newer clients, unknown fields, other origins."""

from __future__ import annotations

import pytest
from openai.types.chat.completion_create_params import CompletionCreateParamsBase
from openai.types.completion_create_params import CompletionCreateParamsBase as TextParams

from support.fake_upstream import FakeUpstream
from support.gateway import chat, echo_pool, running
from waypost.config import parse
from waypost.contracts.errors import ConfigError
from waypost.serve.config import ServeArgs
from waypost.serve.gateway.schemas import ChatBody, CompletionBody

CHAT = "/v1/chat/completions"
PAGE = "https://app.example.com"


@pytest.fixture
async def upstream():
    async with FakeUpstream() as server:
        yield server


def pool(upstream: FakeUpstream, **fields) -> list[dict]:
    config = {"base_url": upstream.url, "model": "real", "max_retries": 0}
    cook = {"name": "cook", "engine": "openai", "placement": "inline", "config": config}
    return [cook | fields, *echo_pool()[1:]]


# Row 32


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("field", ["max_tokens", "max_completion_tokens"])
async def test_a_limit_of_tokens_is_lowered_to_the_llms_own_and_named(
    artifact, upstream, field, stream
):
    async with running(artifact, pool=pool(upstream, max_tokens=4096)) as up:
        fields = {field: 32_000, "stream": stream}
        reply = await up.client.post(CHAT, chat("x", model="cook", **fields))
        assert (reply.status, reply.headers["x-waypost-ignored"]) == (200, field)
        reply = await up.client.post(CHAT, chat("x", model="cook", **(fields | {field: 4096})))
        assert "x-waypost-ignored" not in reply.headers
        assert [one.body["max_tokens"] for one in upstream.requests] == [4096, 4096]


async def test_without_a_limit_of_its_own_an_llm_has_the_servers(artifact, upstream):
    async with running(artifact, pool=pool(upstream), limits={"max_tokens": 2}) as up:
        for model in ("cook", "tiny"):
            body = chat("one two three", model=model, max_tokens=32_000)
            reply = await up.client.post(CHAT, body)
            assert reply.headers["x-waypost-ignored"] == "max_tokens"
            assert reply.json()["choices"][0]["finish_reason"] == "length"
            assert reply.json()["choices"][0]["message"]["content"] == "one two"
        assert upstream.requests[0].body["max_tokens"] == 2


async def test_after_a_failover_the_limit_of_the_llm_that_answers_counts(artifact, upstream):
    llms = pool(upstream, max_tokens=1)
    llms[0]["config"]["base_url"] = "http://127.0.0.1:9/v1"
    async with running(artifact, pool=llms) as up:
        reply = await up.client.post(CHAT, chat(max_tokens=500))
        assert reply.headers["x-waypost-attempts"] == "2"
        assert "x-waypost-ignored" not in reply.headers


async def test_a_request_that_names_no_limit_gets_none(artifact, upstream):
    async with running(artifact, pool=pool(upstream, max_tokens=4096)) as up:
        await up.client.post(CHAT, chat("x", model="cook"))
        assert "max_tokens" not in upstream.requests[0].body


# Row 33


def test_every_field_of_the_newest_client_is_known():
    assert set(CompletionCreateParamsBase.__annotations__) <= set(ChatBody.model_fields)
    assert set(TextParams.__annotations__) <= set(CompletionBody.model_fields)


async def test_fields_of_the_newest_client_pass_to_http_engines(artifact, upstream):
    fields = {
        "prompt_cache_retention": "24h",
        "prompt_cache_options": {"mode": "explicit"},
        "moderation": {"model": "omni-moderation-latest"},
        "tools": [{"type": "custom", "custom": {"name": "run", "format": {"type": "text"}}}],
    }
    async with running(artifact, pool=pool(upstream)) as up:
        reply = await up.client.post(CHAT, chat("x", model="cook", **fields))
        assert reply.status == 200
        assert "x-waypost-ignored" not in reply.headers
        assert fields.items() <= upstream.requests[0].body.items()
        reply = await up.client.post(CHAT, chat("x", model="tiny", **fields))
        named = reply.headers["x-waypost-ignored"].split(", ")
        assert set(fields) - {"tools"} == set(named)


# unknown_fields


@pytest.mark.parametrize("path", [CHAT, "/v1/completions", "/v1/route"])
async def test_unknown_fields_are_refused_by_default(artifact, upstream, path):
    body = {"prompt": "x"} if path == "/v1/completions" else chat("x")
    async with running(artifact, pool=pool(upstream)) as up:
        reply = await up.client.post(path, body | {"reasoning": {"effort": "low"}})
        assert (reply.status, reply.json()["error"]["param"]) == (400, "reasoning")


async def test_unknown_fields_pass_on_where_the_file_says_so(artifact, upstream):
    async with running(artifact, pool=pool(upstream), unknown_fields="pass") as up:
        body = chat("x", model="cook", reasoning={"effort": "low"}, stream_ops=1)
        reply = await up.client.post(CHAT, body)
        assert reply.status == 200
        assert "x-waypost-ignored" not in reply.headers
        sent = upstream.requests[0].body
        assert (sent["reasoning"], sent["stream_ops"]) == ({"effort": "low"}, 1)
        reply = await up.client.post(CHAT, body | {"model": "tiny"})
        assert reply.headers["x-waypost-ignored"] == "reasoning, stream_ops"
        assert (await up.client.post("/v1/route", body)).status == 200


async def test_unknown_fields_are_dropped_and_named_where_the_file_says_so(artifact, upstream):
    async with running(artifact, pool=pool(upstream), unknown_fields="drop") as up:
        for model in ("cook", "tiny"):
            reply = await up.client.post(CHAT, chat("x", model=model, reasoning={"effort": "low"}))
            assert (reply.status, reply.headers["x-waypost-ignored"]) == (200, "reasoning")
        assert "reasoning" not in upstream.requests[0].body


@pytest.mark.parametrize("how", ["pass", "drop"])
async def test_a_known_field_that_is_wrong_is_refused_all_the_same(artifact, upstream, how):
    async with running(artifact, pool=pool(upstream), unknown_fields=how) as up:
        reply = await up.client.post(CHAT, chat("x", temperature=9, other=1))
        assert (reply.status, reply.json()["error"]["param"]) == (400, "temperature")
        reply = await up.client.post(CHAT, chat("x", waypost={"lamda": 1}))
        assert reply.status == 400


# Row 31


def ask_first(client, origin=PAGE, **headers):
    asked = {"origin": origin, "access-control-request-method": "POST"} | headers
    return client.open("OPTIONS", CHAT, b"", asked).end()


async def test_no_origin_is_allowed_by_default(artifact):
    async with running(artifact) as up:
        reply = await ask_first(up.client)
        assert reply.status == 405
        assert not [name for name in reply.headers if name.startswith("access-control")]


async def test_a_page_of_an_allowed_origin_may_ask_and_read(artifact):
    async with running(artifact, cors={"allow_origins": [PAGE]}) as up:
        wanted = {"access-control-request-headers": "authorization,content-type"}
        reply = await ask_first(up.client, **wanted)
        assert (reply.status, reply.body) == (204, b"")
        assert reply.headers["access-control-allow-origin"] == PAGE
        assert reply.headers["access-control-allow-methods"] == "GET, POST, OPTIONS"
        assert reply.headers["access-control-allow-headers"] == "authorization,content-type"
        assert "content-length" not in reply.headers
        for body, status in ((chat("x"), 200), (chat("x", stream=True), 200), ({}, 400)):
            kind = "application/json"
            reply = await up.client.post(CHAT, body, origin=PAGE, content_type=kind)
            assert reply.status == status
            assert reply.headers["access-control-allow-origin"] == PAGE
            assert reply.headers["vary"] == "origin"


async def test_a_page_of_another_origin_may_not(artifact):
    async with running(artifact, cors={"allow_origins": [PAGE]}) as up:
        for origin in ("https://evil.example", f"{PAGE}.evil.example", "null", ""):
            reply = await ask_first(up.client, origin)
            assert reply.status == 405
            reply = await up.client.post(CHAT, chat("x"), origin=origin)
            assert "access-control-allow-origin" not in reply.headers
            assert reply.headers["vary"] == "origin"


async def test_all_origins_may_be_allowed(artifact):
    async with running(artifact, cors={"allow_origins": ["*"]}) as up:
        reply = await ask_first(up.client, "https://any.example")
        assert (reply.status, reply.headers["access-control-allow-origin"]) == (204, "*")
        reply = await up.client.open("OPTIONS", CHAT, b"", {"origin": PAGE}).end()
        assert reply.status == 405  # no preflight request


@pytest.mark.parametrize("origin", ["app.example.com", f"{PAGE}/", f"{PAGE}/path", ""])
def test_what_is_no_origin_is_told(origin):
    args = {"artifact": "a", "pool": echo_pool(), "cors": {"allow_origins": [origin]}}
    with pytest.raises(ConfigError, match="expected an origin"):
        parse(ServeArgs, args, "f")
