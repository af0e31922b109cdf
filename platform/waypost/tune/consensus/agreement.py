"""Ask two LLMs at once, take their answer if they agree, else that of a third LLM.

Agreement-based cascading (ABC, arXiv 2407.02348) with tiers chosen on data: every pair of LLMs with
every third one, and every single LLM, is measured on the recorded answers. A request takes the rule
with the highest training quality less its expected price at the request's cost weight. It does not
look at the query.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from waypost.contracts import policy
from waypost.contracts.records import Decision, Query, QueryBatch, QueryLike
from waypost.contracts.routing_data import RoutingData
from waypost.contracts.step_router import (
    Action,
    Call,
    Delegate,
    EpisodeState,
    FinalAnswer,
    TrainableStepRouter,
)
from waypost.contracts.types import Floats
from waypost.tune.consensus.episodes import UNSEEN, Seen
from waypost.tune.consensus.grouping import groups_of
from waypost.tune.consensus.rules import Rules, measure_rules


class AgreementRouter(TrainableStepRouter):
    """A cascade of two tiers: two LLMs that may agree, and one that decides.

    When to take it:
        As the baseline of `consensusrouter`, and where a fixed rule is wanted that is easy to
        explain: it has no predictions, and its two first calls run at the same time.

    Learned by ``fit``:
        rules_: Every rule with its training quality.
    """

    name = "agreementrouter"
    needs_embeddings = False
    needs_responses = True
    new_model_support = "refit"
    replayable = True
    state_parts: ClassVar = {**TrainableStepRouter.state_parts, "rules_": Rules}
    parameter_constraints: ClassVar = {}

    rules_: Rules

    def _fit(self, data: RoutingData) -> None:
        self.rules_ = measure_rules(groups_of(data, self.name), data.quality)

    def route_single(self, query: QueryLike) -> Decision:
        """Return the first LLM of the rule; the ranking is the rule, then the other LLMs."""
        return self._route(Query.of(query))[0]

    def _route(self, query: Query) -> tuple[Decision, NDArray[np.intp]]:
        """Return the decision and the columns of the rule."""
        known, rules = self.model_names, self.rules_
        cost = self.predict_cost(QueryBatch((query,)))[0]
        lam = policy.cost_weights([query], self.policy)
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
        eligible = [int(j) for j in order[0] if j >= 0]
        rule = self._best_rule(query, cost, lam, eligible)
        if drawn[0]:
            rule = np.full(3, eligible[0])
        chain = list(dict.fromkeys(rule.tolist()))
        usd = float(rules.usd(cost)[(rules.llms == rule).all(axis=1)][0])
        decision = Decision(
            model=known[chain[0]],
            ranking=tuple(known[j] for j in (*chain, *(k for k in eligible if k not in chain))),
            quality={known[j]: float(self.mean_quality_[j]) for j in eligible},
            cost_usd={known[j]: float(cost[j]) for j in eligible if not np.isnan(cost[j])}
            | ({} if np.isnan(usd) else {known[chain[0]]: usd}),
            lam=float(lam[0]),
            propensity=float(propensity[0]),
            reason=_reason([known[j] for j in chain], drawn=bool(drawn[0]), of=len(eligible)),
            router=self.name,
            router_version=self.version,
        )
        return decision, rule

    def _best_rule(
        self, query: Query, cost: Floats, lam: Floats, eligible: list[int]
    ) -> NDArray[np.intp]:
        rules = self.rules_
        allowed = np.isin(rules.llms, eligible).all(axis=1)
        usd = rules.usd(policy.fill_unknown(cost[None])[0])
        order = policy.rank(
            rules.quality,
            usd,
            [f"{row:06d}" for row in range(len(usd))],
            lam=lam,
            cost_ref=self.cost_model_.cost_ref,
            allowed=allowed,
        )
        limit = policy.cost_limits([query], self.policy)
        if limit is not None and not np.isnan(limit[0]):
            most = np.where(rules.single, usd, usd + (1 - rules.differ) * cost[rules.llms[:, 2]])
            within = [row for row in order[0] if row >= 0 and most[row] <= limit[0]]
            return np.asarray(rules.llms[within[0]])
        return np.asarray(rules.llms[order[0, 0]])

    def step(self, state: EpisodeState) -> Action:
        """Ask two LLMs, compare their answers, and ask the third if they differ. Pure.

        An LLM that fails is replaced by the next one of the ranking.
        """
        decision, rule = self._route(state.query)
        known, text = self.model_names, state.query.text
        seen = Seen.of(state, known)
        first, second, last = rule.tolist()
        if not state.steps and first != second:
            return Delegate((Call(known[first], text), Call(known[second], text)))
        labels = seen.labels[[first, second]]
        if first != second and labels[0] == labels[1] >= 0:
            answer = seen.best(int(labels[0]), self.mean_quality_)
            return FinalAnswer(answer.text, answer.call.model)
        left = [known[j] for j in (last, *map(known.index, decision.ranking)) if not seen.asked[j]]
        done = [result for result, column in seen.answers if column == last]
        if done or not left or (seen.answers and seen.asked[last]):
            if not done and not seen.answers:
                return FinalAnswer(None)
            found = done[0] if done else seen.best(UNSEEN, self.mean_quality_)
            return FinalAnswer(found.text, found.call.model)
        return Delegate((Call(left[0], text, final=True),))


def _reason(chain: list[str], *, drawn: bool, of: int) -> str:
    if of == 1:
        return "the only model allowed"
    if drawn:
        return "drawn at random (exploration)"
    if len(chain) == 1:
        return "the best rule at this cost weight: this LLM alone"
    return f"asked with {chain[1]}; where their answers differ, {chain[2]} answers"
