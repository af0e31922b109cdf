"""The client of endpoints: what HTTP/1.1 allows, what it does not, which connections are kept."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import pytest
import uvloop

from waypost.engines._http_client import (
    MOST_HELD,
    BrokenAnswerError,
    Connection,
    ConnectTimeoutError,
    HTTPClient,
)

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Coroutine[Any, Any, None]]
OK = b"HTTP/1.1 200 OK\r\n"


@asynccontextmanager
async def serving(serve: Serve, **options: Any) -> AsyncIterator[HTTPClient]:
    working: set[asyncio.Task[None] | None] = set()

    async def served(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        working.add(asyncio.current_task())
        try:
            await serve(reader, writer)
        except ConnectionError:
            pass  # cut by the client
        finally:
            writer.close()

    server = await asyncio.start_server(served, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    settings = {"connect_timeout_s": 5.0, "most": 4, "keep_s": 30.0} | options
    client = HTTPClient(f"http://127.0.0.1:{port}/v1", {"X-Team": "a"}, **settings)
    try:
        yield client
    finally:
        client.close()
        server.close()
        await asyncio.gather(*(task for task in working if task), return_exceptions=True)


async def take_request(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
    return head, await reader.readexactly(length)


def answering(*wires: bytes, close: bool = False, seen: list[bytes] | None = None) -> Serve:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for wire in wires:
            try:
                head, body = await take_request(reader)
            except asyncio.IncompleteReadError:
                break
            if seen is not None:
                seen.append(head + body)
            writer.write(wire)
        if not close:
            await reader.read()

    return serve


async def all_of(client: HTTPClient, connection: Connection) -> bytes:
    parts = []
    while part := await connection.read():
        parts.append(part)
    client.release(connection)
    return b"".join(parts)


async def ask(client: HTTPClient) -> tuple[int, bytes]:
    connection = await client.post("/chat", b"{}", {"Authorization": "Bearer k"})
    return connection.status, await all_of(client, connection)


@pytest.mark.parametrize(
    "rest",
    [
        b"Content-Length: 2\r\n\r\nhi",
        b"Transfer-Encoding: chunked\r\n\r\n1\r\nh\r\n1\r\ni\r\n0\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n2;a=b\r\nhi\r\n0\r\nX-Trailer: 1\r\n\r\n",
        b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n%s"
        % (len(packed := gzip.compress(b"hi", mtime=0)), packed),
    ],
    ids=["length", "chunks", "trailers", "gzip"],
)
async def test_answers_of_each_framing_keep_the_connection(rest):
    seen: list[bytes] = []
    interim = b"HTTP/1.1 100 Continue\r\n\r\n"
    async with serving(answering(OK + rest, interim + OK + rest, seen=seen)) as client:
        assert await ask(client) == (200, b"hi")
        assert await ask(client) == (200, b"hi")
    assert len(seen) == 2  # on one connection: each serves its own list
    assert seen[0].startswith(b"POST /v1/chat HTTP/1.1\r\nHost: 127.0.0.1:")
    for line in (b"\r\nX-Team: a\r\n", b"\r\nAuthorization: Bearer k\r\n", b"\r\n\r\n{}"):
        assert line in seen[0]


async def test_an_answer_without_a_length_ends_with_its_connection():
    async with serving(answering(OK + b"\r\nhi", close=True)) as client:
        assert await ask(client) == (200, b"hi")
        assert await ask(client) == (200, b"hi")  # on a new one


@pytest.mark.parametrize(
    "wire",
    [
        b"",
        b"HTTP/1.1 200",
        b"220 smtp ready\r\n\r\n",
        OK + b"Content-Length: 9\r\n\r\nhi",
        OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhi",
        OK + b"Transfer-Encoding: chunked\r\n\r\nxyz\r\n",
        OK + b"Content-Encoding: gzip\r\nContent-Length: 2\r\n\r\nhi",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
        OK + b"X: " + b"a" * 70_000 + b"\r\n\r\n",
    ],
)
async def test_what_breaks_off_or_is_no_http_is_told(wire):
    async with serving(answering(wire, close=True)) as client:
        with pytest.raises(BrokenAnswerError):
            await ask(client)


async def test_what_came_before_the_break_is_read_first():
    wire = OK + b"Content-Length: 9\r\n\r\nhi"
    async with serving(answering(wire, close=True)) as client:
        connection = await client.post("/chat", b"{}", {})
        assert await connection.read() == b"hi"
        with pytest.raises(BrokenAnswerError):
            await connection.read()
        client.release(connection)


async def test_bytes_behind_an_answer_end_its_connection():
    whole = OK + b"Content-Length: 2\r\n\r\nhi"
    async with serving(answering(whole + OK)) as client:
        connection = await client.post("/chat", b"{}", {})
        await asyncio.sleep(0.01)
        assert await all_of(client, connection) == b"hi"
        assert not connection.reusable


async def test_no_more_connections_than_allowed_and_the_next_waits():
    release = asyncio.Event()
    at_once = most = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal at_once, most
        while True:
            try:
                await take_request(reader)
            except asyncio.IncompleteReadError:
                return
            at_once += 1
            most = max(most, at_once)
            await release.wait()
            at_once -= 1
            writer.write(OK + b"Content-Length: 0\r\n\r\n")

    async with serving(serve, most=2) as client:
        asked = [asyncio.create_task(ask(client)) for _ in range(6)]
        await asyncio.sleep(0.05)
        asked[3].cancel()  # while it waits
        release.set()
        found = await asyncio.gather(*asked, return_exceptions=True)
    assert most == 2
    assert [isinstance(one, asyncio.CancelledError) for one in found] == [i == 3 for i in range(6)]


async def test_a_cancelled_request_cuts_its_connection():
    gone = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await take_request(reader)
        await reader.read()
        gone.set()

    async with serving(serve) as client:
        task = asyncio.create_task(ask(client))
        await asyncio.sleep(0.05)
        task.cancel()
        await asyncio.wait_for(gone.wait(), 5)


async def test_an_idle_connection_is_closed_after_its_time():
    gone = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await take_request(reader)
        writer.write(OK + b"Content-Length: 0\r\n\r\n")
        await reader.read()
        gone.set()

    async with serving(serve, keep_s=0.05) as client:
        await ask(client)
        assert not gone.is_set()
        await asyncio.wait_for(gone.wait(), 5)


async def test_a_slow_reader_holds_up_the_sender():
    sent = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await take_request(reader)
        writer.write(OK + b"Content-Length: %d\r\n\r\n" % (64 * 2**20))
        for _ in range(1024):
            writer.write(b"x" * 2**16)
            await writer.drain()
            sent += 2**16

    async with serving(serve) as client:
        connection = await client.post("/chat", b"{}", {})
        await asyncio.sleep(0.2)
        held = sent
        assert held < 32 * 2**20  # buffers of two sockets besides
        assert len(connection.take()) < 2 * MOST_HELD
        assert len(await all_of(client, connection)) > 60 * 2**20
        assert sent == 64 * 2**20


async def test_no_connection_in_time(monkeypatch):
    async def never(*_: Any, **__: Any) -> None:
        await asyncio.sleep(60)

    monkeypatch.setattr("aiohappyeyeballs.start_connection", never)
    async with serving(answering(), connect_timeout_s=0.01, most=1) as client:
        for _ in range(2):  # the place is free again
            with pytest.raises(ConnectTimeoutError):
                await ask(client)


async def test_a_key_with_a_line_break_is_not_sent():
    async with serving(answering()) as client:
        with pytest.raises(ConnectionError, match="line break"):
            await client.post("/chat", b"{}", {"Authorization": "Bearer a\r\nX-Evil: 1"})


def test_in_the_event_loop_of_a_replica():
    async def twice() -> list[tuple[int, bytes]]:
        whole = OK + b"Content-Length: 2\r\n\r\nhi"
        async with serving(answering(whole, whole)) as client:
            return [await ask(client), await ask(client)]

    assert uvloop.run(twice()) == [(200, b"hi")] * 2
