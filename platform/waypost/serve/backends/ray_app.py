"""An ASGI application that is a Serve deployment, as the gateway and the chat page call it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

from waypost import ray_compat
from waypost.contracts.errors import EngineConnectionError
from waypost.serve.backends.passing import Asked, Message
from waypost.serve.backends.ray import cancel, failure_of

APP_S = 20.0
"""Longest wait for a replica, which may be starting again."""


class HandleApp:
    """An application that is a deployment with the method ``ask``; see `Passing`.

    Args:
        handle: Handle of its deployment.
        name: Its name, for messages.
    """

    def __init__(self, handle: Any, name: str) -> None:
        self._ask = handle.options(method_name="ask", stream=True)
        self._name = name

    async def ask(self, request: Asked) -> AsyncGenerator[list[Message], None]:
        """Answer a request; see `Passing`."""
        call = self._ask.remote(request)
        done = False
        try:
            async with asyncio.timeout(APP_S):
                await ray_compat.assigned(call)
            async for messages in call:
                yield messages
            done = True
        except TimeoutError:
            raise EngineConnectionError(f"{self._name}: no replica within {APP_S:g} s") from None
        except Exception as error:  # noqa: BLE001 - a border: what Ray raises is data here
            raise failure_of(error, self._name) from None
        finally:
            if not done:
                cancel(call)
