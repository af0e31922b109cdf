"""Pass an HTTP request to an ASGI application elsewhere, and its answer back, as plain data.

Between the gateway and the chat page: each side has the other as a function of this form, which
calls a deployment, or an application in this process.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, MutableMapping
from contextlib import suppress
from typing import Any

from waypost.contracts.errors import EngineServerError
from waypost.serve.logs import where_raised

logger = logging.getLogger(__name__)

Message = MutableMapping[str, Any]
"""A message of ASGI's answer: ``http.response.start`` or ``http.response.body``."""

Asked = dict[str, Any]
"""A request: the scope of ASGI as far as it is plain data, and its whole ``body``."""

Passing = Callable[[Asked], AsyncGenerator[list[Message], None]]
"""Answers a request in lists of messages. Closing the generator tells the application that the
client disconnected. Raises an EngineError where there is no answer, or not the rest of it."""

Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

_PLAIN = ("method", "path", "raw_path", "root_path", "query_string", "scheme", "http_version")

WAITING = 16
"""Messages that wait for the reader; then the application waits."""

PATIENCE_S = 5.0
"""Time that an application has to end by itself after its client disconnected."""


def asked(scope: MutableMapping[str, Any], body: bytes) -> Asked:
    """Return a request as plain data."""
    known = {name: scope[name] for name in _PLAIN if scope.get(name) is not None}
    headers = [(bytes(name), bytes(value)) for name, value in scope["headers"]]
    places = {name: list(scope[name]) for name in ("client", "server") if scope.get(name)}
    return {**known, **places, "headers": headers, "body": body}


async def respond(app: App, request: Asked) -> AsyncGenerator[list[Message], None]:
    """Answer a request by an application of this process; see `Passing`."""
    made: asyncio.Queue[Message | None] = asyncio.Queue(WAITING)
    gone = asyncio.Event()
    body: list[bytes] = [request["body"]]
    scope = {key: value for key, value in request.items() if key != "body"}
    for place in ("client", "server"):
        if place in scope:
            scope[place] = tuple(scope[place])
    scope |= {"type": "http", "asgi": {"version": "3.0", "spec_version": "2.3"}, "extensions": {}}

    async def receive() -> Message:
        if body:
            return {"type": "http.request", "body": body.pop(), "more_body": False}
        await gone.wait()
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        if gone.is_set():
            raise OSError("the client disconnected")
        await made.put(message)

    async def run() -> None:
        try:
            await app(scope, receive, send)
        finally:
            if not gone.is_set():
                await made.put(None)

    task = asyncio.create_task(run())
    try:
        while (messages := await _next(made)) is not None:
            yield messages
        await task
    except Exception as error:  # noqa: BLE001 - whatever it raises is a broken answer
        logger.error("a passed request failed: %s", where_raised(error))
        raise EngineServerError(f"it failed ({type(error).__name__})") from None
    finally:
        gone.set()
        await _end(task, made)


async def _next(made: asyncio.Queue[Message | None]) -> list[Message] | None:
    """Wait for a message, and return it with all that have come with it."""
    first = await made.get()
    if first is None:
        return None
    found = [first]
    while not made.empty():
        further = made.get_nowait()
        if further is None:
            made.put_nowait(None)  # the end is read alone
            break
        found.append(further)
    return found


async def _end(task: asyncio.Task[None], made: asyncio.Queue[Message | None]) -> None:
    while not made.empty():
        made.get_nowait()  # an application that waits to send goes on, and is told
    if not task.done():
        await asyncio.wait({task}, timeout=PATIENCE_S)
    task.cancel()
    with suppress(asyncio.CancelledError, Exception):
        await task
