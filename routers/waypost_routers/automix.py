"""Call a cheap LLM first; its verdicts on its own answer decide whether to call the next LLM.

AutoMix (arXiv 2310.12963), for any number of LLMs, cheapest first. The verdicts of a tier are
requested concurrently; pending ones are cancelled once they cannot change the action. The action
tables are learned from recorded answers and verdicts (`waypost data verdicts`), one chain for each
of a grid of cost weights. All costs include the dollars of the verdicts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from waypost.contracts import policy
from waypost.contracts.errors import ConfigError, Fault, names
from waypost.contracts.parameters import Integer, OneOf
from waypost.contracts.records import Decision, Query, QueryBatch, QueryLike
from waypost.contracts.routing_data import RoutingData
from waypost.contracts.splits import fold_of
from waypost.contracts.step_router import (
    ANSWER,
    Action,
    Call,
    CallResult,
    Delegate,
    EpisodeState,
    FinalAnswer,
    TrainableStepRouter,
    Vote,
)
from waypost.contracts.verdicts import MAX_VERDICTS, YES, verdict_call
from waypost_routers._cascade.chains import FAMILIES
from waypost_routers._cascade.plans import (
    FOLDS,
    LAMBDAS,
    Plan,
    choose_plan,
    count_verdicts,
    ladder_of,
)


@dataclass(frozen=True)
class _Names:
    """Several different names, or null."""

    def allows(self, value: Any) -> bool:
        if value is None:
            return True
        listed = isinstance(value, list | tuple) and all(isinstance(name, str) for name in value)
        return listed and 0 < len(value) == len(set(value))

    def __str__(self) -> str:
        return "a list of different model names, or null"


@dataclass(frozen=True)
class _Route:
    """The route of a query: the tiers of its plan, and all LLMs in fallback order."""

    tiers: tuple[dict[str, Any], ...]
    decision: Decision

    @property
    def verified(self) -> dict[str, dict[str, Any]]:
        """The tiers whose answers are verified, by model."""
        return {t["model"]: t for t in self.tiers[:-1] if t["ask_next"] is not None}

    def ask(self, model: str, query: Query) -> Delegate:
        """Return a call of an LLM with the query; an unverified answer ends the episode."""
        return Delegate((Call(model, query.text, final=model not in self.verified),))


class AutoMix(TrainableStepRouter):
    """A cascade of LLMs with self-verification.

    If no chain beats the best single LLM by more than a standard error on held-out questions, that
    LLM answers, unverified. The last tier of a chain is not verified either. The action tables are
    fitted to the prices at fit; `with_prices` changes only the predicted cost.

    When to take it:
        When a cheap LLM is often right and its verdicts on its own answers are mostly correct. The
        answer and its verdicts are paid for before a more expensive LLM is called, and a request
        takes several calls. It needs recorded verdicts (`waypost data verdicts`); with
        uninformative verdicts, fit serves the best single LLM.

    Args:
        verdicts: Number of verdicts on each answer; None is the most frequent number in the data.
        family: Rule that maps verdicts to actions (see `FAMILIES`); ``auto`` chooses one for each
            cost weight by cross-validation.
        tiers: Names of the LLMs that a chain may use; fit chooses among them. None is all.
        seed: Seed of the folds.

    Learned by ``fit``:
        lambdas_: Ascending cost weights.
        plans_: One `Plan` for each cost weight.
        verdicts_: Number of verdicts on each answer.
    """

    name = "automix"
    needs_embeddings = False
    new_model_support = "refit"
    replayable = True
    parameter_constraints: ClassVar = {
        "verdicts": Integer(1, MAX_VERDICTS, optional=True),
        "family": OneOf(("auto", *FAMILIES)),
        "tiers": _Names(),
        "seed": Integer(0),
    }

    lambdas_: NDArray[np.float64]
    plans_: list[Plan]
    verdicts_: int

    def __init__(
        self,
        verdicts: int | None = None,
        family: str = "auto",
        tiers: Sequence[str] | None = None,
        seed: int = 0,
    ) -> None:
        self.verdicts = verdicts
        self.family = family
        self.tiers = tiers
        self.seed = seed

    # -- fit ----------------------------------------------------------------------------------

    def _fit(self, data: RoutingData) -> None:
        if unknown := sorted(set(self.tiers or ()) - set(data.names)):
            raise ConfigError([Fault("automix: tiers", f"the data has no LLM {names(unknown)}")])
        self.verdicts_ = count_verdicts(data, self.verdicts)
        wanted = data.names if self.tiers is None else self.tiers
        ladder, order = ladder_of(data, wanted, self.cost_model_, self.verdicts_)
        fold = fold_of(data.queries, FOLDS, self.seed, data.groups)
        families = tuple(FAMILIES) if self.family == "auto" else (self.family,)
        self.lambdas_ = np.array(LAMBDAS)
        self.plans_ = [choose_plan(ladder, fold, families, lam, order) for lam in LAMBDAS]

    # -- route --------------------------------------------------------------------------------

    def route_single(self, query: QueryLike) -> Decision:
        """Return the LLM to call first; the ranking is the chain, then the other LLMs.

        The predicted dollars of the first LLM are those of the whole episode with its verdicts.
        """
        return self._route(Query.of(query)).decision

    def _route(self, query: Query) -> _Route:
        known = self.model_names
        lam = policy.cost_weights([query], self.policy)
        cost = self.predict_cost(QueryBatch((query,)))[0]
        order = policy.rank(
            self.mean_quality_,
            cost,
            known,
            lam=lam,
            cost_ref=self.cost_model_.cost_ref,
            allowed=policy.allowed_mask([query], self.policy, known),
            max_cost_usd=policy.cost_limits([query], self.policy),
        )
        rate, seed = self.policy.exploration, self.policy.seed
        order, propensity, drawn = policy.explore(order, known, [query.text], rate, seed)
        eligible = [known[j] for j in order[0] if j >= 0]
        plan = self.plans_[int(np.searchsorted(self.lambdas_, lam[0], side="right")) - 1]
        tiers = [] if drawn[0] else [t for t in plan["tiers"] if t["model"] in eligible]
        whole = len(tiers) == len(plan["tiers"])
        tiers = tiers or [{"model": eligible[0], "ask_next": None, "blind": 0}]
        chain = [tier["model"] for tier in tiers]
        factor = {chain[0]: plan["cost_factor"] if whole else 1.0}
        place = {name: j for j, name in enumerate(known)}
        return _Route(
            tuple(tiers),
            Decision(
                model=chain[0],
                ranking=(*chain, *(name for name in eligible if name not in chain)),
                quality={name: float(self.mean_quality_[place[name]]) for name in eligible},
                cost_usd={
                    name: float(cost[place[name]]) * factor.get(name, 1.0)
                    for name in eligible
                    if not np.isnan(cost[place[name]])
                },
                confidence=plan["confidence"] if whole else None,
                lam=float(lam[0]),
                propensity=float(propensity[0]),
                reason=_reason(chain, drawn=bool(drawn[0]), alone=len(eligible) == 1),
                router=self.name,
                router_version=self.version,
            ),
        )

    # -- step ---------------------------------------------------------------------------------

    def step(self, state: EpisodeState) -> Action:
        """Call a tier, request its verdicts, accept its answer or go on to the next tier.

        A pure function of ``state``. A failed tier is skipped. If all verdicts fail, the tier's
        ``blind`` decides. If no tier answers, the other LLMs are called in ranking order.
        """
        route = self._route(state.query)
        if not state.steps:
            return route.ask(route.decision.model, state.query)
        answers = [step[0] for step in state.steps if step[0].call.purpose == ANSWER]
        answer, latest = answers[-1], state.steps[-1]
        tier = route.verified.get(answer.call.model)
        if answer.ok and tier is not None and latest[0] is answer:
            return self._verify(tier, state.query, answer)
        # The policy may have changed since the last step: the tier may no longer exist.
        if answer.ok and (tier is None or not self._passes_on(tier, latest)):
            return FinalAnswer(answer.text, answer.call.model)
        return self._next(route, state.query, answers)

    def _verify(self, tier: dict[str, Any], query: Query, answer: CallResult) -> Delegate:
        return Delegate(
            tuple(
                verdict_call(tier["model"], query.text, answer.text or "", sample)
                for sample in range(self.verdicts_)
            ),
            Vote(YES, tuple(tier["ask_next"])),
        )

    def _passes_on(self, tier: dict[str, Any], verdicts: tuple[CallResult, ...]) -> bool:
        outcome = None
        if any(verdict.ok for verdict in verdicts):
            outcome = Vote(YES, tuple(tier["ask_next"])).outcome(verdicts)
        return bool(tier["blind"] if outcome is None else outcome)

    def _next(self, route: _Route, query: Query, answers: Sequence[CallResult]) -> Action:
        tried = {answer.call.model for answer in answers}
        good = [answer for answer in answers if answer.ok]
        # After an answer only LLMs of the chain are called; the others are fallbacks.
        left = [tier["model"] for tier in route.tiers] if good else list(route.decision.ranking)
        for model in left:
            if model not in tried:
                return route.ask(model, query)
        return FinalAnswer(good[-1].text, good[-1].call.model) if good else FinalAnswer(None)


def _reason(chain: Sequence[str], *, drawn: bool, alone: bool) -> str:
    if alone:
        return "the only model allowed"
    if drawn:
        return "drawn at random (exploration)"
    if len(chain) == 1:
        return "the best single model at this cost weight: no chain does better"
    return f"called first; its verdicts on its own answer decide whether to call {chain[1]}"
