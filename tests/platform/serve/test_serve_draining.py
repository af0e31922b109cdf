"""The end of the gateway's own HTTP server: what is under way finishes, nothing else begins."""

from __future__ import annotations

import asyncio
import json
import time

import pytest

from support.gateway import chat
from support.ingress import Listening, listening
from support.raw_http import read_reply, request_bytes

CHAT = "/v1/chat/completions"


def body(**fields) -> bytes:
    return request_bytes(CHAT, json.dumps(chat("a", model="cook", **fields)).encode())


def paced(tokens: int) -> list[dict]:
    config = {"tokens": tokens, "tokens_per_s": 20}
    return [{"name": "cook", "engine": "echo", "placement": "inline", "config": config}]


async def ask(server: Listening, data: bytes):
    reader, writer = await server.connect()
    writer.write(data)
    await writer.drain()
    return reader, writer


async def until_at_work(server: Listening, count: int) -> None:
    async with asyncio.timeout(30):
        while server.up.gateway.closing.open < count:
            await asyncio.sleep(0.01)


async def test_what_is_under_way_finishes_and_tells_the_client_to_close(artifact):
    async with listening(artifact, pool=paced(20)) as server:
        whole, of_whole = await ask(server, body())
        stream, of_stream = await ask(server, body(stream=True))
        idle, of_idle = await server.connect()
        await until_at_work(server, 2)
        draining = asyncio.create_task(server.server.drain(60))
        await asyncio.sleep(0.1)
        with pytest.raises(ConnectionRefusedError):
            await server.connect()
        reply = await read_reply(whole)
        assert reply.status == 200
        assert reply.header("connection") == "close"
        assert (await read_reply(stream)).body.endswith(b"data: [DONE]\n\n")
        assert await idle.read() == b""
        await asyncio.wait_for(draining, 30)
        assert server.server.connections == 0
        for writer in (of_whole, of_stream, of_idle):
            writer.close()


async def test_a_request_on_an_idle_connection_is_answered_once_more(artifact):
    async with listening(artifact) as server:
        reader, writer = await ask(server, body())
        assert (await read_reply(reader)).header("connection") is None
        draining = asyncio.create_task(server.server.drain(60))
        await asyncio.sleep(0.05)
        writer.write(body())
        reply = await read_reply(reader)
        assert (reply.status, reply.header("connection")) == (200, "close")
        assert await reader.read() == b""
        await asyncio.wait_for(draining, 30)
        writer.close()


async def test_a_connection_whose_stream_had_begun_takes_one_more_request(artifact):
    async with listening(artifact, pool=paced(20)) as server:
        reader, writer = await ask(server, body(stream=True))
        head = await reader.readuntil(b"\r\n\r\n")
        assert b"connection: close" not in head
        draining = asyncio.create_task(server.server.drain(60))
        await reader.readuntil(b"[DONE]\n\n\r\n0\r\n\r\n")
        writer.write(body())
        reply = await read_reply(reader)
        assert (reply.status, reply.header("connection")) == (200, "close")
        await asyncio.wait_for(draining, 30)
        writer.close()


async def test_what_is_not_finished_in_time_ends_as_by_a_stop(artifact):
    async with listening(artifact, pool=paced(10_000)) as server:
        stream, of_stream = await ask(server, body(stream=True))
        whole, of_whole = await ask(server, body())
        await until_at_work(server, 2)
        begin = time.monotonic()
        await server.server.drain(0.3)
        assert time.monotonic() - begin < 30
        *_, last = (await read_reply(stream)).body.strip().split(b"\n\n")
        assert json.loads(last.removeprefix(b"data: "))["error"]["code"] == "server_stopping"
        reply = await read_reply(whole)
        assert (reply.status, reply.header("retry-after")) == (503, "1")
        for writer in (of_stream, of_whole):
            writer.close()
