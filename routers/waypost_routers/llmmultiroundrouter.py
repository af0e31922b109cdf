"""Ask one LLM to split a query and to assign an LLM to each sub-question; merge the answers.

The prompted multi-round router of LLMRouter, and the untrained baseline of Router-R1 (arXiv
2506.09033).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from waypost.contracts.cost import column_mean
from waypost.contracts.parameters import Integer
from waypost.contracts.records import Query
from waypost.contracts.router import Prediction, QueryBatch
from waypost.contracts.routing_data import RoutingData
from waypost.contracts.steps import Call
from waypost.contracts.types import Floats
from waypost_routers._ranks import rows_of
from waypost_routers._rounds.plans import PlanError, PlanStep, read_plan
from waypost_routers._rounds.prompts import plan_prompt
from waypost_routers._rounds.rounds import MultiRound, Seen, affordable

_FEATURE_CHARACTERS = 160
_STRENGTHS = 2


class LLMMultiRoundRouter(MultiRound):
    """A plan with an LLM for each step, all by one prompted LLM, and a merging call.

    The prompt describes each allowed LLM: size, price tier, mean score, the tasks at which it is
    furthest above the others' mean, and its description. Their order is drawn by a hash of query
    and seed, so that no position is preferred over many queries. An invalid plan is returned to
    the planner once, with its faults. If an LLM is still unknown then, the best single LLM at the
    request's lambda answers that step; it also answers queries that are not split.

    When to take it:
        As the baseline of learned multi-round routers, and if there are too few measured questions
        to learn more than means. The planner has to know what LLMs are good at; small ones do not.

    Args:
        planner: As knnmultiroundrouter's.
        merger: As knnmultiroundrouter's.
        max_steps: As knnmultiroundrouter's.
        max_parallel: As knnmultiroundrouter's.
        step_tokens: As knnmultiroundrouter's.
        plan_tokens: As knnmultiroundrouter's.
        seed: Seed of the order of the LLMs in the prompt.

    Learned by ``fit``:
        strengths_: For each LLM, the tasks at which its mean score is furthest above the mean of
            all LLMs, with that score, in words; empty if it is above at none.
    """

    name = "llmmultiroundrouter"
    router_family = "agentic"
    needs_embeddings = False
    new_model_support = "few-shot"
    parameter_constraints: ClassVar = {**MultiRound.round_constraints, "seed": Integer(0)}

    strengths_: list[str]

    def __init__(
        self,
        planner: str | None = None,
        merger: str | None = None,
        max_steps: int = 4,
        max_parallel: int = 4,
        step_tokens: int = 512,
        plan_tokens: int = 512,
        seed: int = 0,
    ) -> None:
        self.planner = planner
        self.merger = merger
        self.max_steps = max_steps
        self.max_parallel = max_parallel
        self.step_tokens = step_tokens
        self.plan_tokens = plan_tokens
        self.seed = seed

    def _fit(self, data: RoutingData) -> None:
        task_of = np.array([task or "" for task in data.task_names], dtype=object)
        tasks = sorted({task for task in task_of if task})
        means = np.array([column_mean(data.quality[task_of == task]) for task in tasks])
        self.strengths_ = [
            _strengths(tasks, means[:, j], column_mean(means.T)) if tasks else ""
            for j in range(len(data.llms))
        ]

    def _predict(self, batch: QueryBatch) -> Prediction:
        return Prediction(quality=rows_of(self.mean_quality_, len(batch)))

    def _assigned(self, step: PlanStep) -> str | None:
        return step.model

    def _plan_prompt(self, query: Query) -> str:
        candidates = self._candidates(query)
        lam = self.policy.lam if query.lam is None else query.lam
        return plan_prompt(query.text, self.max_steps, candidates, _advice(lam))

    def _repair_call(self, query: Query, seen: Seen) -> Call | None:
        (planned,) = seen.planning
        if not planned.ok:
            return None
        text = planned.text or ""
        try:
            plan = read_plan(text, self.max_steps)
            if plan.splits:
                read_plan(text, self.max_steps, self._candidates(query))
        except PlanError as error:
            return self._repair(query, seen, error)
        return None

    def _candidates(self, query: Query) -> dict[str, str]:
        """Return the LLMs that the query and its budget allow, described, in a drawn order."""
        cost = self._usd(len(query.text), query.input_tokens)
        allowed = affordable(self._by_mean(query, cost), cost, self._limit(query))

        def draw(name: str) -> bytes:
            key = f"{self.seed}\x1f{query.text}\x1f{name}"
            return hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=8).digest()

        tiers = sorted({cost[name] for name in allowed if name in cost})
        found = {}
        for name in sorted(allowed, key=draw):
            tier = (
                f"price tier {tiers.index(cost[name]) + 1} of {len(tiers)}" if name in cost else ""
            )
            found[name] = self._description(name, tier)
        return found

    def _description(self, name: str, tier: str) -> str:
        column = self.model_names.index(name)
        llm = self.llms_[column]
        parts = [
            llm.size or "",
            tier,
            f"mean score {self.mean_quality_[column]:.2f}",
            self.strengths_[column],
            " ".join(llm.feature.split())[:_FEATURE_CHARACTERS],
        ]
        return "; ".join(part for part in parts if part)


def _strengths(tasks: Sequence[str], own: Floats, mean: Floats) -> str:
    """Return the tasks at which an LLM is furthest above the mean, with its score, in words.

    Args:
        tasks: Names of the n_tasks tasks.
        own: (n_tasks,) the LLM's mean score, NaN where not measured.
        mean: (n_tasks,) the mean over all LLMs.
    """
    ahead = np.nan_to_num(own - mean)
    best = [i for i in np.argsort(-ahead, kind="stable") if ahead[i] > 0][:_STRENGTHS]
    shown = ", ".join(f"{tasks[i]} ({own[i]:.2f})" for i in best)
    return f"strong at {shown}" if best else ""


def _advice(lam: float) -> str:
    """Return in words how the cost weight counts."""
    if lam == 0:
        return "Only the quality of the answer counts, not the price."
    if lam <= 0.3:
        return "Quality counts most; between equals take the lower price tier."
    if lam <= 1:
        return "Quality and price count alike; take a higher price tier only where it is needed."
    return "The price counts most; take the lowest price tier that can answer."
