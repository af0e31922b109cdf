"""Ask LLMs one after another, compare their answers, and stop when no further call pays.

1. The base router predicts, from the query, how likely each LLM is right.
2. A belief says from the answers so far which one is right: who agrees with whom, and which LLMs
   fail together, is learned from recorded answers (a latent-class model; Dawid and Skene, 1979).
3. A search of limited depth over the answers that further calls may bring finds the call with the
   highest expected gain less its price at the request's cost weight. If it is not above 0, the most
   likely answer is given.

It joins what agreement-based cascading (ABC, arXiv 2407.02348) and FrugalGPT (arXiv 2305.05176) do
with a fixed order of LLMs. Answers are equal if their normal forms are: the option, the number, the
expression, the outcome of the tests that a question states for its program, else the text, compared
by its words and by the query encoder.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from waypost.contracts import policy
from waypost.contracts.errors import SchemaError
from waypost.contracts.parameters import Integer, Real
from waypost.contracts.records import (
    Decision,
    LLMInfo,
    Prediction,
    Query,
    QueryBatch,
    QueryLike,
    report,
)
from waypost.contracts.router import ScoreRouter
from waypost.contracts.routing_data import RoutingData
from waypost.contracts.splits import fold_of
from waypost.contracts.step_router import (
    Action,
    Call,
    Delegate,
    EpisodeState,
    FinalAnswer,
    TrainableStepRouter,
)
from waypost.contracts.types import Floats
from waypost.contracts.user_state import Users
from waypost.tune.auto.holding import held_routers, held_state
from waypost.tune.auto.members import Member, OneMember, Spec, members_of, try_members
from waypost.tune.auto.router import comparable
from waypost.tune.consensus.belief import MOST_CALLS, Belief, logit
from waypost.tune.consensus.episodes import Seen, one_prediction
from waypost.tune.consensus.grouping import by_meaning, groups_of, possible_answers
from waypost.tune.consensus.planning import NEW, NONE, Planner, Situations, follow, foresee
from waypost.tune.consensus.simulating import Recorded
from waypost.tune.consensus.validating import FOLDS, Settings, learn, validate

_MOST_KNOWN = 4096
_SURELY = 0.98
"""Chance that a call ends the episode from which its answer is streamed."""

_DEAR, _LAST = 1e9, -1e18


@dataclass(frozen=True, eq=False)
class _Look:
    """What one query's next action depends on; vectors are (m,), a limit of NaN is none."""

    query: Query
    seen: Seen
    quality: Floats
    cost: Floats
    lam: float
    limit: float
    now: Situations
    calls_left: int
    values: Floats


class ConsensusRouter(TrainableStepRouter):
    """A cascade without a fixed order: each call is chosen by what its answer may change.

    Fit needs recorded answers (column ``response``). The base router is fitted on all questions;
    the belief on its out-of-sample predictions.

    When to take it:
        When several LLMs are cheap beside the best one and answers can be compared: options,
        numbers, short texts, programs with tests. A request takes one to ``max_calls`` calls, one
        after another. Of long free texts hardly two are equal, and it then routes as its base.

    Args:
        base: Router that predicts each LLM's score from the query: a name, or
            ``{name: {parameter: value}}``.
        max_calls: Maximum answers of a request.
        depth: Number of further calls that the search follows. A step takes about 2 ms at 2.
        together: LLMs that will be asked next with at least this probability are asked at the same
            time. At 1, only if certain; lower values save time and cost dollars.
        least_gain: Least expected gain of a further call, also at lambda 0.
        folds: Number of folds of the base router's out-of-sample predictions.
        seed: Seed of the folds, the base router and the belief.

    Learned by ``fit``:
        base_: The fitted base router.
        belief_: The latent-class model.
        useful_: (n_llms,) LLMs of the best agreement rules at some cost weight; the others are
            asked only where a request allows none of these.
        report_: Out-of-sample quality and dollars at several cost weights, beside the best single
            LLM and the best agreement rule.
    """

    name = "consensusrouter"
    new_model_support = "refit"
    replayable = True
    needs_responses = True
    validates_itself = True
    trial_parameters: ClassVar = {"base": "taskrouter", "folds": 2}
    state_parts: ClassVar = {**TrainableStepRouter.state_parts, "belief_": Belief}
    parameter_constraints: ClassVar = {
        "base": OneMember(),
        "max_calls": Integer(1, MOST_CALLS),
        "depth": Integer(1, 3),
        "together": Real(0, 1, open_low=True),
        "least_gain": Real(0, 1),
        "folds": Integer(2, 50),
        "seed": Integer(0),
    }

    base_: ScoreRouter
    belief_: Belief
    useful_: NDArray[np.bool_]
    report_: dict[str, Any]
    _known: dict[str, tuple[Prediction, Floats]]

    def __init__(
        self,
        base: Spec = "svmrouter",
        max_calls: int = 4,
        depth: int = 2,
        together: float = 1.0,
        least_gain: float = 0.0005,
        folds: int = 4,
        seed: int = 0,
    ) -> None:
        self.base = base
        self.max_calls = max_calls
        self.depth = depth
        self.together = together
        self.least_gain = least_gain
        self.folds = folds
        self.seed = seed

    # -- fit ----------------------------------------------------------------------------------

    def _fit(self, data: RoutingData) -> None:
        (member,) = members_of([self.base])
        member.make(self.seed)
        groups = groups_of(data, self.name, by_meaning(self.encoder))
        quality, expected = self._out_of_sample(member, data)
        expected = policy.fill_unknown(expected)
        recorded = Recorded(
            groups=groups,
            quality=data.quality,
            usd=np.where(np.isnan(data.cost_usd), expected, data.cost_usd),
            logits=logit(quality),
            options=possible_answers(data.queries),
            expected_usd=expected,
        )
        settings = Settings(self.depth, self.least_gain, self.max_calls, self.seed)
        cost_ref = self.cost_model_.cost_ref
        planner = learn(recorded, cost_ref, settings)
        self.belief_, self.useful_ = planner.belief, planner.useful
        report("final fit of the base router", 0, 1)
        self.base_ = member.make(self.seed).fit(data)
        fold = fold_of(data.queries, FOLDS, self.seed + 1, data.groups)
        fold = fold if comparable(data, fold) else np.zeros(len(data), np.intp)
        self.report_ = validate(recorded, fold, cost_ref, settings)
        self._known = {}

    def _out_of_sample(self, member: Member, data: RoutingData) -> tuple[Floats, Floats]:
        """Return predictions of quality and dollars (n, m) by routers fitted on other questions."""
        fold = fold_of(data.queries, self.folds, self.seed, data.groups)
        if not comparable(data, fold):
            usd = self.predict_cost(data.batch())
            return np.repeat(self.mean_quality_[None], len(data), axis=0), usd
        found, failed = try_members([member], data, fold, self.seed)
        if failed:
            raise SchemaError(f"fit: {self.name}: base router: {failed[member.label]}")
        return found[0].quality, found[0].cost_usd

    @property
    def planner(self) -> Planner:
        """The search with the learned belief."""
        return Planner(self.belief_, self.useful_, self.depth, least_gain=self.least_gain)

    # -- route --------------------------------------------------------------------------------

    def route_single(self, query: QueryLike) -> Decision:
        """Return the LLM to ask first; the ranking is by the expected value of asking first."""
        return self._decision(self._look(EpisodeState(Query.of(query))))

    def decide(
        self,
        queries: Sequence[Query],
        embeddings: NDArray[np.float32] | None = None,
        users: Users = None,
    ) -> list[Decision]:
        """Decide queries with given embeddings; see `TrainableRouter.decide`."""
        if embeddings is None or not queries:
            return self.route_batch(queries)
        found, made = self.base_.predict(QueryBatch(tuple(queries), embeddings)), []
        for row, query in enumerate(queries):  # decided at once: of many, the first are forgotten
            self._remember(query, one_prediction(found, row, len(queries), self.mean_quality_))
            made.append(self.route_single(query))
        return made

    def _decision(self, look: _Look) -> Decision:
        known = self.model_names
        order, propensity, drawn = self._order(look)
        eligible = [int(j) for j in order if j >= 0]
        first = eligible[0]
        usd = look.cost[first]
        at = "" if np.isnan(usd) else f" at {usd:.3g} USD"
        reason = (
            f"asked first: with what may follow, expected quality less price is "
            f"{look.values[first]:.3f} (its own answer alone {look.quality[first]:.3f}{at})"
        )
        if len(eligible) == 1:
            reason = "the only model allowed"
        elif drawn:
            reason = "drawn at random (exploration)"
        return Decision(
            model=known[first],
            ranking=tuple(known[j] for j in eligible),
            quality={known[j]: float(look.quality[j]) for j in eligible},
            cost_usd={
                known[j]: float(look.cost[j]) for j in eligible if not np.isnan(look.cost[j])
            },
            lam=look.lam,
            propensity=propensity,
            reason=reason,
            router=self.name,
            router_version=self.version,
        )

    def _order(self, look: _Look) -> tuple[NDArray[np.intp], float, bool]:
        """Return the LLMs in the order of asking first, with propensity, and whether drawn.

        Raises:
            PolicyError: no LLM may be chosen.
        """
        known, query = self.model_names, look.query
        apart = np.isinf(look.lam)  # cost alone decides
        order = policy.rank(
            np.where(np.isfinite(look.values), look.values, _LAST),
            look.cost,
            known,
            lam=look.lam if apart else 0.0,
            allowed=policy.allowed_mask([query], self.policy, known),
            max_cost_usd=policy.cost_limits([query], self.policy),
        )
        rate, seed = self.policy.exploration, self.policy.seed
        order, propensity, drawn = policy.explore(order, known, [query.text], rate, seed)
        return order[0], float(propensity[0]), bool(drawn[0])

    # -- step ---------------------------------------------------------------------------------

    def step(self, state: EpisodeState) -> Action:
        """Ask the LLM that pays most, or give the most likely answer. Pure.

        A failed LLM is not asked again. An answer that surely ends the episode is streamed.
        """
        look = self._look(state)
        if not look.seen.answers:
            return self._ask_first(look)
        best = int(np.argmax(look.values))
        stop = float(look.now.stop[0])
        if look.calls_left <= 0 or not look.values[best] - stop > self.least_gain:
            return self._answer(look)
        return self._ask(look, best)

    def fallback(self, state: EpisodeState) -> Action:
        """Give the most likely answer; without one, ask `last_resort`. Pure."""
        look = self._look(state)
        return self._answer(look) if look.seen.answers else super().fallback(state)

    def _ask_first(self, look: _Look) -> Action:
        left = [int(j) for j in self._order(look)[0] if j >= 0 and not look.seen.asked[j]]
        return self._ask(look, left[0]) if left else FinalAnswer(None)

    def _answer(self, look: _Look) -> FinalAnswer:
        group = int(np.argmax(look.now.chances[0, :-1]))
        found = look.seen.best(group, look.quality)
        return FinalAnswer(found.text, found.call.model)

    def _ask(self, look: _Look, llm: int) -> Delegate:
        """Ask an LLM, and with it those that will surely be asked after it."""
        names, text = self.model_names, look.query.text
        ends, later = self._foreseen(look, llm)
        if ends:
            return Delegate((Call(names[llm], text, final=True),))
        return Delegate(tuple(Call(names[one], text) for one in (llm, *later)))

    def _foreseen(self, look: _Look, llm: int) -> tuple[bool, list[int]]:
        """Return whether a call surely ends the episode, and the LLMs to ask together with it."""
        if look.calls_left <= 1 and not look.seen.answers:
            return True, []
        ahead = foresee(self.belief_, look.now)
        chance = ahead.chance[0, llm]
        outcomes = np.flatnonzero(chance > 0)
        rows = np.zeros(len(outcomes), np.intp)
        asked = np.full(len(rows), llm)
        after = follow(self.belief_, look.now.take(rows), asked, outcomes)
        left = np.full(len(rows), look.calls_left - 1)
        values = self.planner.plan(after, left)
        best = values.argmax(axis=1)
        gain = values[np.arange(len(rows)), best] - ahead.stop[0, llm, outcomes]
        goes_on = gain > self.least_gain
        own = ahead.own[0, llm, outcomes]
        ends = float(chance[outcomes][~goes_on & own].sum()) >= _SURELY
        share = np.zeros(len(look.quality))
        np.add.at(share, best[goes_on], chance[outcomes][goes_on])
        usd, later = look.seen.spent_usd + look.cost[llm], []
        for one in np.argsort(-share, kind="stable")[: look.calls_left - 1]:
            within = np.isnan(look.limit) or usd + look.cost[one] <= look.limit
            if share[one] >= min(self.together, 1 - 1e-6) and within:
                usd += look.cost[one]
                later.append(int(one))
        return ends, later

    # -- look ---------------------------------------------------------------------------------

    def _look(self, state: EpisodeState) -> _Look:
        query, known = state.query, self.model_names
        seen = Seen.of(state, known, by_meaning(self.encoder))
        prediction, quality = self._prediction(query)
        cost = self.predict_cost(QueryBatch((query,)), prediction)[0]
        lam = policy.cost_weights([query], self.policy)
        weight = float(policy.dollar_weights(lam, self.cost_model_.cost_ref)[0])
        price = np.minimum(weight, _DEAR) * policy.fill_unknown(cost[None])
        allowed = policy.allowed_mask([query], self.policy, known)
        limits = policy.cost_limits([query], self.policy)
        limit = np.nan if limits is None else float(limits[0])
        if not np.isnan(limit):
            allowed &= seen.spent_usd + cost <= limit
        allowed = self.planner.among(allowed) & ~seen.asked
        now = self._situation(seen, query, quality, price, allowed)
        left = self.max_calls - len(seen.answers)
        values = self.planner.plan(now, np.array([left]))[0]
        return _Look(query, seen, quality, cost, float(lam[0]), limit, now, left, values)

    def _situation(
        self, seen: Seen, query: Query, quality: Floats, price: Floats, open_: NDArray[np.bool_]
    ) -> Situations:
        """Return what is known after the answers so far."""
        options = possible_answers([query.text])
        now = Situations.start(self.belief_, logit(quality[None]), options, price, open_)
        for _, column in seen.answers:
            label = int(seen.labels[column])
            outcome = NONE if label < 0 else NEW if label >= now.count[0] else label
            now = follow(self.belief_, now, np.array([column]), np.array([outcome]))
        return replace(now, open=open_)

    def _prediction(self, query: Query) -> tuple[Prediction, Floats]:
        """Return the base router's prediction for a query, and the quality that decides."""
        self._require_fitted()
        found = self._known.get(query.text)
        if found is None:
            self.base_.encoder = self.encoder
            batch = QueryBatch((query,), self.base_.embed((query,)))
            found = one_prediction(self.base_.predict(batch), 0, 1, self.mean_quality_)
            self._remember(query, found)
        return found

    def _remember(self, query: Query, found: tuple[Prediction, Floats]) -> None:
        if len(self._known) >= _MOST_KNOWN:
            self._known = {}
        self._known[query.text] = found

    # -- state --------------------------------------------------------------------------------

    def plugin_names(self) -> tuple[str, ...]:
        """Return the names of this router and of its base."""
        return tuple(dict.fromkeys((self.name, *self.base_.plugin_names())))

    def get_state(self) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """Return the learned state, including that of the base router."""
        arrays, values = super().get_state()
        own, values["base_"] = held_state("base_", [self.base_])
        return arrays | own, values

    def set_state(
        self, llms: Sequence[LLMInfo], arrays: Mapping[str, NDArray[Any]], values: Mapping[str, Any]
    ) -> None:
        """Restore a state; see `TrainableRouter.set_state`."""
        bases, own = held_routers("base_", llms, arrays, values["base_"], self.seed)
        super().set_state(llms, own, {k: v for k, v in values.items() if k != "base_"})
        (self.base_,) = bases
        self._known = {}
