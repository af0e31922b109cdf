"""Episodes behind the gateway: a step router and the LLMs of the pool.

The router may run in another process. Its calls use the same clients, circuit breakers and
time-outs as other requests. A failed call is a result for the router, which continues.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any, Literal

from waypost.contracts.errors import (
    EngineConnectionError,
    EngineError,
    EngineServerError,
    EngineTimeoutError,
    WaypostError,
)
from waypost.contracts.generation import Answer, Chunk, GenerateRequest, Usage, joined
from waypost.contracts.records import Decision, Query
from waypost.contracts.steps import ANSWER, Action, CallResult, EpisodeState
from waypost.contracts.steps import Call as StepCall
from waypost.episode import EpisodeLimits, EpisodeResult, run_episode
from waypost.serve.backends.asking import Opened
from waypost.serve.backends.base import RouterClient
from waypost.serve.backends.failover import Failover
from waypost.serve.backends.failures import ExhaustedError, Failure
from waypost.serve.gateway.requests import Call
from waypost.serve.plan import Plan

CostOf = Callable[[str, Usage], float | None]
"""Dollars of one answer of an LLM; None where its prices are unknown."""

Spent = Callable[[StepCall, Usage, float | None], None]
"""Called for every finished call, also where the client has disconnected."""


Passed = Callable[[str, int, list[Chunk]], Awaitable[None]]
"""Receives the final answer as it is generated: the LLM, the number of LLMs asked, and chunks."""


CallState = Literal["started", "done", "failed", "cancelled"]


@dataclass(frozen=True, slots=True)
class Progress:
    """The start or the end of one call of an episode.

    Attributes:
        number: Number of the call, from 1, in the order of the starts.
        purpose: See `waypost.contracts.steps.Call`.
        model: Name of the LLM.
        state: ``cancelled`` where the step was settled without the call, or the time was over.
        seconds: Since the start; None at the start.
        usage: Tokens; None unless done.
        cost_usd: Dollars; None where unknown, and unless done.
    """

    number: int
    purpose: str
    model: str
    state: CallState
    seconds: float | None = None
    usage: Usage | None = None
    cost_usd: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the form of the stream's event; what does not apply is left out."""
        told: dict[str, Any] = {
            "number": self.number,
            "purpose": self.purpose,
            "model": self.model,
            "state": self.state,
        }
        if self.seconds is not None:
            told["seconds"] = round(self.seconds, 6)
        if self.usage is not None:
            told["input_tokens"] = self.usage.input_tokens
            told["output_tokens"] = self.usage.output_tokens
            told["cost_usd"] = self.cost_usd
        return told


Reported = Callable[[Progress], Awaitable[None]]
"""Called when a call of an episode starts and when it ends."""


class BrokenOffError(WaypostError):
    """An answer ended early, after a part of it was sent to the client."""

    def __init__(self, model: str, error: EngineError) -> None:
        super().__init__(str(error))
        self.model, self.error = model, error


@dataclass(frozen=True, slots=True)
class Ended:
    """The answer of an episode.

    Attributes:
        model: The LLM of the answer, or the router's name where the router itself wrote it.
        answer: Text and finish reason, with the usage of all calls together.
        attempts: Number of LLMs asked.
        result: Steps and usage of the episode.
    """

    model: str
    answer: Answer
    attempts: int
    result: EpisodeResult

    @property
    def cost_usd(self) -> float | None:
        """Sum of the known dollars of all calls; None where no call's dollars are known."""
        unknown = self.result.unpriced_calls == len(self.result.calls)
        return None if unknown else self.result.cost_usd

    @property
    def failed(self) -> set[str]:
        """LLMs that did not answer a call."""
        return {call.call.model for call in self.result.calls if not call.ok}

    def told(self) -> dict[str, Any]:
        """Return the usage of the episode in the form of ``usage.waypost``."""
        result = self.result
        return {
            "steps": len(result.steps),
            "calls": len(result.calls),
            "unpriced_calls": result.unpriced_calls,
            "input_tokens": result.input_tokens,
            "output_tokens": result.output_tokens,
            "ended_by": result.ended_by,
        }


class RemoteSteps:
    """Proxy of a step router for `run_episode`.

    Args:
        router: Client of the router.
        name: Name of the router.
        version: Router version in its decision on this query.
    """

    def __init__(self, router: RouterClient, name: str, version: str) -> None:
        self._router = router
        self._name = name
        self._version = version

    async def step(self, state: EpisodeState) -> Action:
        """Ask the router for the next step; see `RouterClient.step`."""
        return await self._router.step(state.to_dict(), self._name, self._version)

    async def fallback(self, state: EpisodeState) -> Action:
        """Ask the router for the last action; see `RouterClient.step`."""
        return await self._router.step(state.to_dict(), self._name, self._version, capped=True)


class _RequestAtFaultError(Exception):
    """An LLM refused the client's own request as wrong. Ends the episode."""

    def __init__(self, error: EngineError) -> None:
        super().__init__()
        self.error = error


class Episode:
    """Runs one episode.

    Args:
        plan: The graph.
        router: Client of the router.
        failover: Calls LLMs.
        cost_of: Prices an answer.
        call: The client's request.
        decision: The router's first decision on it.
        spent: See `Spent`.
        passed: See `Passed`; None where the client waits for the whole answer.
        reported: See `Reported`; None where nobody asked for progress.
    """

    def __init__(
        self,
        plan: Plan,
        router: RouterClient,
        failover: Failover,
        cost_of: CostOf,
        call: Call,
        decision: Decision,
        spent: Spent,
        passed: Passed | None,
        reported: Reported | None = None,
    ) -> None:
        assert call.router is not None  # a pinned LLM has no episode
        self._limits = plan.limits
        self._policy = plan.router.policy
        self._steps = RemoteSteps(router, call.router, decision.router_version)
        self._failover = failover
        self._cost_of = cost_of
        self._call = call
        self._decision = decision
        self._spent = spent
        self._passed = passed
        self._reported = reported
        self._passing: str | None = None  # the LLM whose answer is streamed to the client
        self._query = Query.of(call.query)
        self._allowed = _allowed(plan, self._query)
        self._begun = 0
        self._asked: list[str] = []
        self._failures: list[Failure] = []
        self._answers: dict[tuple[str, str], Answer] = {}

    async def run(self) -> Ended:
        """Run the episode and return its answer.

        Raises:
            ExhaustedError: no LLM gave an answer.
            BrokenOffError: the answer ended early, after a part of it was sent.
            EngineRequestError: the client's request is wrong.
            StaleDecisionError: the router was replaced meanwhile.
            PolicyError, RouterUnavailableError: the router cannot continue.
        """
        total_s = self._limits.total_timeout_s
        self._deadline = asyncio.get_running_loop().time() + total_s
        self._failover.check(self._decision.ranking)
        try:
            result = await run_episode(self._steps, self._query, self._ask, self._caps(total_s))
        except _RequestAtFaultError as refused:
            raise refused.error from None
        except BrokenOffError:
            raise
        except WaypostError:
            self._check_not_passing()  # an answer that is partly sent cannot start again
            raise
        self._check_not_passing()
        if result.text is None:
            late = EngineTimeoutError("no answer within the time of the whole request")
            raise ExhaustedError(self._failures or [Failure(self._decision.model, late)])
        usage = Usage(result.input_tokens, result.output_tokens)
        model = result.model or self._decision.router
        found = self._answers.get((model, result.text))
        answer = replace(found or Answer(result.text, "stop", usage), usage=usage)
        return Ended(model, answer, len(set(self._asked)), result)

    def _caps(self, total_s: float) -> EpisodeLimits:
        limits = self._limits
        last_s = min(limits.first_token_timeout_s, total_s / 2)
        own = self._query.max_cost_usd
        return EpisodeLimits(
            max_steps=limits.max_steps,
            max_tokens=limits.max_episode_tokens,
            max_cost_usd=self._policy.max_cost_usd if own is None else own,
            wall_s=total_s - last_s,
            last_call_s=last_s,
        )

    def _check_not_passing(self) -> None:
        if self._passing is not None:
            late = EngineTimeoutError("the time of the whole request is over")
            raise BrokenOffError(self._passing, late)

    async def _ask(self, asked: StepCall) -> CallResult:
        self._check_not_passing()
        if self._reported is None:
            return await self._call_llm(asked)
        self._begun += 1
        progress = Progress(self._begun, asked.purpose, asked.model, "started")
        begun = asyncio.get_running_loop().time()

        async def ended(state: CallState, **known: Any) -> None:
            assert self._reported is not None  # checked above
            seconds = asyncio.get_running_loop().time() - begun
            await self._reported(replace(progress, state=state, seconds=seconds, **known))

        await self._reported(progress)
        try:
            result = await self._call_llm(asked)
        except asyncio.CancelledError:
            await ended("cancelled")
            raise
        except (EngineError, BrokenOffError, _RequestAtFaultError):
            await ended("failed")
            raise
        usage = Usage(result.input_tokens, result.output_tokens)
        await ended("done", usage=usage, cost_usd=result.cost_usd)
        return result

    async def _call_llm(self, asked: StepCall) -> CallResult:
        others = tuple(name for name in self._decision.ranking if name != asked.model)
        request = self._request(asked)
        self._asked.append(asked.model)
        try:
            if asked.model not in self._allowed:
                raise EngineConnectionError(f"{asked.model} is not among the models allowed")
            streams = asked.final and self._passed is not None
            ask = (asked.model, request, others, self._deadline)
            if streams:
                answer = await self._pass_on(await self._failover.call(*ask))
            else:
                answer = await self._failover.call_whole(*ask)
        except EngineError as error:
            self._failures.append(Failure(asked.model, error))
            if self._is_the_clients(asked) and not self._failover.goes_on(error):
                raise _RequestAtFaultError(error) from None
            raise
        cost_usd = self._cost_of(asked.model, answer.usage)
        self._spent(asked, answer.usage, cost_usd)
        self._answers[asked.model, answer.text] = answer
        return CallResult(
            asked,
            answer.text,
            input_tokens=answer.usage.input_tokens,
            output_tokens=answer.usage.output_tokens,
            cost_usd=cost_usd,
        )

    async def _pass_on(self, opened: Opened) -> Answer:
        """Stream an answer to the client as it is generated."""
        assert self._passed is not None  # checked by the caller
        self._passing = opened.model
        read: list[Chunk] = []
        try:
            async with aclosing(opened.pieces) as lists:
                async for pieces in lists:
                    chunks = [chunk for _, chunk in pieces]
                    await self._passed(opened.model, len(set(self._asked)), chunks)
                    read.extend(chunks)
            if not read or read[-1].usage is None:
                raise EngineServerError("the answer ended without its last part")
        except EngineError as error:
            raise BrokenOffError(opened.model, error) from None
        self._passing = None
        return joined(read)

    def _is_the_clients(self, asked: StepCall) -> bool:
        return asked.purpose == ANSWER and asked.prompt == self._query.text

    def _request(self, asked: StepCall) -> GenerateRequest:
        """Return the request of one call.

        A call whose answer may go to the client has the client's options and all turns of the
        chat. A router that changed the question replaces the last user turn and what follows it.
        """
        own = self._call.requests[0]
        id_ = f"{self._call.request_id}-{len(self._asked)}"
        turn = [{"role": "user", "content": asked.prompt}]
        if asked.purpose != ANSWER and not asked.final:
            most = min(asked.max_tokens or self._limits.max_tokens, self._limits.max_tokens)
            return GenerateRequest(
                id_,
                messages=None if asked.raw else turn,
                prompt=asked.prompt if asked.raw else None,
                max_tokens=most if asked.max_tokens else None,
                temperature=asked.temperature,
                seed=asked.seed,
                stop=asked.stop,
            )
        if asked.raw or (own.prompt is not None and not self._is_the_clients(asked)):
            own = replace(own, messages=None, prompt=asked.prompt)
        elif not self._is_the_clients(asked):
            own = replace(own, messages=[*_before_last_user(own.messages), *turn])
        return replace(
            own,
            request_id=id_,
            max_tokens=asked.max_tokens if own.max_tokens is None else own.max_tokens,
            temperature=asked.temperature if own.temperature is None else own.temperature,
            seed=asked.seed if own.seed is None else own.seed,
            stop=(*own.stop, *(one for one in asked.stop if one not in own.stop)),
        )


def _before_last_user(messages: Iterable[Mapping[str, Any]] | None) -> list[Any]:
    turns = list(messages or ())
    places = [place for place, turn in enumerate(turns) if turn.get("role") == "user"]
    return turns[: places[-1]] if places else []


def _allowed(plan: Plan, query: Query) -> frozenset[str]:
    """Return the LLMs that an episode may ask: those that pool, policy and request all allow."""
    allowed = set(plan.router.served)
    for names in (plan.router.policy.allowed_models, query.allowed_models):
        if names is not None:
            allowed &= set(names)
    return frozenset(allowed)
