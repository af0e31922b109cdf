"""What the gateway refuses, over ASGI: hostile and wrong requests, each told in OpenAI's form."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from support.asgi import Client
from support.gateway import COOKING, chat, echo_pool, running
from waypost.contracts.generation import Chunk
from waypost.serve.backends.dispatcher import local_llm, local_router
from waypost.serve.gateway.app import Gateway

CHAT = "/v1/chat/completions"

pytestmark = pytest.mark.asyncio(loop_scope="module")


# one gateway for all wrong requests: they change nothing in it
@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def client(artifact) -> AsyncIterator[Client]:
    async with running(artifact) as up:
        yield up.client


def is_error(reply, status: int, param: str | None = None) -> str:
    """Check OpenAI's error body; return its message."""
    assert reply.status == status, reply.body
    error = reply.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["param"] == param
    return error["message"]


# bodies


async def test_a_body_that_is_too_long_is_413_by_its_length_or_its_bytes(artifact):
    async with running(artifact, limits={"max_body_bytes": 1000}) as up:
        body = json.dumps(chat("x" * 2000)).encode()
        by_length = await up.client.open("POST", CHAT, body, {"content-length": "2000"}).end()
        by_bytes = await up.client.open("POST", CHAT, [body[:900], body[900:]]).end()
        for reply in (by_length, by_bytes):
            assert "longer than 1000 bytes" in is_error(reply, 413)


async def test_a_body_in_parts_is_joined(client):
    body = json.dumps(chat("a b", model="cook")).encode()
    reply = await client.open("POST", CHAT, [body[:10], body[10:20], body[20:]]).end()
    assert reply.json()["choices"][0]["message"]["content"] == "a b"


async def test_a_body_that_does_not_come_is_408(artifact):
    async with running(artifact, limits={"body_timeout_s": 0.05}) as up:
        is_error(await up.client.open("POST", CHAT, []).end(), 408)


async def test_a_body_on_its_way_holds_no_place(artifact):
    limits = {"max_in_flight": 1, "max_queued": 0, "body_timeout_s": 5}
    async with running(artifact, limits=limits) as up:
        slow = [up.client.open("POST", CHAT, []) for _ in range(3)]
        await asyncio.sleep(0.01)
        assert (await up.client.post(CHAT, chat())).status == 200
        for connection in slow:
            connection.go_away()
            await connection.end()


async def test_answers_beyond_the_limit_are_refused(artifact):
    async with running(artifact, limits={"max_choices": 2}) as up:
        is_error(await up.client.post(CHAT, chat(n=3)), 400, "n")
        prompts = {"prompt": ["a", "b"], "n": 2}
        is_error(await up.client.post("/v1/completions", prompts), 400, "n")


# wrong requests


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b'"text"',
        b"\xff\xfe",
        b'{"messages": [{"role": "user", "content": "\xff"}]}',
        b'{"messages": [{"role": "user", "content": "\\ud800"}]}',
        b'{"temperature": NaN}',
        b'{"temperature": Infinity}',
        b"[" * 60_000,
        b'{"a":' * 5_000,
        b'{"seed": ' + b"9" * 5_000 + b"}",
    ],
    ids=lambda raw: raw[:20].decode("latin-1"),
)
@pytest.mark.parametrize("path", [CHAT, "/v1/completions", "/v1/route", "/v1/feedback"])
async def test_what_is_no_json_object_is_400(client, path, raw):
    is_error(await client.post(path, raw), 400)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"messages": None}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": "hello"}, "messages"),
        ({"messages": [1]}, "messages[0]"),
        ({"messages": [{"content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "king", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user"}]}, "messages[0]"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": []}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages[0].content[0]"),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": 1}]}]},
         "messages[0].content[0].text"),
        ({"model": 7}, "model"),
        ({"model": ""}, "model"),
        ({"temperature": "hot"}, "temperature"),
        ({"temperature": 3}, "temperature"),
        ({"temperature": True}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 1.5}, "max_tokens"),
        ({"max_tokens": 10**400}, "max_tokens"),
        ({"seed": 2**70}, "seed"),
        ({"n": 0}, "n"),
        ({"stop": ["a"] * 5}, "stop"),
        ({"stop": 1}, "stop"),
        ({"stream": "yes"}, "stream"),
        ({"tools": [{"type": "function"}]}, "tools[0]"),
        ({"waypost": {"lambda": -1}}, "waypost.lambda"),
        ({"waypost": {"lamda": 1}}, "waypost.lamda"),
        ({"waypost": {"allowed_models": ["nobody"]}}, "waypost.allowed_models"),
        ({"waypost": {"allowed_models": []}}, "waypost.allowed_models"),
        ({"waypost": {"max_cost_usd": 0}}, "waypost.max_cost_usd"),
        ({"waypost": {"extra": {"top_k": 2**70}}}, "waypost.extra.top_k"),
        ({"top_logprobs": 21}, "top_logprobs"),
        ({"modalities": ["audio"]}, "modalities[0]"),
        ({"functions": []}, "functions"),
        ({"temprature": 1}, "temprature"),
    ],
    ids=str,
)  # fmt: skip
async def test_a_wrong_field_is_named(client, fields, param):
    is_error(await client.post(CHAT, chat() | fields), 400, param)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"messages": []}, "messages: empty; expected at least one"),
        ({"messages": [{"content": "x"}]}, "messages[0].role: missing; it is required"),
        ({"messages": [1]}, "messages[0]: expected keys and values"),
        ({"temperature": "hot"}, "temperature: expected a number"),
        ({"temperature": 3}, "temperature: expected a number of at most 2"),
        ({"top_p": 0}, "top_p: expected a number of more than 0"),
        ({"n": 1.5}, "n: expected a whole number"),
        ({"stream": "yes"}, "stream: expected true or false"),
        ({"model": ""}, "model: empty; expected at least one character"),
        ({"stop": ["a"] * 5}, "stop: expected text or expected at most 4 entries"),
        ({"waypost": {"lambda": -1}}, "waypost.lambda: expected a number of at least 0"),
        ({"waypost": {"lamda": 1}}, "waypost.lamda: unknown field (did you mean 'lambda'?)"),
        (
            {"waypost": {"x": 1}},
            "waypost.x: unknown field; there are lambda, max_cost_usd, allowed_models, user_id, "
            "session_id, session_token, route_on, top_k, extra, progress, explain",
        ),
        (
            {"temprature": 1},
            "temprature: unknown field (did you mean 'temperature'?); fields of an engine that "
            "OpenAI's API lacks belong under waypost.extra",
        ),
    ],
    ids=str,
)
async def test_a_message_has_the_words_of_the_config_checks(client, fields, expected):
    reply = await client.post(CHAT, chat() | fields)
    assert reply.json()["error"]["message"] == expected


async def test_every_wrong_field_is_told_at_once(client):
    body = chat(temperature="hot", n=0, stream="yes")
    message = is_error(await client.post(CHAT, body), 400, "stream")
    assert all(f"{name}: " in message for name in ("temperature", "n", "stream"))


async def test_a_message_holds_nothing_of_what_the_user_wrote(client):
    secret = "my private words"
    for body in (chat(secret, temperature=secret), {"messages": [{"role": secret}], "n": secret}):
        reply = await client.post(CHAT, body)
        assert reply.status == 400
        assert secret.encode() not in reply.body


async def test_infinity_in_a_free_field_is_refused(client):
    body = b'{"messages": [{"role": "user", "content": "x"}], "response_format": {"a": [1, 1e999]}}'
    is_error(await client.post(CHAT, body), 400, "response_format.a[1]")


async def test_an_unknown_name_in_a_header_is_refused_though_the_body_overrules_it(client):
    body = chat(waypost={"allowed_models": ["cook"]})
    for names, status in (("cook,nobody", 400), ("tiny", 200)):
        reply = await client.post(CHAT, body, x_waypost_allowed_models=names)
        assert reply.status == status, reply.body


async def test_an_unknown_model_is_404_and_lists_the_known(client):
    message = is_error(await client.post(CHAT, chat(model="gpt-9")), 404, "model")
    assert "auto, knnrouter, cook, prover, tiny" in message


async def test_a_pinned_model_outside_the_allowed_is_refused(client):
    body = chat(model="cook", waypost={"allowed_models": ["tiny"]})
    is_error(await client.post(CHAT, body), 400, "model")


async def test_an_image_needs_a_model_behind_http(client):
    parts = [
        {"type": "image_url", "image_url": {"url": "data:"}},
        {"type": "text", "text": "what?"},
    ]
    body = chat() | {"messages": [{"role": "user", "content": parts}]}
    assert "images" in is_error(await client.post(CHAT, body), 400, "messages")


async def test_an_image_goes_to_the_models_behind_http_only(artifact):
    pool = echo_pool()
    config = {"base_url": "http://127.0.0.1:9/v1", "model": "m"}
    pool[2] = {"name": "tiny", "engine": "openai", "placement": "inline", "config": config}
    parts = [{"type": "image_url", "image_url": {"url": "data:"}}]
    async with running(artifact, pool=pool) as up:
        body = {"messages": [{"role": "user", "content": parts}]}
        assert (await up.client.post("/v1/route", body)).json()["ranking"] == ["tiny"]


@pytest.mark.parametrize("value", ["x", "nan", "inf", "-1", ""])
async def test_a_wrong_header_is_named(client, value):
    reply = await client.post(CHAT, chat(), x_waypost_lambda=value)
    is_error(reply, 400, "x-waypost-lambda")


async def test_other_paths_and_methods_have_openais_errors(client):
    is_error(await client.get("/v2/models"), 404)
    wrong = await client.open("DELETE", "/v1/models").end()
    is_error(wrong, 405)
    assert wrong.headers["allow"] == "GET"
    is_error(await client.get(CHAT), 405)


async def test_a_compressed_body_is_415(client):
    is_error(await client.post(CHAT, b"\x1f\x8b", content_encoding="gzip"), 415)


async def test_a_completion_refuses_what_it_cannot_do(client):
    for field, value in (("echo", True), ("best_of", 2), ("suffix", "x"), ("logprobs", 6)):
        reply = await client.post("/v1/completions", {"prompt": "a", field: value})
        is_error(reply, 400, field)
    is_error(await client.post("/v1/completions", {"prompt": [1, 2]}), 400, "prompt[0]")


async def test_route_takes_a_query_or_messages(client):
    for body in ({}, {"query": "x", **chat()}):
        is_error(await client.post("/v1/route", body), 400)


# headers


async def test_no_name_can_inject_a_header(artifact):
    pool = echo_pool()
    async with running(artifact, pool=pool) as up:
        plan = up.plan
        router = local_router(plan)
        await router.start()
        decide = router.decide

        async def poisoned(query, name):
            from dataclasses import replace

            reason = "fine\r\nx-evil: 1\n\x00 schön \u2028"
            routed = await decide(query, name)
            evil = replace(routed.decision, reason=reason, router="r\r\nset-cookie: a=b")
            return replace(routed, decision=evil)

        router.decide = poisoned
        gateway = Gateway(plan, router, local_llm)
        await gateway.start()
        reply = await Client(gateway).post(CHAT, chat())
        await gateway.close()
        assert reply.status == 200
        for name, value in reply.raw:
            assert b"\r" not in name + value
            assert b"\n" not in name + value
            (name + value).decode("ascii")
        assert not {"x-evil", "set-cookie"} & set(reply.headers)


async def test_what_a_local_model_ignores_is_told(client):
    reply = await client.post(CHAT, chat(response_format={"type": "text"}, user="u"))
    assert reply.headers["x-waypost-ignored"] == "response_format, user"
    assert "x-waypost-ignored" not in (await client.post(CHAT, chat())).headers


async def test_half_a_surrogate_pair_from_an_engine_does_not_break_the_answer(artifact):
    async with running(artifact) as up:

        class Half:
            loading = up.llms["cook"].loading

            async def start(self): ...

            async def close(self): ...

            async def stream(self, request, pace):
                from waypost.contracts.generation import Usage

                yield [Chunk("\ud83d"), Chunk(finish_reason="stop", usage=Usage(1, 1))]

        gateway = Gateway(up.plan, local_router(up.plan), lambda _: Half())
        await gateway.start()
        reply = await Client(gateway).post(CHAT, chat(COOKING, stream=True))
        assert reply.events()[-1] == "[DONE]"
        await gateway.close()
