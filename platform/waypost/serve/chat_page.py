"""The chat page behind the gateway, and its way to the gateway. This module does not use Ray.

The page is an ASGI application over a gateway's URL. The gateway passes its requests to it; the
requests of the page itself go to a port of the loopback, which leads to the gateway.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import suppress
from functools import partial
from typing import Any

from waypost.contracts.errors import ConfigError, EngineError, EngineServerError, Fault
from waypost.serve.backends.passing import App, Asked, Message, Passing, respond
from waypost.serve.gateway.access import client_keys
from waypost.serve.gateway.closing import Closing
from waypost.serve.gateway.errors import Problem
from waypost.serve.gateway.http import Arrivals, ClientGoneError, Exchange, Receive, Send
from waypost.serve.gateway.ingress import Ingress
from waypost.serve.gateway.looking import CHAT
from waypost.serve.handover import listen
from waypost.serve.plan import Plan

LIFESPAN_S = 60.0
"""Longest start and end of the page."""

BODY_S = 30.0
MOST_ARRIVALS = 1024


class ChatPage:
    """The page of a plan.

    Args:
        plan: The graph.
        gateway: Its gateway.

    Raises:
        ConfigError: the plan has no chat, or its clients' keys are missing.
    """

    def __init__(self, plan: Plan, gateway: Passing) -> None:
        if plan.chat is None:
            raise ConfigError([Fault("chat", "is off")])
        self._hosts = None if "*" in plan.chat.hosts else plan.chat.hosts
        self._keys = client_keys() if plan.api_keys else None
        self._way = Way(gateway, plan.limits.max_body_bytes)
        self._app: App | None = None
        self._life: Lifespan | None = None

    async def start(self) -> None:
        """Start the page.

        Raises:
            MissingExtraError: Gradio is not installed.
            EngineServerError: its start failed.
        """
        from waypost.chat.app import create_app

        await self._way.open()
        self._app = create_app(
            self._way.url,
            root_path=CHAT,
            login=None if self._keys is None else self._enter,
            hosts=self._hosts,
        )
        self._life = Lifespan(self._app)
        await self._life.begin()

    def _enter(self, name: str, password: str) -> bool:
        """Return whether a password is a client's key; the page sends it with the requests."""
        return self._keys is not None and self._keys.accept(f"Bearer {password}")

    def ask(self, request: Asked) -> AsyncGenerator[list[Message], None]:
        """Answer a request of a browser; see `Passing`."""
        assert self._app is not None  # `start` made it
        return respond(self._app, request)

    async def close(self) -> None:
        """End the page."""
        if self._life is not None:
            await self._life.end()
        await self._way.close()


class Way:
    """A port on the loopback of this machine, which leads to an application elsewhere.

    Args:
        passing: The application.
        most: Most bytes of a body.

    Attributes:
        url: Its URL; set by `open`.
        closing: As `Ingress` needs it.
    """

    def __init__(self, passing: Passing, most: int) -> None:
        self._passing = passing
        self._most = most
        self._arrivals = Arrivals(MOST_ARRIVALS)
        self._server: Ingress | None = None
        self.closing = Closing()
        self.url = ""

    async def open(self) -> None:
        """Listen."""
        listener = listen("127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        self._server = Ingress(self, listener)
        await self._server.start()

    def stop(self, after_s: float) -> None:
        """End what is open after ``after_s`` seconds."""
        self.closing.begin(after_s)

    async def close(self) -> None:
        """End, with all that is open."""
        if self._server is not None:
            await self._server.close()

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        """Serve one request."""
        http = Exchange(scope, receive, send)
        with suppress(ClientGoneError):
            try:
                body = await http.upload(self._most, BODY_S, self._arrivals)
                await http.until_gone(partial(http.pass_on, self._passing, body))
            except Problem as problem:
                await http.reply_problem(problem)
            except EngineError as error:
                if http.begun:
                    raise
                await http.reply_problem(Problem(503, str(error), code="gateway_unavailable"))


class Lifespan:
    """Start and end of an ASGI application, as a server runs them.

    Args:
        app: The application.
    """

    def __init__(self, app: App) -> None:
        self._app = app
        self._told: asyncio.Queue[Message] = asyncio.Queue()
        self._done: asyncio.Queue[Message] = asyncio.Queue()
        self._task: asyncio.Future[None] | None = None

    async def begin(self) -> None:
        """Run the application's start.

        Raises:
            EngineServerError: it failed.
        """
        scope = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": {}}
        self._task = asyncio.ensure_future(self._app(scope, self._told.get, self._done.put))
        await self._say("lifespan.startup")

    async def end(self) -> None:
        """Run the application's end."""
        if self._task is not None and not self._task.done():
            await self._say("lifespan.shutdown")

    async def _say(self, what: str) -> None:
        assert self._task is not None  # `begin` made it
        await self._told.put({"type": what})
        answer: asyncio.Future[Message] = asyncio.ensure_future(self._done.get())
        either: set[asyncio.Future[Any]] = {answer, self._task}
        done, _ = await asyncio.wait(
            either, timeout=LIFESPAN_S, return_when=asyncio.FIRST_COMPLETED
        )
        answer.cancel()
        found = answer.result() if answer in done else {"type": "nothing"}
        if found["type"] != f"{what}.complete":
            raise EngineServerError(f"the page failed at {what}: {found.get('message', '')}")
