"""An HTTP client that sends exactly the given bytes, for requests that no library sends."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit


@dataclass(frozen=True)
class RawReply:
    """One received response.

    Attributes:
        status: HTTP status.
        headers: Pairs of name in lower case and value, in order, repeated ones included.
        body: The body, with chunks joined.
    """

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes

    def header(self, name: str) -> str | None:
        """Return the first header of that name."""
        return next((value for key, value in self.headers if key == name), None)

    def json(self) -> Any:
        """Return the body as JSON."""
        return json.loads(self.body)


def request_bytes(
    path: bytes | str,
    body: bytes = b"",
    headers: Iterable[tuple[bytes | str, bytes | str]] = (),
    method: bytes | str = b"POST",
) -> bytes:
    """Return the bytes of a request, with a correct ``content-length`` unless one is given."""
    lines = [b"%s %s HTTP/1.1" % (_raw(method), _raw(path)), b"host: test"]
    given = [(_raw(name), _raw(value)) for name, value in headers]
    names = {name.lower() for name, _ in given}
    if body and b"content-type" not in names:
        lines.append(b"content-type: application/json")
    if not names & {b"content-length", b"transfer-encoding"} and (body or _raw(method) == b"POST"):
        lines.append(b"content-length: %d" % len(body))
    lines.extend(name + b": " + value for name, value in given)
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def _raw(text: bytes | str) -> bytes:
    return text if isinstance(text, bytes) else text.encode("latin-1")


async def exchange(
    url: str,
    data: bytes | Iterable[bytes],
    *,
    answers: int = 1,
    half_close: bool = False,
    timeout_s: float = 20.0,
) -> list[RawReply]:
    """Send bytes on a new connection and read responses.

    Args:
        url: ``http://host:port``; a path is ignored.
        data: Bytes to send at once, or parts to send one after another.
        answers: Maximum number of responses to read; fewer if the server closes first.
        half_close: Close the sending side after the last byte.
        timeout_s: Time-out of the whole exchange.

    Raises:
        TimeoutError: Neither the responses nor the end of the connection came in time.
    """
    place = urlsplit(url)
    parts = [data] if isinstance(data, bytes) else list(data)
    async with asyncio.timeout(timeout_s):
        reader, writer = await asyncio.open_connection(place.hostname, place.port)
        try:
            # a server may answer and close before it has read everything
            with suppress(ConnectionError):
                for part in parts:
                    writer.write(part)
                    await writer.drain()
                if half_close:
                    writer.write_eof()
            found: list[RawReply] = []
            while len(found) < answers:
                reply = await read_reply(reader, bodiless=parts[0].startswith(b"HEAD "))
                if reply is None:
                    break
                found.append(reply)
            return found
        finally:
            writer.close()


async def read_reply(reader: asyncio.StreamReader, *, bodiless: bool = False) -> RawReply | None:
    """Return the next response, skipping 100 Continue; None if the connection ends first.

    Args:
        reader: Reader of the connection.
        bodiless: Whether it is the response to a HEAD, which has no body despite its length.
    """
    try:
        status, headers = await _head(reader)
        while status == 100:
            status, headers = await _head(reader)
        named = dict(headers)
        if bodiless:
            body = b""
        elif named.get("transfer-encoding") == "chunked":
            body = b"".join([part async for part in _chunks(reader)])
        elif "content-length" in named:
            body = await reader.readexactly(int(named["content-length"]))
        else:
            body = await reader.read()
    except (asyncio.IncompleteReadError, ConnectionError):
        return None
    return RawReply(status, headers, body)


async def _head(reader: asyncio.StreamReader) -> tuple[int, tuple[tuple[str, str], ...]]:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    status_line, *lines = head.removesuffix("\r\n\r\n").split("\r\n")
    pairs = [line.partition(":") for line in lines]
    return int(status_line.split()[1]), tuple((n.lower(), value.strip()) for n, _, value in pairs)


async def _chunks(reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    while length := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
        yield (await reader.readexactly(length + 2))[:-2]
    await reader.readuntil(b"\r\n")
