"""What Serve's proxy answers where the gateway's replica died before its answer began.

By itself the proxy then says nothing, which its HTTP server turns into a bare ``500 Internal Server
Error``. Serve loads `middlewares` into its proxies
(``RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH``).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from contextlib import suppress
from typing import Any

from waypost.serve.gateway.errors import Problem
from waypost.serve.gateway.responses import dumps
from waypost.serve.standby import prepare_successor

LOST = "the gateway ended before it answered; retry in a moment"

_preparing: list[asyncio.Task[None]] = []

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Mapping[str, Any], Receive, Send], Awaitable[None]]


class Excuse:
    """Answers 503 in OpenAI's form, with Retry-After, where an application says nothing."""

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: Mapping[str, Any], receive: Receive, send: Send) -> None:
        """Serve one ASGI connection."""
        begun = False

        async def noting(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        await self._app(scope, receive, noting)
        if begun or scope["type"] != "http":
            return
        body = dumps(Problem(503, LOST, code="gateway_lost").body)
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode("ascii")),
            (b"retry-after", b"1"),
        ]
        await send({"type": "http.response.start", "status": 503, "headers": headers})
        await send({"type": "http.response.body", "body": body})


def middlewares() -> list[Any]:
    """Return the middlewares of Serve's proxies; called in each proxy when it starts."""
    from starlette.middleware import Middleware

    with suppress(RuntimeError):  # no event loop runs
        if not _preparing:
            task = asyncio.get_running_loop().create_task(prepare_successor())
            _preparing.append(task)
    return [Middleware(Excuse)]
