"""A gateway in this process behind its own HTTP server, on a free port of 127.0.0.1."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support.gateway import Running, running
from waypost.serve.gateway.ingress import Ingress
from waypost.serve.handover import listen


@dataclass(frozen=True)
class Listening:
    """A gateway that listens.

    Attributes:
        url: ``http://127.0.0.1:<port>``.
        up: The gateway.
        server: Its HTTP server.
    """

    url: str
    up: Running
    server: Ingress

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Open a connection."""
        host, _, port = self.url.removeprefix("http://").partition(":")
        return await asyncio.open_connection(host, int(port))


@asynccontextmanager
async def listening(
    artifact: Path, *, prefix: str = "", **changes: Any
) -> AsyncIterator[Listening]:
    """Run a gateway and its HTTP server during the block.

    Args:
        artifact: Artifact of the router.
        prefix: Route prefix.
        changes: As of `running`.
    """
    async with running(artifact, **changes) as up:
        listener = listen("127.0.0.1", 0)
        server = Ingress(up.gateway, listener, prefix)
        await server.start()
        try:
            yield Listening(f"http://127.0.0.1:{listener.getsockname()[1]}", up, server)
        finally:
            await server.close()
