"""The bench's own HTTP/1.1 client: bodies with a length and in chunks, cut anywhere."""

from __future__ import annotations

import asyncio
import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from waypost.bench._http1 import Connection, ProtocolError, ResponseParser, connect, post

WHOLE = b"HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\nhello lorem"
CHUNKED = (
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"5\r\nhello\r\n1;name=value\r\n \r\nA\r\nlorem\r\nend\r\n0\r\n\r\n"
)
TEXTS = {WHOLE: b"hello lorem", CHUNKED: b"hello lorem\r\nend"}


def parsed(*parts: bytes) -> ResponseParser:
    parser = ResponseParser()
    for part in parts:
        parser.feed(part)
    return parser


@given(st.sampled_from([WHOLE, CHUNKED]), st.sets(st.integers(1, 90), max_size=6))
def test_an_answer_is_the_same_wherever_it_is_cut(answer, places):
    cuts = [0, *sorted(place for place in places if place < len(answer)), len(answer)]
    parts = [answer[a:b] for a, b in pairwise(cuts)]
    parser = ResponseParser()
    for part in parts[:-1]:
        parser.feed(part)
        assert not parser.done
    parser.feed(parts[-1])
    assert (parser.status, bytes(parser.body), parser.done) == (200, TEXTS[answer], True)


def test_an_empty_body_is_done_with_its_head():
    assert parsed(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n").done


def test_a_server_that_closes_says_so():
    kept, closed = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n", b"Connection: close\r\n"
    assert parsed(kept + b"\r\n").reusable
    assert not parsed(kept + closed + b"\r\n").reusable


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (b"SSH-2.0-OpenSSH\r\n\r\n", "status line"),
        (b"HTTP/1.1 200 OK\r\n\r\n", "neither"),
        (WHOLE + b"more", "longer"),
        (CHUNKED + b"more", "after the end"),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nxy\r\n", "size"),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\nabcd\r\n", "where its size"),
    ],
)
def test_what_is_no_http_is_an_error(answer, problem):
    with pytest.raises(ProtocolError, match=problem):
        parsed(answer)


class Server(asyncio.Protocol):
    """Sends scripted parts, a moment apart, for each request; None closes the connection."""

    def __init__(self, parts: list[bytes | None]) -> None:
        self.parts = parts

    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        asyncio.get_running_loop().create_task(self.send())

    async def send(self):
        for part in self.parts:
            if part is None:
                self.transport.close()
                return
            self.transport.write(part)
            await asyncio.sleep(0.02)


async def connected(parts: list[bytes | None]) -> tuple[asyncio.Server, Connection]:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Server(parts), "127.0.0.1", 0)
    return server, await connect(server.sockets[0].getsockname()[1], b"lorem")


async def test_the_mark_is_timed_before_the_end_and_a_connection_is_used_again():
    server, connection = await connected([WHOLE[:-6], WHOLE[-6:]])
    async with server:
        for _ in range(2):
            done = await connection.exchange(post(1, "/x", b"{}"))
            assert (done.status, done.body) == (200, b"hello lorem")
            assert done.total_s > 0.01
            assert done.first_s == done.total_s  # the mark came with the last part
        connection.close()


async def test_without_the_mark_there_is_no_first_time():
    server, connection = await connected([b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"])
    async with server:
        assert math.isnan((await connection.exchange(b"GET / HTTP/1.1\r\n\r\n")).first_s)
        connection.close()


async def test_the_first_mark_counts_and_not_the_last():
    server, connection = await connected([CHUNKED[:89], CHUNKED[89:]])
    async with server:
        done = await connection.exchange(b"GET / HTTP/1.1\r\n\r\n")
        assert done.first_s < done.total_s
        connection.close()


async def test_an_answer_cut_off_is_an_error_and_the_connection_is_over():
    server, connection = await connected([WHOLE[:-3], None])
    async with server:
        with pytest.raises(ProtocolError, match="closed"):
            await connection.exchange(b"GET / HTTP/1.1\r\n\r\n")
        assert not connection.open
        with pytest.raises(ProtocolError, match="closed"):
            await connection.exchange(b"GET / HTTP/1.1\r\n\r\n")


def test_headers_of_an_endpoint_stand_in_its_requests():
    sent = post(80, "/v1", b"{}", (("x-provider", "openai"), ("authorization", "Bearer none")))
    head, _, body = sent.partition(b"\r\n\r\n")
    lines = head.split(b"\r\n")
    assert lines[0] == b"POST /v1 HTTP/1.1"
    assert {b"x-provider: openai", b"authorization: Bearer none"} < set(lines)
    assert b"content-length: 2" in lines
    assert body == b"{}"
