"""The episode of a multi-round router as a pure function of its state: plan, waves, merge."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from waypost.contracts import policy
from waypost.contracts.errors import ConfigError, EmptyPoolError, Fault, names
from waypost.contracts.parameters import Constraint, Integer, Text
from waypost.contracts.records import Decision, Query
from waypost.contracts.router import ScoreRouter
from waypost.contracts.routing_data import RoutingData
from waypost.contracts.step_router import (
    ANSWER,
    Action,
    Call,
    CallResult,
    Delegate,
    EpisodeState,
    FinalAnswer,
    StepRouter,
)
from waypost.contracts.user_state import Users
from waypost_routers._rounds.plans import PlanError, PlanResults, PlanStep, read_plan
from waypost_routers._rounds.prompts import merge_prompt, plan_prompt, repair_prompt, step_prompt

PLAN, REPAIR, STEP, MERGE = "plan", "repair", "step", "merge"
"""Purposes of calls, besides `ANSWER`."""

MOST_STEPS = 8


@dataclass(frozen=True)
class Seen:
    """The results of an episode so far, by purpose."""

    planning: tuple[CallResult, ...]
    waves: tuple[tuple[CallResult, ...], ...]
    finals: tuple[CallResult, ...]
    spent_usd: float

    @classmethod
    def of(cls, state: EpisodeState) -> Seen:
        steps = [step for step in state.steps if step]
        purpose = [step[0].call.purpose for step in steps]
        return cls(
            tuple(s[0] for s, p in zip(steps, purpose, strict=True) if p in (PLAN, REPAIR)),
            tuple(s for s, p in zip(steps, purpose, strict=True) if p == STEP),
            tuple(s[0] for s, p in zip(steps, purpose, strict=True) if p in (MERGE, ANSWER)),
            sum(result.cost_usd or 0.0 for step in steps for result in step),
        )


class MultiRound(StepRouter, ScoreRouter):
    """Splits a query, routes and answers the parts, and merges the answers.

    Mixed into a score router, which it routes by. The parameters `planner`, `merger`,
    `max_steps`, `max_parallel`, `step_tokens` and `plan_tokens` are those of the routers.
    """

    round_constraints: ClassVar[Mapping[str, Constraint]] = {
        "planner": Text(optional=True),
        "merger": Text(optional=True),
        "max_steps": Integer(1, MOST_STEPS),
        "max_parallel": Integer(1, MOST_STEPS),
        "step_tokens": Integer(1),
        "plan_tokens": Integer(1),
    }

    planner: str | None
    merger: str | None
    max_steps: int
    max_parallel: int
    step_tokens: int
    plan_tokens: int

    def _prepare(self, data: RoutingData) -> None:
        super()._prepare(data)
        given = {"planner": self.planner, "merger": self.merger}
        if faults := [
            Fault(f"{self.name}: {key}", f"the data has no LLM {name}; it has {names(data.names)}")
            for key, name in given.items()
            if name is not None and name not in data.names
        ]:
            raise ConfigError(faults)

    # -- the choice for the whole query ---------------------------------------------------------

    def decide(
        self,
        queries: Sequence[Query],
        embeddings: NDArray[np.float32] | None = None,
        users: Users = None,
    ) -> list[Decision]:
        """Decide which LLM answers each query if it is not split; the reason says who plans.

        Raises:
            PolicyError: No model may be chosen. The error is that of the first such query.
        """
        made = super().decide(queries, embeddings, users)
        return [
            replace(decision, reason=f"{decision.reason}; {self._who_plans(query)}")
            for query, decision in zip(queries, made, strict=True)
        ]

    def _who_plans(self, query: Query) -> str:
        asked = self._plan_call(query)
        if asked is None:
            return "answers at once: no plan is asked for"
        return (
            f"{asked.model} plans first ({self.plan_tokens} tokens): at most {self.max_steps} "
            f"steps, {self.max_parallel} at a time, {self.step_tokens} tokens each"
        )

    # -- step -----------------------------------------------------------------------------------

    def step(self, state: EpisodeState) -> Action:
        """Ask for a plan, then for its steps in waves, then for the merged answer. Pure.

        A query that is not split, or whose plan is invalid, gets one call of the LLM that
        `route_single` chooses. A step that fails is given to the next LLM of its ranking once, or
        to the same if there is no other. A final call that fails is given to the next LLM until
        one answers.

        Raises:
            EmptyPoolError: No LLM is allowed, and none was called.
        """
        return self._guarded(state, self._next)

    def fallback(self, state: EpisodeState) -> Action:
        """Merge the answers to the steps so far; without any, ask the query itself. Pure."""
        return self._guarded(state, self._last)

    def _guarded(self, state: EpisodeState, act: Callable[[Query, Seen], Action]) -> Action:
        seen = Seen.of(state)
        for result in seen.finals:
            if result.ok:
                return FinalAnswer(result.text, result.call.model)
        try:
            return act(state.query, seen)
        except EmptyPoolError:  # the policy may have changed since the first call
            if state.steps:
                return FinalAnswer(None)
            raise

    def _next(self, query: Query, seen: Seen) -> Action:
        if not seen.planning and not seen.finals:
            asked = self._plan_call(query)
            if asked is not None:
                return Delegate((asked,))
        if len(seen.planning) == 1 and not seen.waves and not seen.finals:
            asked = self._repair_call(query, seen)
            if asked is not None:
                return Delegate((asked,))
        results = self._results(seen)
        if results is None:
            return self._answer(query, seen)
        if not seen.finals and (ready := results.ready()):
            return Delegate(self._step_calls(query, results, ready, self._left(query, seen)))
        return self._merge(query, seen, results)

    def _last(self, query: Query, seen: Seen) -> Action:
        results = self._results(seen)
        return self._answer(query, seen) if results is None else self._merge(query, seen, results)

    def _results(self, seen: Seen) -> PlanResults | None:
        """Return the results of the latest readable plan; None if it does not split."""
        for result in reversed(seen.planning):
            try:
                plan = read_plan(result.text or "", self.max_steps)
            except PlanError:
                continue
            if not plan.splits:
                return None
            return PlanResults.of(plan, seen.waves, self.max_parallel)
        return None

    # -- calls ----------------------------------------------------------------------------------

    def _plan_call(self, query: Query) -> Call | None:
        """Return the call for a plan; None if a plan is useless or the budget forbids it."""
        if not query.text.strip() or self.max_steps == 1:
            return None
        prompt = self._plan_prompt(query)
        limit = self._limit(query)
        cost = self._usd(len(prompt))
        ranking = _first(self.planner, self._by_mean(query, cost))
        if limit is not None:
            # a plan without money for an answer is money lost
            answer = self._usd(len(query.text), query.input_tokens)
            left = limit - min((answer[n] for n in ranking if n in answer), default=math.inf)
            ranking = [name for name in ranking if cost.get(name, math.inf) <= left]
        if not ranking:
            return None
        return Call(ranking[0], prompt, self.plan_tokens, purpose=PLAN)

    def _plan_prompt(self, query: Query) -> str:
        return plan_prompt(query.text, self.max_steps)

    def _repair_call(self, query: Query, seen: Seen) -> Call | None:
        """Return the call for a corrected plan; None asks for none."""
        return None

    def _repair(self, query: Query, seen: Seen, error: PlanError) -> Call | None:
        (planned,) = seen.planning
        prompt = repair_prompt(planned.call.prompt, planned.text or "", error.summary)
        cost, left = self._usd(len(prompt)), self._left(query, seen)
        ranking = _first(planned.call.model, self._by_mean(query, cost))
        if left is not None:
            ranking = [name for name in ranking if cost.get(name, math.inf) <= left]
        if not ranking:
            return None
        return Call(ranking[0], prompt, self.plan_tokens, purpose=REPAIR)

    def _step_calls(
        self, query: Query, results: PlanResults, ready: Sequence[PlanStep], left: float | None
    ) -> tuple[Call, ...]:
        calls = []
        for step in ready:
            ranking = self._ranking(step, query, left)
            tried = {result.call.model for result in results.tries[step.id]}
            model = next((name for name in ranking if name not in tried), ranking[0])
            calls.append(Call(model, step_prompt(step, results), self.step_tokens, purpose=STEP))
            if left is not None:  # the steps of a wave share what is left
                left = max(left - self._usd(len(step.text)).get(model, 0.0), 0.0)
        return tuple(calls)

    def _answer(self, query: Query, seen: Seen) -> Action:
        """Ask the query itself of the best LLM that has not failed."""
        ranking = self._ranking(PlanStep("", query.text), query, self._left(query, seen))
        return _final(ranking, seen, partial(Call, prompt=query.text, final=True))

    def _merge(self, query: Query, seen: Seen, results: PlanResults) -> Action:
        """Ask for the merged answer; without a single answer, ask the query itself."""
        if not results.answered:
            return self._answer(query, seen)
        prompt = merge_prompt(query.text, results, query.task_name)
        cost = self._usd(len(prompt))
        ranking = _first(self.merger, self._by_mean(query, cost))
        ranking = affordable(ranking, cost, self._left(query, seen))
        return _final(ranking, seen, partial(Call, prompt=prompt, purpose=MERGE, final=True))

    # -- who is asked ---------------------------------------------------------------------------

    def _ranking(self, step: PlanStep, query: Query, left: float | None) -> list[str]:
        """Return the LLMs for a step, best first, by its own text and what the query allows.

        Args:
            step: The step.
            query: The query, for its allowed LLMs and its cost weight.
            left: Dollars left; None is no limit.
        """
        whole = step.text == query.text
        asked = replace(
            query,
            text=step.text,
            task_name=query.task_name if whole else None,
            input_tokens=query.input_tokens if whole else None,
            max_cost_usd=math.nan,  # no limit: `left` is one, and no LLM within it is no error here
        )
        (decision,) = super().decide((asked,), self.embed((asked,)))
        ranking = _first(self._assigned(step), decision.ranking)
        return affordable(ranking, decision.cost_usd, left)

    def _assigned(self, step: PlanStep) -> str | None:
        """Return the LLM that the plan may choose for a step; None leaves it to the router."""
        return None

    def _by_mean(self, query: Query, cost: Mapping[str, float]) -> list[str]:
        """Return the allowed LLMs by training mean, the highest first; of equals the cheapest."""
        known = self.model_names
        order = policy.rank(
            self.mean_quality_,
            [cost.get(name, math.nan) for name in known],
            known,
            allowed=policy.allowed_mask([query], self.policy, known),
        )
        return [known[j] for j in order[0] if j >= 0]

    def _usd(self, characters: int, input_tokens: int | None = None) -> dict[str, float]:
        """Predict the dollars of a call of each LLM; those with an unknown cost are left out."""
        counted = math.nan if input_tokens is None else float(input_tokens)
        cost = self.cost_model_.predict(
            np.array([float(characters)]), input_tokens=np.array([counted])
        )[0]
        known = zip(self.model_names, cost, strict=True)
        return {name: float(usd) for name, usd in known if not math.isnan(usd)}

    def _limit(self, query: Query) -> float | None:
        own = query.max_cost_usd
        return self.policy.max_cost_usd if own is None else own

    def _left(self, query: Query, seen: Seen) -> float | None:
        limit = self._limit(query)
        return None if limit is None else max(limit - seen.spent_usd, 0.0)


def _first(wanted: str | None, ranking: Sequence[str]) -> list[str]:
    """Put a model first, if it is there."""
    return sorted(ranking, key=lambda name: name != wanted)


def affordable(ranking: Sequence[str], cost: Mapping[str, float], left: float | None) -> list[str]:
    """Return the models within the budget; if there is none, all, the cheapest first."""
    if left is None:
        return list(ranking)
    within = [name for name in ranking if cost.get(name, math.inf) <= left]
    return within or sorted(ranking, key=lambda name: cost.get(name, math.inf))


def _final(ranking: Iterable[str], seen: Seen, call: Callable[[str], Call]) -> Action:
    tried = {result.call.model for result in seen.finals}
    model = next((name for name in ranking if name not in tried), None)
    return FinalAnswer(None) if model is None else Delegate((call(model),))
