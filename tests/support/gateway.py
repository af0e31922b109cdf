"""A gateway in this process: a real router and `echo` engines, no Ray and no socket."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support.asgi import Client
from waypost.encoders import make_encoder
from waypost.engines.echo import EchoEngine
from waypost.feedback import Writer
from waypost.loading import save_router
from waypost.registry import make_router
from waypost.serve.backends.base import LLMClient, LocalLLM
from waypost.serve.backends.dispatcher import local_llm, local_router
from waypost.serve.backends.owner import Ask
from waypost.serve.backends.passing import Passing
from waypost.serve.config import ServeArgs
from waypost.serve.gateway.access import ClientKeys
from waypost.serve.gateway.app import Gateway
from waypost.serve.plan import Plan, make_plan
from waypost.testing.synthetic import ENCODER_ID, planted

COOKING, ALGEBRA = planted().queries[:2]
"""Two questions; the best LLM is ``cook`` for the first and ``prover`` for the second."""


def knn_artifact(folder: Path, router_name: str = "knnrouter") -> Path:
    """Train a router on the planted data (LLMs cook, prover, tiny) and save it."""
    data = planted()
    router: Any = make_router(router_name)
    router.fit(data)
    router.encoder = make_encoder(ENCODER_ID)
    save_router(router, folder, data)
    return folder


def echo_pool(**configs: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return a pool of inline echo engines: cook, prover and tiny, each with its config."""
    return [
        {"name": name, "engine": "echo", "placement": "inline", "config": configs.get(name, {})}
        for name in ("cook", "prover", "tiny")
    ]


def arguments(artifact: str | Path, **changes: Any) -> dict[str, Any]:
    """Return arguments of a Serve graph whose router and LLMs are inline."""
    plain = {
        **({} if "routers" in changes else {"artifact": str(artifact)}),
        "pool": echo_pool(),
        "router": {"placement": "inline", "threads": 0},
    }
    return plain | changes


@dataclass(frozen=True)
class Running:
    """A started gateway."""

    plan: Plan
    gateway: Gateway
    client: Client

    @property
    def llms(self) -> Mapping[str, LLMClient]:
        """Client by LLM name."""
        return self.gateway.dispatcher.llms

    def echo(self, name: str) -> EchoEngine:
        """Return the engine of an LLM."""
        llm = self.llms[name]
        assert isinstance(llm, LocalLLM)
        assert isinstance(llm.engine, EchoEngine)
        return llm.engine


@asynccontextmanager
async def running(
    artifact: Path,
    *,
    keys: ClientKeys | None = None,
    feedback: Writer | None = None,
    ask: Ask | None = None,
    page: Passing | None = None,
    **changes: Any,
) -> AsyncIterator[Running]:
    """Start a gateway with these changes to `arguments`."""
    plan = make_plan(ServeArgs.model_validate(arguments(artifact, **changes)))
    gateway = Gateway(plan, local_router(plan, ask), local_llm, keys, feedback, page)
    await gateway.start()
    try:
        yield Running(plan, gateway, Client(gateway))
    finally:
        await gateway.close()


@asynccontextmanager
async def stepping(artifact: Path, pool: Any = None, **changes: Any) -> AsyncIterator[Running]:
    """Start a gateway with a step router of a plug-in; the default pool is `echo_pool`."""
    pool = pool or echo_pool()
    async with running(artifact, allow_plugin_code=True, pool=pool, **changes) as found:
        yield found


def chat(text: str = COOKING, **fields: Any) -> dict[str, Any]:
    """Return the body of a one-turn chat request."""
    return {"model": "auto", "messages": [{"role": "user", "content": text}]} | fields


def unservable(name: str) -> dict[str, Any]:
    """An entry whose engine does not start: there is no key of that service."""
    config = {"base_url": "http://127.0.0.1:9/v1", "model": "m", "service": "nobody"}
    return {"name": name, "engine": "openai", "config": config}
