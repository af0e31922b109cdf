"""The parts of HTTP/1.1 that the benches need of a client: keep-alive, content lengths and chunks.

A client library would take more CPU time than the measured gateways, on the same cores.
"""

from __future__ import annotations

import asyncio
import re
import time
from dataclasses import dataclass

from waypost.bench._upstream import PATH, TOKEN
from waypost.contracts.errors import WaypostError

ANSWER_TIMEOUT_S = 30.0
MARK = TOKEN.strip().encode()
_DONE = b"data: [DONE]\n\n"
_STATUS = re.compile(rb"HTTP/1\.[01] (\d{3})")
_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*(\d+)", re.IGNORECASE)
_CHUNKED = re.compile(rb"\r\ntransfer-encoding:[ \t]*chunked", re.IGNORECASE)
_CLOSE = re.compile(rb"\r\nconnection:[ \t]*close", re.IGNORECASE)


class ProtocolError(WaypostError):
    """A server sent bytes that are not HTTP/1.1, or closed a connection during an answer."""


class ResponseParser:
    """An incremental parser of one response; its bytes may be split anywhere.

    Attributes:
        status: HTTP status; 0 until the head is complete.
        body: The body received so far, without the framing of chunks.
        done: Whether the response is complete.
        reusable: Whether the server keeps the connection open.
    """

    def __init__(self) -> None:
        self.status, self.done, self.reusable = 0, False, True
        self.body, self._held = bytearray(), bytearray()
        self._left: int | None = None  # bytes left of a body with a length; None if chunked

    def feed(self, data: bytes) -> None:
        """Parse the next bytes.

        Raises:
            ProtocolError: The bytes are not HTTP/1.1 with a length or chunks.
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
        first_s: Seconds from sending to the first mark in the body (see `Connection`); NaN if
            the body has no mark.
        total_s: Seconds from sending to the end of the answer.
        body: Body of the answer.
    """

    status: int
    first_s: float
    total_s: float
    body: bytes


class Connection(asyncio.Protocol):
    """A kept-alive connection with one request at a time.

    Args:
        mark: Bytes whose first occurrence in a body is timed.
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
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self.open = True

    def connection_lost(self, exc: Exception | None) -> None:
        self.open = False
        self._finish(ProtocolError("the server closed the connection before the answer's end"))

    def data_received(self, data: bytes) -> None:
        """Parse bytes of the answer and record the time of the mark and of the end."""
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
        if waiter is not None and not waiter.done():
            waiter.set_result(None) if error is None else waiter.set_exception(error)

    async def exchange(self, request: bytes) -> Exchange:
        """Send a request and wait for the end of its answer.

        Raises:
            ProtocolError: The connection broke, or the answer is not HTTP.
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
        OSError: No process listens on the port.
    """
    loop = asyncio.get_running_loop()
    return (await loop.create_connection(lambda: Connection(mark), "127.0.0.1", port))[1]


Headers = tuple[tuple[str, str], ...]


def post(port: int, path: str, body: bytes, headers: Headers = ()) -> bytes:
    """Return the bytes of a POST request with a JSON body to 127.0.0.1."""
    more = b"".join(f"{name}: {value}\r\n".encode("latin-1") for name, value in headers)
    return (
        b"POST %s HTTP/1.1\r\nhost: 127.0.0.1:%d\r\ncontent-type: application/json\r\n%s"
        b"content-length: %d\r\n\r\n%s" % (path.encode(), port, more, len(body), body)
    )


@dataclass(frozen=True)
class Endpoint:
    """A port of 127.0.0.1 with the model to request there and the headers that it needs."""

    port: int
    model: str
    headers: Headers = ()


class Wire:
    """A worker's connection to one endpoint, reopened after the server closed it."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self._connection: Connection | None = None

    async def ask(self, body: bytes, *, stream: bool) -> Exchange | None:
        """Send a chat; None if it was not answered in full with status 200."""
        request = post(self.endpoint.port, PATH, body, self.endpoint.headers)
        try:
            if self._connection is None or not self._connection.open:
                self._connection = await connect(self.endpoint.port, MARK)
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                done = await self._connection.exchange(request)
        except (ProtocolError, OSError):  # TimeoutError is an OSError
            self.close()
            return None
        complete = done.body.endswith(_DONE) if stream else MARK in done.body
        return done if done.status == 200 and complete else None

    def close(self) -> None:
        """Close the connection, if one is open."""
        if self._connection is not None and self._connection.open:
            self._connection.close()
        self._connection = None
