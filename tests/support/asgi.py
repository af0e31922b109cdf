"""An ASGI client in this process, without a socket; the test decides when it disconnects."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass, field
from typing import Any

Message = MutableMapping[str, Any]
App = Callable[
    [dict[str, Any], Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]],
    Awaitable[None],
]


@dataclass
class Reply:
    """A response.

    Attributes:
        status: HTTP status; 0 until the head is received.
        headers: Headers, with names in lower case.
        raw: The header pairs as sent.
        parts: The body, one item for each message.
        ended: Whether the last message of the body is received.
    """

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    raw: list[tuple[bytes, bytes]] = field(default_factory=list)
    parts: list[bytes] = field(default_factory=list)
    ended: bool = False

    @property
    def body(self) -> bytes:
        """The whole body."""
        return b"".join(self.parts)

    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)

    def events(self) -> list[Any]:
        """The server-sent events as JSON, and ``[DONE]`` as text."""
        found = []
        for block in self.body.decode().split("\n\n"):
            if block:
                data = block.removeprefix("data: ")
                found.append(data if data == "[DONE]" else json.loads(data))
        return found


class Connection:
    """One request in flight.

    Attributes:
        reply: The response, filled while the application answers.
    """

    def __init__(
        self,
        app: App,
        method: str,
        path: str,
        body: bytes | list[bytes],
        headers: Mapping[str, str],
        root_path: str = "",
    ) -> None:
        self.reply = Reply()
        self._news = asyncio.Event()
        self._gone = asyncio.Event()
        parts = [body] if isinstance(body, bytes) else body
        self._incoming: list[Message] = [
            {"type": "http.request", "body": part, "more_body": i < len(parts) - 1}
            for i, part in enumerate(parts)
        ]
        pairs = [(k.lower().encode("latin-1"), v.encode("latin-1")) for k, v in headers.items()]
        scope = {
            "type": "http",
            "method": method,
            "path": root_path + path,
            "root_path": root_path,
            "query_string": b"",
            "headers": pairs,
        }
        self.task = asyncio.ensure_future(app(scope, self._receive, self._send))

    async def _receive(self) -> Message:
        if self._incoming:
            return self._incoming.pop(0)
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        if self._gone.is_set():
            raise OSError("the client went")
        if message["type"] == "http.response.start":
            self.reply.status = message["status"]
            self.reply.raw = list(message["headers"])
            self.reply.headers = {k.decode(): v.decode() for k, v in message["headers"]}
        else:
            self.reply.parts.append(message.get("body", b""))
            self.reply.ended = not message.get("more_body", False)
        self._news.set()
        await asyncio.sleep(0)

    async def part(self, count: int, timeout_s: float = 60.0) -> None:
        """Wait until ``count`` messages of the body are received."""
        async with asyncio.timeout(timeout_s):
            while len(self.reply.parts) < count:
                self._news.clear()
                await self._news.wait()

    def go_away(self) -> None:
        """Disconnect."""
        self._gone.set()

    async def end(self, timeout_s: float = 60.0) -> Reply:
        """Wait until the application is done."""
        async with asyncio.timeout(timeout_s):
            await self.task
        return self.reply


class Client:
    """A client of an ASGI application."""

    def __init__(self, app: App) -> None:
        self._app = app

    def open(
        self,
        method: str,
        path: str,
        body: Any = b"",
        headers: Mapping[str, str] | None = None,
        root_path: str = "",
    ) -> Connection:
        """Send a request and return at once; a body other than bytes or a list is sent as JSON."""
        raw = body if isinstance(body, bytes | list) else json.dumps(body).encode()
        return Connection(self._app, method, path, raw, headers or {}, root_path)

    async def post(self, path: str, body: Any, **headers: str) -> Reply:
        """Send a POST and return the whole response; ``_`` in a header's name becomes ``-``."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.open("POST", path, body, named).end()

    async def get(self, path: str, **headers: str) -> Reply:
        """Send a GET and return the whole response."""
        return await self.open("GET", path, b"", headers).end()
