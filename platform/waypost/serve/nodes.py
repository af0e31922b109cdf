"""The classes of Ray Serve deployments: gateway, router, LLM, and the owner of folders.

Their arguments are plain data and are validated again here: a replica may run in another Python
environment than the builder.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path
from typing import Any
from urllib.parse import quote

from waypost import ray_compat
from waypost.config import parse
from waypost.contracts.errors import EngineConnectionError
from waypost.engines import make_engine
from waypost.engines.base import Engine
from waypost.serve.backends.base import LLMClient, RouterClient
from waypost.serve.backends.dispatcher import local_llm, local_router
from waypost.serve.backends.llm_replica import LLMHost, Message
from waypost.serve.backends.messages import Reply
from waypost.serve.backends.owner import FeedbackOwner, OwnedFeedback, TurnsOwner
from waypost.serve.backends.passing import Asked, respond
from waypost.serve.backends.passing import Message as PassedMessage
from waypost.serve.backends.ray import HandleLLM, HandleOwner, HandleRouter
from waypost.serve.backends.ray_app import HandleApp
from waypost.serve.backends.router_replica import Decider
from waypost.serve.changes import STOP_AFTER, Changes
from waypost.serve.entrance import Entrance
from waypost.serve.garbage import collect_seldom
from waypost.serve.gateway.access import client_keys
from waypost.serve.gateway.app import Gateway
from waypost.serve.limits import LogArgs
from waypost.serve.logs import set_up_logging
from waypost.serve.plan import Plan, Served
from waypost.serve.standby import prepare_successor


def _figures(application: str) -> Path | None:
    """Return the folder in which the gateways of an application count on this Ray node."""
    node = ray_compat.node_folder()
    return None if node is None else node / "metrics" / quote(application, safe="")


class GatewayNode:
    """Serves HTTP; the ingress of the application."""

    async def __init__(  # type: ignore[misc]
        self,
        plan: dict[str, Any],
        router: Any,
        llms: dict[str, Any],
        owner: Any = None,
        chat: Any = None,
    ) -> None:
        """Start the gateway with its inline router and LLMs, and take requests.

        Args:
            plan: `Plan` as plain data.
            router: Handle of the router's deployment; None runs the router here.
            llms: Handles of the LLMs that have a deployment, by name.
            owner: Handle of the owner of folders; None opens them here.
            chat: Handle of the chat page; None has none.

        Raises:
            WaypostError: an inline router cannot be loaded.
            OSError: its own port cannot be taken.
        """
        parsed = parse(Plan, plan, "the gateway's plan")
        set_up_logging(parsed.log)

        def reach(model: Served) -> LLMClient:
            if model.deployment is None:
                return local_llm(model)
            return HandleLLM(model.name, llms[model.name], model.queue_timeout_s)

        ask = None if owner is None else HandleOwner(owner).ask
        decides: RouterClient = (
            local_router(parsed, ask) if router is None else HandleRouter(router)
        )
        keys = client_keys() if parsed.api_keys else None
        feedback = None if ask is None else OwnedFeedback(ask)
        page = None if chat is None else HandleApp(chat, "the chat page").ask
        application = ray_compat.application_name()
        figures = _figures(application)
        self._gateway = Gateway(parsed, decides, reach, keys, feedback, page, figures)
        await self._gateway.start()
        self._changes = Changes(parsed, self._gateway.adopt, self._gateway.metrics.config)
        self._entrance = Entrance(self._gateway, parsed.listening)
        collect_seldom()
        await self._entrance.open(application)
        self._preparing = asyncio.create_task(prepare_successor())

    async def reconfigure(self, user_config: dict[str, Any]) -> None:
        """Apply a `UserConfig` without a restart; see `Changes.take`.

        A config with only `STOP_AFTER` stops the gateway; see `Gateway.stop`.
        """
        if set(user_config) == {STOP_AFTER}:
            self._entrance.stop(float(user_config[STOP_AFTER]))
            return
        await self._changes.take(user_config)

    async def ask(self, request: Asked) -> AsyncGenerator[list[PassedMessage], None]:
        """Answer a request that the chat page sends; see `Passing`."""
        async with aclosing(respond(self._gateway, request)) as lists:
            async for messages in lists:
                yield messages

    async def problems(self) -> dict[str, str]:
        """Return why inline LLMs are not served, by name."""
        return self._gateway.dispatcher.problems()

    def __serve_build_asgi_app__(self) -> Gateway:
        return self._gateway

    async def __del__(self) -> None:
        # Serve awaits this before it ends a replica gracefully
        if entrance := getattr(self, "_entrance", None):
            await entrance.close()
        if gateway := getattr(self, "_gateway", None):
            await gateway.close_records()


class RouterNode:
    """Decides queries."""

    async def __init__(self, plan: dict[str, Any], owner: Any = None) -> None:  # type: ignore[misc]
        """Load the artifacts.

        Args:
            plan: `Plan` as plain data.
            owner: Handle of the owner of folders; None reads them on this machine.

        Raises:
            ArtifactError, WeightsError: an artifact or its encoder cannot be loaded.
        """
        parsed = parse(Plan, plan, "the router's plan")
        set_up_logging(parsed.log)
        ask = None if owner is None else HandleOwner(owner).ask
        self._decider = Decider(parsed.router, ask)
        await self._decider.start()
        collect_seldom()
        self._changes = Changes(parsed, lambda changed: self._decider.adopt(changed.router))

    async def reconfigure(self, user_config: dict[str, Any]) -> None:
        """Apply a `UserConfig` without a restart; see `Changes.take`."""
        await self._changes.take(user_config)

    async def decide(self, queries: list[tuple[dict[str, Any], str]]) -> list[Reply]:
        """Decide queries, each with the name of its router; see `Decider.decide_all`."""
        return await self._decider.decide_all(queries)

    async def decide_aside(self, queries: list[tuple[dict[str, Any], str]]) -> list[Reply]:
        """Decide queries of shadow routers; see `Decider.decide_aside`."""
        return await self._decider.decide_aside(queries)

    async def step(self, state: dict[str, Any], router: str, version: str, capped: bool) -> Reply:
        """Take one step of an episode; see `Decider.step`."""
        return await self._decider.step(state, router, version, capped)


class OwnerNode:
    """Owns folders that gateways on several machines share; one replica, where they lie."""

    async def __init__(self, feedback_dir: str, log: dict[str, Any]) -> None:  # type: ignore[misc]
        """Open the folders.

        Args:
            feedback_dir: Folder of feedback on this machine.
            log: `LogArgs` as plain data.

        Raises:
            StorageError: a folder cannot be made or read.
        """
        set_up_logging(parse(LogArgs, log, "log"))
        self._feedback = FeedbackOwner(Path(feedback_dir))
        self._turns = TurnsOwner(Path(feedback_dir))
        await self._feedback.start()

    async def write_feedback(self, *sent: Any) -> Reply:
        """Write records of requests, then events; see `FeedbackOwner.write_feedback`."""
        return await self._feedback.write_feedback(*sent)

    async def read_turns(self, *sent: Any) -> Reply:
        """Return turns of users and what changed; see `TurnsOwner.read_turns`."""
        return await self._turns.read_turns(*sent)

    async def __del__(self) -> None:
        # Serve awaits this before it ends a replica gracefully
        await self._feedback.close()
        await self._turns.close()


class LLMNode:
    """Runs one engine."""

    async def __init__(self, model: dict[str, Any], log: dict[str, Any]) -> None:  # type: ignore[misc]
        """Load the engine; see `LLMHost.start`.

        Args:
            model: `Served` as plain data.
            log: `LogArgs` as plain data.
        """
        parsed = parse(Served, model, "the LLM node's model")
        set_up_logging(parse(LogArgs, log, "log"))

        def make() -> Engine:
            return make_engine(parsed.engine, parsed.config, f"pool: {parsed.name}: config")

        self._host = LLMHost(parsed.name, make, parsed.flush_ms / 1e3)
        await self._host.start()

    async def status(self) -> str | None:
        """Return why the LLM is not served; None where it is."""
        return self._host.problem

    async def refusal(self) -> str | None:
        """Return why the LLM is not served, for clients; None where it is served."""
        return None if self._host.problem is None else self._host.refusal

    async def stream(
        self, request: dict[str, Any], pace: dict[str, float], whole: bool
    ) -> AsyncGenerator[list[Message], None]:
        """Answer one request in lists of messages; see `LLMHost.stream`."""
        async with aclosing(self._host.stream(request, pace, whole)) as lists:
            async for messages in lists:
                yield messages

    async def check_health(self) -> None:
        """Check the engine. Serve replaces the replica if this raises.

        Raises:
            EngineConnectionError: the engine takes no requests.
        """
        if not await self._host.healthy():
            raise EngineConnectionError(f"{self._host.name}: the engine is not healthy")

    async def __del__(self) -> None:
        # Serve awaits this before it ends a replica gracefully
        await self._host.close()
