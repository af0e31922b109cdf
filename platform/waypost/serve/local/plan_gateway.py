"""A gateway in this process, for a chat page without a server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from waypost.serve.backends.dispatcher import local_llm, local_router
from waypost.serve.gateway.app import Gateway
from waypost.serve.gateway.ingress import Ingress
from waypost.serve.handover import listen
from waypost.serve.plan import Plan

DRAIN_S = 2.0
"""Time that open answers have when the page is closed."""


@asynccontextmanager
async def gateway(plan: Plan) -> AsyncIterator[str]:
    """Serve a plan on a free port of 127.0.0.1 during the block; yield the URL.

    Raises:
        WaypostError: the router cannot be loaded, or a folder cannot be written.
    """
    served = Gateway(plan, local_router(plan), local_llm)
    await served.start()
    listener = listen("127.0.0.1", 0)
    port = listener.getsockname()[1]
    ingress = Ingress(served, listener)
    await ingress.start()
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        await asyncio.shield(ingress.drain(DRAIN_S))
        await served.close()
