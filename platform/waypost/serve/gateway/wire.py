"""HTTP/1.1 of the gateway's own server: uvicorn's protocol with bounds and an end in good order.

uvicorn limits neither the length of a request's head nor its time, answers what it cannot read in
the middle of another answer, and loses the body of a request that asks for an upgrade (Java's
client asks for HTTP/2 with its first one). Each is mended here.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from waypost.serve.gateway.errors import Problem
from waypost.serve.gateway.http import MAX_HEADERS
from waypost.serve.gateway.responses import dumps

if TYPE_CHECKING:
    from uvicorn import Config
    from uvicorn.server import ServerState

MAX_TARGET = 64 * 1024
"""Most bytes of a request's target (path and query)."""

HEAD_TIMEOUT_S = 30.0
"""Longest time in which a request's head arrives, also the first byte of a new connection, and in
which a body arrives that nobody waits for any more."""

LINGER_S = 10.0
"""Time for which what a refused client still sends is read and dropped. If the connection were
closed at once, the client's system would drop the answer, too."""


class Wire(HttpToolsProtocol):
    """One connection.

    Args:
        config: uvicorn's config.
        state: uvicorn's state of the server.
        loop: The event loop that it is served on.
    """

    def __init__(self, config: Config, state: ServerState, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(config, state, {}, loop)
        self.access_log = False  # uvicorn asks only whether any logger has a handler
        self._idle_since = loop.time()
        self._head_since: float | None = self._idle_since
        self._head_length = 0
        self._in_head = True
        self._leaving = False
        self._refused = False
        self._ignoring = False  # calls of a parser that is told a head that the client sent before

    # -- the server's calls ---------------------------------------------------------------------

    def check_time(self, now: float) -> None:
        """End the connection where a request's head takes too long.

        Args:
            now: Time of the loop's clock.
        """
        if self._head_since is not None:
            if now >= self._head_since + HEAD_TIMEOUT_S:
                self._end_slow_head()
        elif self._wastes_time() and now >= self._idle_since + HEAD_TIMEOUT_S:
            self.transport.close()

    def leave(self) -> None:
        """Tell the client with the next head of an answer that it is the last one here.

        Where a head was sent already, the client counts on the connection: one more request is
        answered on it.
        """
        self._leaving = True
        if self._answering() and not self.cycle.response_started:
            self.cycle.keep_alive = False

    def end_if_idle(self, since: float) -> None:
        """Close the connection where no request has come since a time of the loop's clock."""
        if not self._answering() and not self._head_length and self._idle_since <= since:
            self.transport.close()

    def _answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _wastes_time(self) -> bool:
        """Whether a body still arrives although its request is answered."""
        return not self._in_head and not self._answering()

    def _end_slow_head(self) -> None:
        if self._head_length and not self._answering():
            message = f"the head of the request did not arrive within {HEAD_TIMEOUT_S:g} s"
            self._refuse(Problem(408, message, code="slow_head"))
        else:
            self.transport.close()

    # -- asyncio's calls ------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Read bytes of the client."""
        if self._refused:
            return
        self._unset_keepalive_if_required()
        if self._in_head:
            self._head_length += len(data)
            if self._head_since is None:
                self._head_since = self.loop.time()
        self._feed(data)
        if self._in_head and self._head_length > MAX_HEADERS + MAX_TARGET and not self._refused:
            message = f"the headers: expected at most {MAX_HEADERS} bytes"
            self._refuse(Problem(431, message, code="headers_too_long"))

    def _feed(self, data: bytes) -> None:
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._decline_upgrade(data[upgrade.args[0] :])
        except httptools.HttpParserError:
            message = "this is no request of HTTP/1.1, or its target is too long"
            self._refuse(Problem(400, message, code="no_http"))

    def _decline_upgrade(self, rest: bytes) -> None:
        """Read on in HTTP/1.1: the request's body, which the parser leaves alone, and what follows.

        Args:
            rest: What the client sent behind the head.
        """
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
        if framing := self._framing():
            self._ignoring = True
            self.parser.feed_data(b"POST / HTTP/1.1\r\n%s: %s\r\n\r\n" % framing)
            self._ignoring = False
        if rest:
            self._feed(rest)

    def _framing(self) -> tuple[bytes, bytes] | None:
        """Return the header of the request that says how long its body is."""
        told = (b"content-length", b"transfer-encoding")
        return next((pair for pair in self.headers if pair[0] in told), None)

    # -- the parser's calls ---------------------------------------------------------------------

    def on_message_begin(self) -> None:
        """Begin a request."""
        if not self._ignoring:
            super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        """Take a part of the target."""
        if not self._ignoring:
            super().on_url(url)
            if len(self.url) > MAX_TARGET:
                raise ValueError  # the parser makes an error of its own of it

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header."""
        if not self._ignoring:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Begin to answer."""
        if self._ignoring:
            return
        self._in_head, self._head_since, self._head_length = False, None, 0
        super().on_headers_complete()
        if self._leaving:
            self.cycle.keep_alive = False

    def on_message_complete(self) -> None:
        """End the body of the request."""
        if self.parser.should_upgrade() and self._framing():
            return  # `_decline_upgrade` reads the body
        self._in_head = True
        super().on_message_complete()

    # -- answers --------------------------------------------------------------------------------

    def on_response_complete(self) -> None:
        """Go on with the next request, or end the connection."""
        self._idle_since = self.loop.time()
        was_last = not self.pipeline
        super().on_response_complete()
        if self._refused and was_last:
            self.transport.close()

    def _refuse(self, problem: Problem) -> None:
        """End the connection with an answer to what cannot be read, behind those under way."""
        self._refused, self._head_since = True, None
        if self._answering():
            if not self.cycle.more_body:
                self.cycle.keep_alive = False
                return
            # the fault is in the body of this request
            cycle = self.cycle
            cycle.disconnected = True
            cycle.message_event.set()
            if self.pipeline:
                self.pipeline.popleft()
                return
            if cycle.response_started:
                self.transport.close()
                return
        body = dumps(problem.body)
        lines = [
            STATUS_LINE[problem.status],
            *(b"%s: %s\r\n" % pair for pair in self.server_state.default_headers),
            b"content-type: application/json\r\ncontent-length: %d\r\n" % len(body),
            b"connection: close\r\n\r\n",
            body,
        ]
        self.transport.write(b"".join(lines))
        self.loop.call_later(LINGER_S, self.transport.close)
