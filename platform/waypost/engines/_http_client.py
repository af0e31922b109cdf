"""A client of one HTTP/1.1 endpoint: a bounded number of kept connections, requests with a body."""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from collections.abc import Mapping
from functools import cache
from importlib.metadata import version
from urllib.parse import quote, urlsplit

import aiohappyeyeballs

from waypost.engines._http_connection import Connection

NEXT_ADDRESS_S = 0.25
"""Time after which the next address of a host is tried besides (RFC 8305)."""

USER_AGENT = f"waypost/{version('waypost')}"


class ConnectTimeoutError(OSError):
    """No connection was made in time."""


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
