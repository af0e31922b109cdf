"""A client's end of HTTP/1.1, as little as measuring needs: keep-alive, lengths and chunks.

A library's client costs more than the gateways that are measured, on the same cores.
"""

from __future__ import annotations

import asyncio
import re
import time
from dataclasses import dataclass

from waypost.contracts.errors import WaypostError

_STATUS = re.compile(rb"HTTP/1\.[01] (\d{3})")
_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*(\d+)", re.IGNORECASE)
_CHUNKED = re.compile(rb"\r\ntransfer-encoding:[ \t]*chunked", re.IGNORECASE)
_CLOSE = re.compile(rb"\r\nconnection:[ \t]*close", re.IGNORECASE)


class ProtocolError(WaypostError):
    """A server sent what is not HTTP/1.1, or closed a connection in the middle of an answer."""


class ResponseParser:
    """Takes the bytes of one answer, cut anywhere.

    Attributes:
        status: HTTP status; 0 until the head is complete.
        body: What has come of it, without the framing of chunks.
        done: The answer is complete.
        reusable: The server keeps the connection.
    """

    def __init__(self) -> None:
        self.status = 0
        self.body = bytearray()
        self.done = False
        self.reusable = True
        self._held = bytearray()
        self._left: int | None = None  # of a body with a length; None is chunked

    def feed(self, data: bytes) -> None:
        """Take the next bytes.

        Raises:
            ProtocolError: they are not HTTP/1.1 with a length or chunks.
        """
        if self.done:
            raise ProtocolError("bytes came after the end of an answer")
        if self._left is not None and self.status:
            self._take(data)
            return
        self._held += data
        if not self.status:
            self._read_head()
        if self.status and self._left is None and not self.done:
            self._read_chunks()

    def _read_head(self) -> None:
        end = self._held.find(b"\r\n\r\n")
        if end < 0:
            return
        head = bytes(self._held[: end + 2])
        status = _STATUS.match(head)
        if status is None:
            raise ProtocolError("an answer does not begin with an HTTP/1.1 status line")
        del self._held[: end + 4]
        self.status = int(status[1])
        self.reusable = _CLOSE.search(head) is None
        if _CHUNKED.search(head):
            return
        length = _LENGTH.search(head)
        if length is None:
            raise ProtocolError("an answer has neither a content-length nor chunks")
        self._left = int(length[1])
        rest, self._held = bytes(self._held), bytearray()
        self._take(rest)

    def _take(self, data: bytes) -> None:
        assert self._left is not None
        if len(data) > self._left:
            raise ProtocolError("an answer is longer than its content-length")
        self._left -= len(data)
        self.body += data
        self.done = self._left == 0

    def _read_chunks(self) -> None:
        held, at = self._held, 0
        while (line := held.find(b"\r\n", at)) >= 0:
            try:
                size = int(held[at:line].partition(b";")[0], 16)
            except ValueError:
                raise ProtocolError("a chunk does not begin with its size") from None
            begin = line + 2
            if len(held) < begin + size + 2:
                break
            if held[begin + size : begin + size + 2] != b"\r\n":
                raise ProtocolError("a chunk does not end where its size says")
            at = begin + size + 2
            if size == 0:
                self.done = True
                break
            self.body += held[begin : begin + size]
        del held[:at]
        if self.done and held:
            raise ProtocolError("bytes came after the end of an answer")


@dataclass(frozen=True, slots=True)
class Exchange:
    """One request and its answer.

    Attributes:
        status: HTTP status.
        first_s: Seconds from the sending to the first mark in the body (see `Connection`); NaN
            where it has none.
        total_s: Seconds from the sending to the end of the answer.
        body: The answer's.
    """

    status: int
    first_s: float
    total_s: float
    body: bytes


class Connection(asyncio.Protocol):
    """One connection that is kept, with one request at a time.

    Args:
        mark: Bytes whose first appearance in a body is timed.
    """

    def __init__(self, mark: bytes) -> None:
        self._mark = mark
        self._parser = ResponseParser()
        self._first = float("nan")
        self._seen = False
        self._end = 0.0
        self._waiter: asyncio.Future[None] | None = None
        self.open = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self.open = True

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        self.open = False
        self._finish(ProtocolError("the server closed the connection before the answer's end"))

    def data_received(self, data: bytes) -> None:
        """Take bytes of the answer."""
        now = time.perf_counter()
        parser = self._parser
        try:
            parser.feed(data)
        except ProtocolError as error:
            self._finish(error)
            self.close()
            return
        if not self._seen and self._mark in parser.body:
            self._seen = True
            self._first = now
        if parser.done:
            self._end = now
            self._finish(None)
            if not parser.reusable:
                self.close()

    def _finish(self, error: ProtocolError | None) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is None or waiter.done():
            return
        if error is None:
            waiter.set_result(None)
        else:
            waiter.set_exception(error)

    async def exchange(self, request: bytes) -> Exchange:
        """Send a request and wait for the end of its answer.

        Raises:
            ProtocolError: the connection broke, or what came is not HTTP.
        """
        if not self.open:
            raise ProtocolError("the connection is closed")
        self._parser = parser = ResponseParser()
        self._first, self._seen = float("nan"), False
        self._waiter = asyncio.get_running_loop().create_future()
        begin = time.perf_counter()
        self._transport.write(request)
        await self._waiter
        return Exchange(parser.status, self._first - begin, self._end - begin, bytes(parser.body))

    def close(self) -> None:
        """Close the connection."""
        self.open = False
        self._transport.close()


async def connect(port: int, mark: bytes) -> Connection:
    """Connect to a port of 127.0.0.1.

    Raises:
        OSError: nobody listens.
    """
    loop = asyncio.get_running_loop()
    return (await loop.create_connection(lambda: Connection(mark), "127.0.0.1", port))[1]


def post(port: int, path: str, body: bytes) -> bytes:
    """Return a POST request of a JSON body to 127.0.0.1."""
    return (
        b"POST %s HTTP/1.1\r\nhost: 127.0.0.1:%d\r\ncontent-type: application/json\r\n"
        b"content-length: %d\r\n\r\n%s" % (path.encode(), port, len(body), body)
    )
