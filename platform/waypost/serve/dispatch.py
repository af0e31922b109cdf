"""Decides and asks, without HTTP: what the gateway and ``waypost infer`` share."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass
from typing import Any

from waypost.contracts.errors import EngineError
from waypost.contracts.generation import Answer, Usage
from waypost.contracts.records import Decision
from waypost.engines import make_engine
from waypost.serve.circuit import Circuit
from waypost.serve.clients import LLMClient, LocalLLM, LocalRouter, RouterClient
from waypost.serve.decider import Decider, check_names
from waypost.serve.failover import Failover, Failure, Opened
from waypost.serve.parsing import Call
from waypost.serve.plan import Plan
from waypost.serve.settings import UserConfig

PINNED = "pinned"
"""What decisions name as their router where the client asked for an LLM by name."""


@dataclass(frozen=True, slots=True)
class Decided:
    """A decision and how long it took, in seconds, as the gateway saw it."""

    decision: Decision
    seconds: float


class Dispatcher:
    """Decides which LLMs to ask, and asks them.

    Args:
        plan: The graph.
        router: How to reach the routers.
        llms: How to reach each LLM of the plan.
        on_failure: Told of every LLM that did not answer.
    """

    def __init__(
        self,
        plan: Plan,
        router: RouterClient,
        llms: Mapping[str, LLMClient],
        on_failure: Callable[[Failure], None] = lambda _: None,
    ) -> None:
        self.plan = plan
        self.circuit = Circuit()
        self._router = router
        self._llms = llms
        self._failover = Failover(llms, plan.limits, self.circuit, on_failure)
        self._prices: dict[str, tuple[float, float]] = plan.router.prices
        self._running = AsyncExitStack()

    async def start(self) -> None:
        """Start what runs in this process, the engines first.

        Raises:
            WaypostError: an engine or a router cannot be had; what had started is closed.
        """
        async with AsyncExitStack() as started:
            clients: list[LLMClient | RouterClient] = [*self._llms.values(), self._router]
            for client in clients:
                await client.start()
                started.push_async_callback(client.close)
            self._running = started.pop_all()

    async def close(self) -> None:
        """Close what `start` started."""
        await self._running.aclose()

    def configure(self, config: UserConfig) -> None:
        """Apply prices, and the policy where the router is in this process.

        Raises:
            PoolMismatchError: the config speaks of an LLM that is not in the pool.
        """
        check_names(config, self.plan.router.served)
        changed = {name: (p.input_price, p.output_price) for name, p in config.prices.items()}
        self._prices = {**self.plan.router.prices, **changed}
        if isinstance(self._router, LocalRouter):
            self._router.decider.routers.configure(config)

    async def decide(self, call: Call) -> Decided:
        """Decide one call.

        Raises:
            PolicyError, SchemaError, RouterUnavailableError: see `RouterClient.decide`.
        """
        if call.pinned is not None:
            reason = "asked for by name"
            pinned = Decision(call.pinned, (call.pinned,), reason=reason, router=PINNED)
            return Decided(pinned, 0.0)
        assert call.router is not None  # one of the two is set
        begin = time.perf_counter()
        decision = await self._router.decide(call.query, call.router)
        return Decided(decision, time.perf_counter() - begin)

    async def open(self, call: Call, decision: Decision, *, whole: bool) -> Opened:
        """Begin the answer; see `Failover.open`.

        Raises:
            ExhaustedError: no LLM of the ranking answered.
            EngineRequestError: the request itself is at fault.
        """
        return await self._failover.open(decision.ranking, call.requests, whole=whole)

    async def answers(self, opened: Opened) -> list[Answer]:
        """Read a whole answer that has begun: one for each request, in order.

        Raises:
            EngineError: it broke off.
        """
        found: dict[int, Answer] = {}
        async with aclosing(opened.pieces) as pieces:
            async for listed in pieces:
                for index, chunk in listed:
                    usage = chunk.usage or Usage()
                    reason = chunk.finish_reason or "stop"
                    found[index] = Answer(chunk.text, reason, usage, chunk.tool_calls)
        return [found[index] for index in sorted(found)]

    def broke_off(self, model: str, error: EngineError) -> None:
        """Note that an answer ended before its end."""
        self.circuit.failed(model, error)

    def cost_usd(self, model: str, usage: Usage) -> float | None:
        """Return the dollars of one answer; None where the LLM's prices are unknown."""
        prices = self._prices.get(model)
        if prices is None:
            return None
        return (usage.input_tokens * prices[0] + usage.output_tokens * prices[1]) / 1e6


def local_llms(plan: Plan, *, every: bool = False) -> dict[str, LLMClient]:
    """Build the engines that run in this process: the inline ones, or every one.

    Raises:
        ConfigError, RegistryError, MissingExtraError: an engine cannot be built.
    """
    return {
        model.name: LocalLLM(
            make_engine(model.engine, model.config, f"pool: {model.name}: config"),
            model.max_ongoing_requests,
            model.max_queued_requests,
            model.queue_timeout_s,
        )
        for model in plan.models
        if every or model.deployment is None
    }


def local_router(plan: Plan) -> RouterClient:
    """Return a router in this process."""
    return LocalRouter(Decider(plan.router))


def add(usages: Mapping[Any, Usage]) -> Usage:
    """Return the sum of the usages of several answers."""
    return Usage(
        sum(usage.input_tokens for usage in usages.values()),
        sum(usage.output_tokens for usage in usages.values()),
    )
