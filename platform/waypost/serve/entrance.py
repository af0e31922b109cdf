"""Where a replica of the gateway takes requests beside Serve's proxy."""

from __future__ import annotations

import asyncio
import socket

from waypost.config import environment_value
from waypost.serve.gateway.app import Gateway
from waypost.serve.gateway.ingress import Ingress
from waypost.serve.handover import VARIABLE, Door, knock, listen
from waypost.serve.limits import Listening

FLUSH_S = 2.0
"""Time that Serve's deadline for a stopped replica leaves for error events and for the end."""


class Entrance:
    """The gateway's own HTTP servers: on the port of ``waypost serve``, on a port of its own.

    They run in the event loop that Serve runs the node in, which all state of the gateway belongs
    to. Apart, in a loop of their own, they were slower (DECISIONS.md, 83).

    Args:
        gateway: The gateway.
        listening: What the Serve file says about it.
    """

    def __init__(self, gateway: Gateway, listening: Listening) -> None:
        self._gateway = gateway
        self._listening = listening
        self._door: Door | None = None
        self._servers: list[Ingress] = []
        self._watching: asyncio.Task[None] | None = None

    async def open(self, application: str) -> None:
        """Take requests.

        Args:
            application: Name of the application in the Serve file.

        Raises:
            OSError: the launcher does not answer, or the port is taken.
        """
        path = environment_value(VARIABLE)
        if self._listening.direct and path is not None:
            self._door = await asyncio.to_thread(knock, path, application)
        if self._door is not None:
            await self._serve(self._door.listener, self._door.prefix)
        if self._listening.port is not None:
            host, port = self._listening.host, self._listening.port
            await self._serve(listen(host, port, shared=True), "")

    async def _serve(self, listener: socket.socket, prefix: str) -> None:
        server = Ingress(self._gateway, listener, prefix)
        await server.start()
        self._servers.append(server)

    def stop(self, after_s: float) -> None:
        """Stop the gateway; see `Gateway.stop`. Tell the launcher once no request is left."""
        self._gateway.stop(after_s)
        if self._door is not None and self._watching is None:
            self._watching = asyncio.create_task(self._tell_idle(self._door))

    async def _tell_idle(self, door: Door) -> None:
        await self._gateway.closing.done()
        door.tell_idle()

    async def close(self) -> None:
        """Finish open requests, then end; see `Ingress.drain`."""
        within_s = max(self._listening.drain_s / 2, self._listening.drain_s - FLUSH_S)
        await asyncio.gather(*(server.drain(within_s) for server in self._servers))
        self._servers.clear()
        if self._watching is not None:
            self._watching.cancel()
        if self._door is not None:
            self._door.close()
