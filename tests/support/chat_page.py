"""The chat page and its gateway on real sockets, in a thread of this process."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvicorn

from support.gateway import Running, knn_artifact, running
from waypost.chat.app import create_app
from waypost.chat.door import LOOPBACK
from waypost.engines.base import Engine
from waypost.serve.backends.base import LocalLLM
from waypost.serve.gateway.ingress import Ingress
from waypost.serve.handover import listen

COOK = "simmer garlic butter oven dough spice"
"""A question for the LLM ``cook``, which answers slowly with the question's own words."""

PROVE = "matrix kernel prime ring vector"
"""A question for the LLM ``prover``, which fails: another one answers."""

RICH = """The area is

$$\\int_0^1 x^2\\,dx = \\frac{1}{3}$$

so **one third**, as this tells:

```python
def area(n):
    return sum((i / n) ** 2 for i in range(n)) / n
```

| n | area |
|---|---|
| 10 | 0.285 |
| 1000 | 0.333 |
"""
"""What ``tiny`` answers."""

POOL: Mapping[str, Mapping[str, Any]] = {
    "cook": {"tokens_per_s": 25.0},
    "prover": {"fail_with": "500", "delay_s": 0.1},
    "tiny": {"text": RICH, "tokens_per_s": 200.0},
}

START_S = 60.0


@dataclass
class Served:
    """A page and its gateway.

    Attributes:
        url: Of the page; gateway_url: of the gateway.
        folder: Of the feedback.
        running: The gateway.
    """

    url: str
    gateway_url: str
    folder: Path
    running: Running

    def engine(self, name: str) -> Engine:
        """Return the engine of an LLM."""
        llm = self.running.llms[name]
        assert isinstance(llm, LocalLLM)
        return llm.engine


@contextmanager
def served(folder: Path, **options: Any) -> Iterator[Served]:
    """Serve the page over a gateway with echo engines until the block ends.

    Args:
        folder: Where artifacts and feedback go.
        options: Further arguments of `create_app`.
    """
    with _in_thread(lambda ready: _gateway_and_page(folder, options, ready)) as found:
        yield found


@contextmanager
def page_alone(gateway_url: str, **options: Any) -> Iterator[str]:
    """Serve the page over the gateway of some URL; yield its own."""
    with _in_thread(lambda ready: _page(gateway_url, options, ready)) as url:
        yield url


Ready = Callable[[Any], Awaitable[None]]
"""To be awaited once it serves, with what the block gets; returns at the end of the block."""


@contextmanager
def _in_thread(serve: Callable[[Ready], Awaitable[None]]) -> Iterator[Any]:
    found: list[Any] = []
    failed: list[BaseException] = []
    begun = threading.Event()
    ends: list[Callable[[], object]] = []

    async def ready(value: Any) -> None:
        stop, loop = asyncio.Event(), asyncio.get_running_loop()
        found.append(value)
        ends.append(lambda: loop.call_soon_threadsafe(stop.set))
        begun.set()
        await stop.wait()

    async def work() -> None:
        await serve(ready)

    def run() -> None:
        try:
            asyncio.run(work())
        except BaseException as error:  # noqa: BLE001 - raised in the test
            failed.append(error)
        finally:
            begun.set()

    thread = threading.Thread(target=run, name="chat page", daemon=True)
    thread.start()
    assert begun.wait(START_S)
    if failed:
        raise failed[0]
    try:
        yield found[0]
    finally:
        ends[0]()
        thread.join(START_S)
        assert not thread.is_alive()
    if failed:
        raise failed[0]


async def _page(gateway_url: str, options: Mapping[str, Any], ready: Ready) -> None:
    app = create_app(gateway_url, hosts=LOOPBACK, **options)
    listener = listen("127.0.0.1", 0)
    config = uvicorn.Config(app, log_level="error", ws="none", timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    while not server.started and not serving.done():
        await asyncio.sleep(0.02)
    await ready(f"http://127.0.0.1:{listener.getsockname()[1]}")
    server.should_exit = True
    await serving
    listener.close()


async def _gateway_and_page(folder: Path, options: Mapping[str, Any], ready: Ready) -> None:
    routers = {
        "knn": str(knn_artifact(folder / "knn")),
        "rounds": str(knn_artifact(folder / "rounds", "llmmultiroundrouter")),
    }
    pool = [
        {"name": name, "engine": "echo", "placement": "inline", "config": dict(config)}
        for name, config in POOL.items()
    ]
    feedback = folder / "feedback"
    async with running(
        folder,
        routers=routers,
        default_router="knn",
        pool=pool,
        feedback_dir=str(feedback),
        log_queries=True,
        sessions="on",
    ) as found:
        listener = listen("127.0.0.1", 0)
        gateway_url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        ingress = Ingress(found.gateway, listener)
        await ingress.start()

        async def page_is_ready(url: str) -> None:
            await ready(Served(url, gateway_url, feedback, found))

        await _page(gateway_url, options, page_is_ready)
        await ingress.drain(1.0)
