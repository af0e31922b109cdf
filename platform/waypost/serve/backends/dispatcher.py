"""Decide and call LLMs, without HTTP; shared by the gateway and ``waypost infer``."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from typing import Any, Literal

from waypost.contracts.generation import Usage, total
from waypost.contracts.pricing import PriceList
from waypost.contracts.records import Decision
from waypost.engines import make_engine
from waypost.feedback.outcome import QuestionVector
from waypost.serve.backends.answer_times import AnswerTimes
from waypost.serve.backends.asking import Asking, Opened, Whole
from waypost.serve.backends.base import AbsentLLM, LLMClient, LocalLLM, LocalRouter, RouterClient
from waypost.serve.backends.circuit_breaker import Circuit
from waypost.serve.backends.episodes import Ended, Episode, Passed, Reported, Spent
from waypost.serve.backends.failover import Failover
from waypost.serve.backends.failures import Failure
from waypost.serve.backends.hedging import Hedged
from waypost.serve.backends.llm_replica import LOAD_FAILED
from waypost.serve.backends.owner import Ask
from waypost.serve.backends.router_replica import Decider
from waypost.serve.gateway.chats import without_retrieval
from waypost.serve.gateway.requests import Call
from waypost.serve.plan import Plan, Served
from waypost.sessions.reasoning import Providers
from waypost.sessions.retrieval import Retrieved

Reach = Callable[[Served], LLMClient]
"""Builds the client of an LLM."""

ROUTER = "Router"
"""Name of the router in `Readiness`; no LLM may have it."""

LEAVE_AFTER_S = 5.0
"""Seconds for which an LLM removed from the pool still answers requests decided for it."""

PINNED = "pinned"
"""Name of the router in decisions where the client asked for an LLM by name."""


@dataclass(frozen=True, slots=True)
class Decided:
    """A decision.

    Attributes:
        decision: The decision.
        seconds: Its duration, measured in the gateway.
        vector: The question's vector, where a personal router may learn from it.
        retrieved: The earlier turns that were chosen; None where none were asked for.
    """

    decision: Decision
    seconds: float
    vector: QuestionVector | None = None
    retrieved: Retrieved | None = None

    def call(self, call: Call) -> Call:
        """Return the call with the text that it was routed on."""
        if self.retrieved is None:
            return call
        query = {**without_retrieval(call.query), "query": self.retrieved.text}
        return replace(call, query=query)


@dataclass(frozen=True, slots=True)
class Readiness:
    """Load state of the router and of all LLMs.

    Attributes:
        status: ``ready`` once every load has ended and an LLM is ready; ``failed`` where none is.
        loading_s: Seconds since the load began, for each LLM (or `ROUTER`) that is loading.
        failed: LLM -> why its load failed, for clients. In a deployment the load is retried.
    """

    status: Literal["ready", "loading", "failed"]
    loading_s: dict[str, float]
    failed: dict[str, str]


class Dispatcher:
    """Decides which LLMs to ask, and calls them with failover.

    Args:
        plan: The graph.
        router: Client of the routers.
        reach: Builds the client of an LLM of the plan.
        on_failure: Called for every LLM that did not answer.
        earlier: The dispatcher that this one replaces. Its router, circuit breaker, times, and the
            clients of unchanged LLMs are reused.
        on_hedge: Called for every hedge when it has ended.

    Attributes:
        llms: The client of each LLM by name.
        providers: The provider of each LLM.
    """

    def __init__(
        self,
        plan: Plan,
        router: RouterClient,
        reach: Reach,
        on_failure: Callable[[Failure], None] = lambda _: None,
        earlier: Dispatcher | None = None,
        on_hedge: Callable[[Hedged], None] = lambda _: None,
    ) -> None:
        self.plan = plan
        self._stepping = plan.stepping
        self.providers = Providers({model.name: model.provider for model in plan.models})
        self.circuit: Circuit = Circuit() if earlier is None else earlier.circuit
        self._times: dict[str, AnswerTimes] = {} if earlier is None else earlier._times
        same = {} if earlier is None else earlier._clients_of(plan)
        self.llms: dict[str, LLMClient] = {
            model.name: same.get(model.name) or reach(model) for model in plan.models
        }
        self._new = [name for name in self.llms if name not in same]
        self._router = router
        self._router_runs = earlier is not None
        known = [one for one in plan.router.prices.values() if one.prices is not None]
        self._dearest = max(known, key=lambda one: sum(one.prices or ()), default=None)
        wait = plan.while_loading == "wait"
        self._failover = Failover(
            self.llms,
            Asking(
                plan.limits,
                plan.content_filter,
                plan.deadline,
                plan.hedge,
                {m.name: m.max_tokens for m in plan.models if m.max_tokens is not None},
                self.providers,
            ),
            self.circuit,
            on_failure,
            wait=wait,
            times=self._times,
            on_hedge=on_hedge,
        )

    def _clients_of(self, plan: Plan) -> dict[str, LLMClient]:
        """Return the clients of LLMs that another plan has unchanged."""
        prices = {*PriceList.model_fields, "priced_as", "price_source"}
        before = {model.name: model.model_dump(exclude=prices) for model in self.plan.models}
        return {
            model.name: self.llms[model.name]
            for model in plan.models
            if before.get(model.name) == model.model_dump(exclude=prices)
        }

    async def start(self) -> None:
        """Start the engines and then the routers of this process, if they do not run yet.

        Raises:
            WaypostError: a router cannot be loaded. All that was started is closed again.
        """
        async with AsyncExitStack() as started:
            for name in self._new:
                await self.llms[name].start()
                started.push_async_callback(self.llms[name].close)
                self.circuit.forget(name)
                self._times.pop(name, None)
            if self._router_runs:
                await self._router.adopt(self.plan.router)
            else:
                await self._router.start()
            started.pop_all()

    async def close(self) -> None:
        """Close all that `start` started."""
        async with AsyncExitStack() as running:
            clients: list[LLMClient | RouterClient] = [*self.llms.values(), self._router]
            for client in clients:
                running.push_async_callback(client.close)

    async def leave(self, successor: Dispatcher) -> None:
        """Close the clients that the successor does not reuse, once their requests are finished.

        On cancellation they are closed at once.
        """
        kept = {id(client) for client in successor.llms.values()}
        left = [client for client in self.llms.values() if id(client) not in kept]
        async with AsyncExitStack() as closing:
            for client in left:
                closing.push_async_callback(client.close)
            if left:
                await asyncio.sleep(LEAVE_AFTER_S)
            for client in left:
                await client.drain()

    def problems(self) -> dict[str, str]:
        """Return why engines of this process did not start, by LLM."""
        llms = {name: llm for name, llm in self.llms.items() if isinstance(llm, LocalLLM)}
        return {name: llm.problem for name, llm in llms.items() if llm.problem is not None}

    def readiness(self) -> Readiness:
        """Return the load state of the router and of all LLMs."""
        clients: dict[str, RouterClient | LLMClient] = {ROUTER: self._router, **self.llms}
        loading_s = {name: client.loading.loading_s for name, client in clients.items()}
        awaited = {name: seconds for name, seconds in loading_s.items() if seconds is not None}
        ready = [name for name, llm in self.llms.items() if llm.loading.ready]
        failed = {
            name: llm.loading.problem or LOAD_FAILED
            for name, llm in self.llms.items()
            if name not in {*awaited, *ready}
        }
        return Readiness("loading" if awaited else "ready" if ready else "failed", awaited, failed)

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
        routed = await self._router.decide(call.query, call.router)
        seconds = time.perf_counter() - begin
        return Decided(routed.decision, seconds, routed.vector, routed.retrieved)

    async def open(self, call: Call, decision: Decision) -> Opened:
        """Begin the stream of an answer; see `Failover.open`.

        Raises:
            ExhaustedError: no LLM of the ranking answered.
            EngineRequestError: the request itself is wrong.
        """
        pinned = call.pinned is not None
        return await self._failover.open(decision.ranking, call.requests, pinned=pinned)

    async def whole(self, call: Call, decision: Decision) -> Whole:
        """Return the whole answers; see `Failover.whole`.

        Raises:
            ExhaustedError: no LLM of the ranking answered.
            EngineRequestError: the request itself is wrong.
        """
        pinned = call.pinned is not None
        return await self._failover.whole(decision.ranking, call.requests, pinned=pinned)

    def takes_steps(self, call: Call) -> bool:
        """Return whether the router of a call is a step router."""
        return call.router in self._stepping

    async def episode(
        self,
        call: Call,
        decision: Decision,
        spent: Spent = lambda call, usage, cost_usd: None,
        passed: Passed | None = None,
        reported: Reported | None = None,
    ) -> Ended:
        """Run an episode of a step router; see `Episode`.

        Raises:
            BrokenOffError: the answer ended early, after a part of it was sent.
            ExhaustedError: no LLM gave an answer.
            EngineRequestError: the request itself is wrong.
            StaleDecisionError, RouterUnavailableError: see `RouterClient.step`.
        """
        episode = Episode(
            self.plan,
            self._router,
            self._failover,
            self.cost_usd,
            call,
            decision,
            spent,
            passed,
            reported,
        )
        return await episode.run()

    def cost_usd(self, model: str, usage: Usage) -> float | None:
        """Return the dollars of one answer; None where the LLM's prices are unknown."""
        prices = self.plan.router.prices.get(model)
        return None if prices is None else _cost_usd(prices, usage)

    def dearest_usd(self, usage: Usage) -> float | None:
        """Return the dollars of these tokens at the dearest LLM; None without any prices.

        The dearest LLM is that of the highest price of a prompt token and an output token together.
        """
        return None if self._dearest is None else _cost_usd(self._dearest, usage)


def _cost_usd(prices: PriceList, usage: Usage) -> float | None:
    return prices.cost_usd(
        usage.input_tokens, usage.output_tokens, usage.cached_tokens, usage.reasoning_tokens
    )


def local_llm(model: Served) -> LLMClient:
    """Build the engine of one LLM in this process.

    Raises:
        ConfigError, RegistryError, MissingExtraError: it cannot be built.
    """
    if model.unavailable is not None:
        return AbsentLLM(model.name)
    return LocalLLM(
        model.name,
        make_engine(model.engine, model.config, f"pool: {model.name}: config"),
        model.max_ongoing_requests,
        model.max_queued_requests,
        model.queue_timeout_s,
    )


def local_router(plan: Plan, ask: Ask | None = None) -> RouterClient:
    """Build the router in this process; ``ask`` calls the owner of users' turns."""
    return LocalRouter(Decider(plan.router, ask))


def add(usages: Mapping[Any, Usage]) -> Usage:
    """Return the sum of the usages of several answers."""
    return total(usages.values())
