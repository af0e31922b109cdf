"""The three classes that Ray Serve runs, each in replicas of its own deployment.

Their arguments are plain data, validated here again: a replica may run another environment than
the builder.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from waypost.config import parse
from waypost.contracts.errors import EngineConnectionError
from waypost.engines import make_engine
from waypost.serve.access import client_keys
from waypost.serve.clients import LLMClient, RouterClient
from waypost.serve.decider import Decider, Reply
from waypost.serve.dispatch import local_llms, local_router
from waypost.serve.gateway import Gateway
from waypost.serve.llm_host import LLMHost, Message
from waypost.serve.logs import set_up_logging
from waypost.serve.plan import Plan, RouterPlan, Served
from waypost.serve.ray_clients import HandleLLM, HandleRouter
from waypost.serve.settings import LogArgs, UserConfig


class GatewayNode:
    """The ingress."""

    async def __init__(self, plan: dict[str, Any], router: Any, llms: dict[str, Any]) -> None:  # type: ignore[misc]
        """Start the gateway and what runs inside it.

        Args:
            plan: `Plan` as plain data.
            router: Handle of the router's deployment; None runs it here.
            llms: Handles by LLM name, of those that have a deployment.

        Raises:
            WaypostError: an inline engine or router cannot be had.
        """
        parsed = parse(Plan, plan, "the gateway's plan")
        set_up_logging(parsed.log)
        clients: dict[str, LLMClient] = local_llms(parsed)
        for model in parsed.models:
            if model.deployment is not None:
                clients[model.name] = HandleLLM(model.name, llms[model.name], model.queue_timeout_s)
        decides: RouterClient = local_router(parsed) if router is None else HandleRouter(router)
        keys = client_keys() if parsed.api_keys else None
        self._gateway = Gateway(parsed, decides, clients, keys)
        await self._gateway.start()

    def reconfigure(self, user_config: dict[str, Any]) -> None:
        """Apply policy and prices without a restart.

        Raises:
            ConfigError, PoolMismatchError: the config is wrong; the earlier one stays.
        """
        self._gateway.configure(parse(UserConfig, user_config, "user_config of the gateway"))

    def __serve_build_asgi_app__(self) -> Gateway:
        return self._gateway


class RouterNode:
    """Decides."""

    async def __init__(self, plan: dict[str, Any]) -> None:  # type: ignore[misc]
        """Load the artifacts.

        Args:
            plan: `RouterPlan` as plain data.

        Raises:
            ArtifactError, WeightsError: an artifact or its encoder cannot be had.
        """
        parsed = parse(RouterPlan, plan, "the router's plan")
        set_up_logging(parsed.log)
        self._decider = Decider(parsed)
        await self._decider.start()

    def reconfigure(self, user_config: dict[str, Any]) -> None:
        """Apply policy and prices without a restart.

        Raises:
            ConfigError, PoolMismatchError: the config is wrong; the earlier one stays.
        """
        self._decider.routers.configure(parse(UserConfig, user_config, "user_config of the router"))

    async def decide(self, query: dict[str, Any], router: str) -> Reply:
        """Decide one query; see `Decider.decide`."""
        return await self._decider.decide(query, router)


class LLMNode:
    """Runs one engine."""

    async def __init__(self, model: dict[str, Any], log: dict[str, Any]) -> None:  # type: ignore[misc]
        """Load the engine.

        Args:
            model: `Served` as plain data.
            log: `LogArgs` as plain data.

        Raises:
            WaypostError: the engine cannot be had.
        """
        parsed = parse(Served, model, "the LLM node's model")
        set_up_logging(parse(LogArgs, log, "log"))
        engine = make_engine(parsed.engine, parsed.config, f"pool: {parsed.name}: config")
        self._host = LLMHost(parsed.name, engine, parsed.flush_ms / 1e3)
        await self._host.start()

    async def answer(self, request: dict[str, Any], pace: dict[str, float]) -> list[Message]:
        """Answer one request whole; see `LLMHost.answer`."""
        return await self._host.answer(request, pace)

    async def stream(
        self, request: dict[str, Any], pace: dict[str, float]
    ) -> AsyncGenerator[list[Message], None]:
        """Answer one request in lists of messages; see `LLMHost.stream`."""
        async with aclosing(self._host.stream(request, pace)) as lists:
            async for messages in lists:
                yield messages

    async def check_health(self) -> None:
        """Serve replaces the replica where this raises.

        Raises:
            EngineConnectionError: the engine takes no requests.
        """
        if not await self._host.engine.healthy():
            raise EngineConnectionError(f"{self._host.name}: the engine is not healthy")

    async def __del__(self) -> None:
        # Serve awaits it before it ends a replica gracefully
        await self._host.close()
