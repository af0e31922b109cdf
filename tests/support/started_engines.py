"""Engines of a fake upstream: started when a test asks for one, all closed at its end."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from waypost.secrets import KeyRing


@asynccontextmanager
async def started_engines(
    kind: Any, url: str, model: str
) -> AsyncIterator[Callable[..., Awaitable[Any]]]:
    """Yield a function that starts an engine of a class; keywords are keys of its config."""
    made = []

    async def make(keys: KeyRing | None = None, **config: Any) -> Any:
        settings = {"base_url": url, "model": model, "retry_base_s": 0.01} | config
        one = kind(kind.config_class.model_validate(settings), keys or KeyRing())
        await one.start()
        made.append(one)
        return one

    yield make
    for one in made:
        await one.close()
