"""A connection to an HTTP/1.1 endpoint, and the answer to the request that was sent on it last.

What is read belongs to one request at a time, so a connection is also the answer that it carries.
httptools parses; an answer's chunks that arrived together are one piece for the reader. aiohttp
spends half a millisecond on a stream of 64 chunks, most of it on each chunk (DECISIONS.md, 7).
"""

from __future__ import annotations

import asyncio
import zlib
from typing import cast

import httptools

MOST_HELD = 256 * 1024
"""Bytes of an answer that wait for their reader before no more are taken from the network."""

MOST_HEAD = 64 * 1024
"""Longest headers of an answer, in bytes."""

MOST_INFLATED = 64 * 2**20
"""Most bytes that one read of a compressed answer may become."""


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
