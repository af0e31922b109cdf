"""The gateway's own HTTP server over sockets: what it reads, refuses and bounds."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from support.gateway import chat
from support.hostile import check_error
from support.ingress import Listening, listening
from support.raw_http import RawReply, exchange, read_reply, request_bytes
from waypost.serve.gateway import wire

pytestmark = pytest.mark.asyncio(loop_scope="module")

CHAT = "/v1/chat/completions"
BODY = json.dumps(chat("hello", model="cook")).encode()
BODY_TIMEOUT_S = 0.5


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server(artifact) -> AsyncIterator[Listening]:
    async with listening(artifact, limits={"body_timeout_s": BODY_TIMEOUT_S}) as found:
        yield found


def get(path: str, method: str = "GET") -> bytes:
    return request_bytes(path, method=method)


async def one(server: Listening, data: bytes | list[bytes]) -> RawReply:
    (found,) = await exchange(server.url, data)
    assert found.status < 500, found
    return found


def answer(reply: RawReply) -> str:
    assert reply.status == 200, reply
    return reply.json()["choices"][0]["message"]["content"]


async def test_an_answer_has_a_date_a_request_id_and_no_name_of_the_server(server):
    reply = await one(server, request_bytes(CHAT, BODY))
    assert answer(reply) == "hello"
    assert reply.header("date").endswith(" GMT")
    assert reply.header("server") is None
    assert reply.header("x-request-id") == reply.header("x-waypost-request-id")
    told = await one(server, request_bytes(CHAT, BODY, [("x-request-id", "mine")]))
    assert told.header("x-request-id") == "mine"


async def test_a_stream_comes_in_parts_and_ends(server):
    body = json.dumps(chat("a b c", model="cook", stream=True)).encode()
    reply = await one(server, request_bytes(CHAT, body))
    assert reply.header("transfer-encoding") == "chunked"
    assert reply.body.endswith(b"data: [DONE]\n\n")


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 64,
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET /healthz HTTP/9.9\r\nhost: x\r\n\r\n",
        request_bytes("healthz", BODY),
        request_bytes("/" + "a" * 100_000, BODY),
        request_bytes("/\xff", BODY),
        get("/healthz", "BREW"),
        get("/healthz", "A" * 1000),
        request_bytes(CHAT, BODY, [("content-length", "-1")]),
        request_bytes(CHAT, BODY, [("content-length", "9" * 30)]),
        request_bytes(CHAT, BODY, [("content-length", "40"), ("content-length", "3")]),
        request_bytes(CHAT, b"0\r\n\r\n", [("content-length", "5"),
                                           ("transfer-encoding", "chunked")]),
        request_bytes(CHAT, b"zz\r\n", [("transfer-encoding", "chunked")]),
        request_bytes(CHAT, BODY, [("x-waypost-user-id", "a\0b")]),
        request_bytes(CHAT, BODY, [("x waypost", "a")]),
    ],
    ids=lambda data: data[:40].decode("latin-1"),
)  # fmt: skip
async def test_what_is_no_http_is_400_in_openais_form(server, data):
    reply = await one(server, data)
    assert (reply.status, check_error(400, reply.body)["code"]) == (400, "no_http")
    assert reply.header("connection") == "close"


async def test_a_head_that_is_too_long_is_refused_before_it_has_arrived(server):
    reply = await one(server, request_bytes(CHAT, BODY, [("cookie", "a," * 5_000_000)]))
    assert (reply.status, check_error(431, reply.body)["code"]) == (431, "headers_too_long")
    many = [(f"x-{i}", "a") for i in range(10_000)]
    assert (await one(server, request_bytes(CHAT, BODY, many))).status == 431


async def test_a_head_that_drips_is_ended(server, monkeypatch):
    monkeypatch.setattr(wire, "HEAD_TIMEOUT_S", 0.5)
    reader, writer = await server.connect()
    silent, of_silent = await server.connect()
    for byte in b"GET /healthz":
        writer.write(bytes([byte]))
        await asyncio.sleep(0.01)
    async with asyncio.timeout(30):
        reply = await read_reply(reader)
        assert await silent.read() == b""
    assert reply is not None
    assert (reply.status, check_error(408, reply.body)["code"]) == (408, "slow_head")
    writer.close()
    of_silent.close()


async def test_requests_in_a_row_are_answered_in_order_and_what_is_none_at_the_end(server):
    texts = [f"number {i}" for i in range(5)]
    bodies = [json.dumps(chat(text, model="cook")).encode() for text in texts]
    data = b"".join(request_bytes(CHAT, body) for body in bodies)
    assert [answer(reply) for reply in await exchange(server.url, data, answers=5)] == texts
    found = await exchange(server.url, data + b"\0\0\r\n\r\n", answers=7)
    assert [answer(reply) for reply in found] == texts


async def test_a_fault_behind_a_stream_does_not_break_into_it(artifact):
    pool = [{"name": "cook", "engine": "echo", "placement": "inline",
             "config": {"tokens": 5, "tokens_per_s": 20}}]  # fmt: skip
    async with listening(artifact, pool=pool) as slow:
        body = json.dumps(chat("a", model="cook", stream=True)).encode()
        (reply,) = await exchange(slow.url, request_bytes(CHAT, body) + b"\0\r\n", answers=2)
    assert reply.status == 200
    assert reply.body.endswith(b"data: [DONE]\n\n")
    assert b"no_http" not in reply.body


@pytest.mark.parametrize("chunked", [False, True])
async def test_an_upgrade_is_declined_and_the_body_kept(server, chunked):
    upgrade = [("connection", "Upgrade, HTTP2-Settings"), ("upgrade", "h2c"),
               ("http2-settings", "AAEAAEAAAAIAAAABAAMAAABkAAQBAAAAAAUAAEAA")]  # fmt: skip
    body = BODY
    if chunked:
        upgrade.append(("transfer-encoding", "chunked"))
        body = b"%x\r\n%s\r\n0\r\n\r\n" % (len(BODY), BODY)
    data = request_bytes(CHAT, body, upgrade)
    for parts in ([data + get("/healthz")], [data[:-20], data[-20:] + get("/healthz")]):
        first, second = await exchange(server.url, parts, answers=2)
        assert answer(first) == "hello"
        assert second.json() == {"status": "ok"}


async def test_a_websocket_is_declined(server):
    headers = [("connection", "upgrade"), ("upgrade", "websocket"),
               ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
               ("sec-websocket-version", "13")]  # fmt: skip
    reply = await one(server, request_bytes(CHAT, b"", headers, "GET"))
    assert (reply.status, check_error(405, reply.body)["code"]) == (405, "method_not_allowed")


@pytest.mark.parametrize("method", ["OPTIONS", "TRACE", "DELETE", "PUT", "PATCH", "CONNECT"])
async def test_other_methods_are_405(server, method):
    for path in (CHAT, "/v1/models"):
        reply = await one(server, request_bytes(path, method=method))
        assert (reply.status, check_error(405, reply.body)["code"]) == (405, "method_not_allowed")


async def test_a_body_is_bounded_in_length_and_time(server):
    declared = request_bytes(CHAT, b"{", [("content-length", "50000000")])
    assert (await one(server, declared)).status == 413
    part = b"%x\r\n%s\r\n" % (65536, b"x" * 65536)
    chunked = request_bytes(CHAT, part, [("transfer-encoding", "chunked")])
    assert (await one(server, [chunked, *[part] * 100, b"0\r\n\r\n"])).status == 413
    longer = request_bytes(CHAT, BODY, [("content-length", str(len(BODY) + 1))])
    assert (await one(server, longer)).status == 408


async def test_an_expected_continue_is_answered(server):
    assert (
        await one(server, request_bytes(CHAT, BODY, [("expect", "100-continue")]))
    ).status == 200
    huge = [("expect", "100-continue"), ("content-length", "50000000")]
    assert (await one(server, request_bytes(CHAT, b"", huge))).status == 413


async def test_slow_bodies_do_not_fill_the_gate(artifact):
    limits = {"max_in_flight": 1, "max_queued": 0, "body_timeout_s": 60}
    async with listening(artifact, limits=limits) as narrow:
        slow = [await narrow.connect() for _ in range(50)]
        for _, writer in slow:
            writer.write(request_bytes(CHAT, BODY)[:-5])
            await writer.drain()
        assert answer(await one(narrow, request_bytes(CHAT, BODY))) == "hello"
        for _, writer in slow:
            writer.close()


async def test_only_paths_below_the_route_prefix_are_served(artifact):
    async with listening(artifact, prefix="/app") as found:
        assert (await one(found, get("/app/v1/models"))).status == 200
        for path in ("/v1/models", "/apple/v1/models", "/apple", "/"):
            assert (await one(found, get(path))).status == 404
