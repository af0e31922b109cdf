"""A client of one HTTP/1.1 endpoint: kept connections, a body sent, the answer read as it comes.

What is read belongs to one request at a time, so a connection is also the answer that it carries.
httptools parses; an answer's chunks that arrived together are one piece for the reader. aiohttp
spends half a millisecond on a stream of 64 chunks, most of it on each chunk (DECISIONS.md, 7).
"""

from __future__ import annotations

import asyncio
import ssl
import zlib
from collections import deque
from collections.abc import Mapping
from functools import cache
from importlib.metadata import version
from typing import cast
from urllib.parse import quote, urlsplit

import aiohappyeyeballs
import httptools

MOST_HELD = 256 * 1024
"""Bytes of an answer that wait for their reader before no more are taken from the network."""

MOST_HEAD = 64 * 1024
"""Longest headers of an answer, in bytes."""

MOST_INFLATED = 64 * 2**20
"""Most bytes that one read of a compressed answer may become."""

NEXT_ADDRESS_S = 0.25
"""Time after which the next address of a host is tried besides (RFC 8305)."""

USER_AGENT = f"waypost/{version('waypost')}"


class ConnectTimeoutError(OSError):
    """No connection was made in time."""


class BrokenAnswerError(OSError):
    """The connection ended before the answer did, or what came is no answer in HTTP/1.1."""


class Connection(asyncio.Protocol):
    """A connection, and the answer to the request that was sent on it last.

    Attributes:
        status: HTTP status.
        headers: Headers of the answer, names in lower case; the last value of a repeated one.
        ended: Whether all of the answer has arrived; parts of it may not be read yet.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._paused = False
        self._reset()
        self.ended = True

    def _reset(self) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.ended = False
        self._problem: OSError | None = None
        self._keeps = False
        self._head_length = 0
        self._parts: list[bytes] = []
        self._held = 0
        self._inflate: zlib._Decompress | None = None

    @property
    def reusable(self) -> bool:
        """Whether another request may be sent."""
        return self.open and self.ended and self._keeps and not self._parts

    @property
    def open(self) -> bool:
        """Whether the connection is up."""
        return self._transport is not None and not self._transport.is_closing()

    @property
    def at_end(self) -> bool:
        """Whether all of the answer was read."""
        return self.ended and not self._parts

    @property
    def content_type(self) -> str:
        """Media type of the answer in lower case, without parameters."""
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()

    def send(self, request: bytes) -> None:
        """Send a request, head and body."""
        assert self._transport is not None
        self._reset()
        self._parser = httptools.HttpResponseParser(self)
        # as other clients read it: endpoints are not always strict
        self._parser.set_dangerous_leniencies(
            lenient_headers=True,
            lenient_optional_cr_before_lf=True,
            lenient_spaces_after_chunk_size=True,
        )
        self._transport.write(request)

    async def head(self) -> None:
        """Wait for the status and the headers.

        Raises:
            BrokenAnswerError: There are none.
        """
        while not self.status:
            await self._news()

    async def read(self) -> bytes:
        """Return what has arrived since the last time, at least a byte; nothing at the end.

        Raises:
            BrokenAnswerError: The connection broke.
        """
        while not self._parts and not self.ended:
            await self._news()
        return self.take()

    def take(self) -> bytes:
        """Return what has arrived, possibly nothing."""
        parts, self._parts, self._held = self._parts, [], 0
        if self._paused and self._transport is not None:
            self._paused = False
            self._transport.resume_reading()
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def cut(self) -> None:
        """Close the connection at once."""
        if self._transport is not None:
            self._transport.abort()

    async def _news(self) -> None:
        self._check()
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None
        if not self._parts:
            self._check()

    def _check(self) -> None:
        if self._problem is not None:
            raise self._problem

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _fail(self, what: str) -> None:
        if not self.ended:
            self._problem = self._problem or BrokenAnswerError(what)
        self._keeps = False
        self.cut()
        self._wake()

    # -- asyncio's calls ------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        # not checked: uvloop's transports have no class of asyncio's
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Parse bytes of an answer."""
        if self.ended:  # nobody asked for it
            self._fail("bytes came behind the answer")
            return
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade, zlib.error):
            self._fail("this is no answer in HTTP/1.1")
        else:
            self._wake()

    def connection_lost(self, error: Exception | None) -> None:
        """End an answer that has no other end, else break it off."""
        framed = "content-length" in self.headers or "transfer-encoding" in self.headers
        if self.status and not framed and error is None:
            self.ended = True
        self._fail("the connection was closed")

    # -- the parser's calls ---------------------------------------------------------------------

    def on_message_begin(self) -> None:
        """Refuse another answer behind the one that was asked for."""
        if self.ended:
            raise ValueError  # the parser makes an error of its own of it

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header, or a trailer, which is left out."""
        if self.status:
            return
        self._head_length += len(name) + len(value)
        if self._head_length > MOST_HEAD:
            raise ValueError
        self.headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        """Take the status; an interim one (1xx) is skipped."""
        status = self._parser.get_status_code()
        if status < 200:
            self.headers.clear()
            return
        self.status = status
        coding = self.headers.get("content-encoding", "").strip().lower()
        if coding in {"gzip", "x-gzip", "deflate"}:  # not asked for
            self._inflate = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32)

    def on_body(self, body: bytes) -> None:
        """Take a piece of the body."""
        if self._inflate is not None:
            body = self._inflate.decompress(body, MOST_INFLATED)
            if self._inflate.unconsumed_tail:
                raise ValueError
        self._parts.append(body)
        self._held += len(body)
        if self._held > MOST_HELD and not self._paused and self._transport is not None:
            self._paused = True
            self._transport.pause_reading()

    def on_message_complete(self) -> None:
        """End the answer."""
        if self.status:
            self.ended = True
            self._keeps = self._parser.should_keep_alive()


class HTTPClient:
    """Sends requests to one endpoint over a bounded number of kept connections.

    Args:
        base_url: Scheme, host, port, and the path that requests begin with.
        headers: Headers of every request.
        connect_timeout_s: Longest time for a connection.
        most: Most connections at once; further requests wait for one.
        keep_s: Time for which an idle one is kept.
    """

    def __init__(
        self,
        base_url: str,
        headers: Mapping[str, str],
        *,
        connect_timeout_s: float,
        most: int,
        keep_s: float,
    ) -> None:
        parts = urlsplit(base_url)
        assert parts.hostname is not None  # settings are checked
        self._host = parts.hostname
        self._tls = _tls() if parts.scheme == "https" else None
        self._port = parts.port or (80 if self._tls is None else 443)
        self._path = quote(parts.path, safe="/%:@!$&'()*+,;=~-._")
        own = {
            "Host": parts.netloc.encode("idna").decode("ascii"),
            "Accept": "*/*",
            "Accept-Encoding": "identity",
            "User-Agent": USER_AGENT,
            "Content-Type": "application/json",
        }
        self._headers = _joined(own, headers)
        self._connect_timeout_s = connect_timeout_s
        self._most = most
        self._keep_s = keep_s
        self._heads: dict[tuple[str, tuple[tuple[str, str], ...]], bytes] = {}
        self._idle: deque[tuple[float, Connection]] = deque()
        self._used: set[Connection] = set()
        self._connecting = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._sweeping: asyncio.TimerHandle | None = None

    async def post(self, path: str, body: bytes, headers: Mapping[str, str]) -> Connection:
        """Send a request and wait for the head of its answer.

        Returns the connection with the answer, which is given back to `release`.

        Raises:
            OSError: There is no connection, or no answer.
        """
        head = self._head(path, headers)
        connection = await self._take()
        try:
            connection.send(b"%sContent-Length: %d\r\n\r\n%s" % (head, len(body), body))
            await connection.head()
        except BaseException:
            self.release(connection)
            raise
        return connection

    def release(self, connection: Connection) -> None:
        """Take a connection back; it is closed where its answer was not read to the end."""
        self._used.discard(connection)
        if connection.reusable:
            loop = asyncio.get_running_loop()
            self._idle.append((loop.time(), connection))
            if self._sweeping is None:
                self._sweeping = loop.call_later(self._keep_s, self._sweep)
        else:
            connection.cut()  # the upstream sees that nobody listens
        self._let_one_in()

    def close(self) -> None:
        """Close every connection."""
        if self._sweeping is not None:
            self._sweeping.cancel()
        for _, connection in self._idle:
            connection.cut()
        self._idle.clear()
        for connection in tuple(self._used):
            connection.cut()

    def _head(self, path: str, headers: Mapping[str, str]) -> bytes:
        key = path, tuple(headers.items())
        head = self._heads.get(key)
        if head is None:
            lines = [f"POST {self._path}{path} HTTP/1.1"]
            given = _joined(self._headers, headers)
            lines += [f"{name}: {value}" for name, value in given.items()]
            if any("\r" in line or "\n" in line for line in lines):
                raise ConnectionError("a header of the settings, or a key, holds a line break")
            head = "\r\n".join([*lines, ""]).encode("utf-8")
            if len(self._heads) >= self._most:  # keys that are no longer used
                self._heads.clear()
            self._heads[key] = head
        return head

    async def _take(self) -> Connection:
        while True:
            while self._idle:
                _, connection = self._idle.pop()
                if connection.reusable:
                    self._used.add(connection)
                    return connection
            if len(self._used) + self._connecting < self._most:
                return await self._connect()
            turn = asyncio.get_running_loop().create_future()
            self._waiting.append(turn)
            try:
                await turn
            except asyncio.CancelledError:
                if turn.done() and not turn.cancelled():
                    self._let_one_in()  # the place goes to another
                raise

    def _let_one_in(self) -> None:
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return

    async def _connect(self) -> Connection:
        loop = asyncio.get_running_loop()
        self._connecting += 1
        try:
            async with asyncio.timeout(self._connect_timeout_s):
                found = await loop.getaddrinfo(self._host, self._port, type=1)
                socket = await aiohappyeyeballs.start_connection(
                    found, happy_eyeballs_delay=NEXT_ADDRESS_S
                )
                _, connection = await loop.create_connection(
                    Connection,
                    sock=socket,
                    ssl=self._tls,
                    server_hostname=None if self._tls is None else self._host,
                )
        except TimeoutError:
            self._let_one_in()
            raise ConnectTimeoutError from None
        except BaseException:
            self._let_one_in()
            raise
        finally:
            self._connecting -= 1
        self._used.add(connection)
        return connection

    def _sweep(self) -> None:
        loop = asyncio.get_running_loop()
        self._sweeping = None
        while self._idle and self._idle[0][0] + self._keep_s <= loop.time():
            self._idle.popleft()[1].cut()
        if self._idle:
            self._sweeping = loop.call_at(self._idle[0][0] + self._keep_s, self._sweep)


def _joined(headers: Mapping[str, str], more: Mapping[str, str]) -> dict[str, str]:
    replaced = {name.lower() for name in more}
    return {k: v for k, v in headers.items() if k.lower() not in replaced} | dict(more)


@cache
def _tls() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    return context
