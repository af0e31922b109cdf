"""The gateway's own HTTP server: uvicorn's protocol on a listening socket, in its event loop."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import MutableMapping
from email.utils import formatdate
from typing import Any, Protocol

from uvicorn import Config
from uvicorn.server import ServerState

from waypost.serve.gateway.closing import Closing
from waypost.serve.gateway.http import DIRECT, Receive, Send
from waypost.serve.gateway.wire import Wire
from waypost.serve.handover import BACKLOG

KEEP_ALIVE_S = 90
"""Time after which an idle connection is closed, as by Serve's proxy: longer than clients keep
one, else they would send a request on a connection that the server just closed."""

IDLE_S = 1.0
"""Least time without a request after which a leaving server closes a connection."""

NOTHING = "not-here"
"""A path below the prefix at which nothing is."""

TICK_S = 0.25
FLUSH_S = 1.0
"""Time for the last bytes of answers that were ended."""


class Application(Protocol):
    """What an `Ingress` serves: an ASGI application that ends in good order.

    Attributes:
        closing: Whether it stops.
    """

    @property
    def closing(self) -> Closing: ...  # noqa: D102 - above

    def stop(self, after_s: float) -> None:
        """Refuse new requests, and end those still in flight after ``after_s`` seconds."""
        ...

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Serve one ASGI connection."""
        ...


class Ingress:
    """Serves a gateway over HTTP/1.1 on one listening socket, which others may share.

    Args:
        gateway: The gateway, or another application; its event loop is the running one.
        listener: The socket, bound and listening. It is closed at the end.
        prefix: Path that all requests begin with, such as ``/waypost``; "" is none.
    """

    def __init__(self, gateway: Application, listener: socket.socket, prefix: str = "") -> None:
        self._gateway = gateway
        self._prefix = prefix
        self._listener = listener
        self._loop = asyncio.get_running_loop()
        self._state = ServerState()
        self._config = Config(
            self._serve,
            interface="asgi3",
            lifespan="off",
            ws="none",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_keep_alive=KEEP_ALIVE_S,
        )
        self._config.load()
        self._server: asyncio.Server | None = None
        self._ticking: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Accept connections."""
        self._tell_date()
        self._server = await self._loop.create_server(
            lambda: Wire(self._config, self._state, self._loop),
            sock=self._listener,
            backlog=BACKLOG,
        )
        self._ticking = asyncio.create_task(self._tick())

    async def drain(self, within_s: float) -> None:
        """Accept no further connections, and return once all have ended.

        Answers under way are finished, and tell the client to close the connection. Idle
        connections may send one more request for a moment, because a client may be about to. What
        is still open after ``within_s`` seconds ends as by `Gateway.stop`.
        """
        if self._server is None:
            return
        self._server.close()
        self._server = None
        for wire in self._wires():
            wire.leave()
        begin = self._loop.time()
        patience_s = 0.0 if self._gateway.closing.begun else IDLE_S
        while self._wires() and self._loop.time() < begin + within_s:
            now = self._loop.time()
            if now >= begin + patience_s:
                for wire in self._wires():
                    wire.end_if_idle(now - patience_s)
            await asyncio.sleep(min(TICK_S, within_s))
        if self._state.tasks:
            self._gateway.stop(0.0)
            await asyncio.wait(set(self._state.tasks), timeout=FLUSH_S)
        await self.close()

    async def close(self) -> None:
        """Close the listener and every connection at once."""
        if self._server is not None:
            self._server.close()
            self._server = None
        if self._ticking is not None:
            self._ticking.cancel()
        for wire in self._wires():
            wire.transport.close()
        await asyncio.sleep(0)

    @property
    def connections(self) -> int:
        """Number of open connections."""
        return len(self._state.connections)

    def _wires(self) -> list[Wire]:
        return [wire for wire in self._state.connections if isinstance(wire, Wire)]

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(1.0)
            self._tell_date()
            now = self._loop.time()
            for wire in self._wires():
                wire.check_time(now)

    def _tell_date(self) -> None:
        self._state.default_headers = [(b"date", formatdate(usegmt=True).encode("ascii"))]

    async def _serve(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        scope[DIRECT] = True
        if self._prefix:
            scope["root_path"] = self._prefix
            if scope["path"] == self._prefix:
                scope["path"] = f"{self._prefix}/"
            elif not scope["path"].startswith(f"{self._prefix}/"):
                scope["path"] = f"{self._prefix}/{NOTHING}"
        await self._gateway(scope, receive, send)
