"""The class of the Ray Serve deployment of the chat page.

Ray Serve's integration of Gradio does not run Gradio's start-up (seen with ray 2.60.0 and gradio
6.31.0), so the page runs as what it is, an ASGI application; the gateway passes its requests here.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from waypost import ray_compat
from waypost.config import parse
from waypost.serve.backends.passing import Asked, Message
from waypost.serve.backends.ray_app import HandleApp
from waypost.serve.chat_page import ChatPage
from waypost.serve.logs import set_up_logging
from waypost.serve.plan import Plan


class ChatNode:
    """Serves the chat page; one replica."""

    async def __init__(self, plan: dict[str, Any]) -> None:  # type: ignore[misc]
        """Start the page.

        Args:
            plan: `Plan` as plain data.

        Raises:
            WaypostError: see `ChatPage`.
        """
        parsed = parse(Plan, plan, "the chat's plan")
        set_up_logging(parsed.log)
        self._gateway: HandleApp | None = None
        self._page = ChatPage(parsed, self._ask_gateway)
        await self._page.start()

    async def ask(self, request: Asked) -> AsyncGenerator[list[Message], None]:
        """Answer a request of a browser; see `Passing`."""
        async with aclosing(self._page.ask(request)) as lists:
            async for messages in lists:
                yield messages

    async def _ask_gateway(self, request: Asked) -> AsyncGenerator[list[Message], None]:
        if self._gateway is None:  # at the first request it is there, at the start it is not
            application = ray_compat.application_name()
            found = await asyncio.to_thread(ray_compat.deployment, "Gateway", application)
            self._gateway = HandleApp(found, "the gateway")
        async with aclosing(self._gateway.ask(request)) as lists:
            async for messages in lists:
                yield messages

    async def __del__(self) -> None:
        # Serve awaits this before it ends a replica gracefully
        if page := getattr(self, "_page", None):
            await page.close()
