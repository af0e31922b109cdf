"""Routers that learn nothing, made fit to be saved, loaded, compared and served.

Such a router has ``route_single`` and perhaps ``route_batch``, and is somebody else's code: what
it answers is checked, and kept to the models that a request may use.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from waypost.contracts import deciding, policy
from waypost.contracts.cost import CostModel, column_mean
from waypost.contracts.decision_check import check_decisions
from waypost.contracts.errors import (
    PluginError,
    PolicyError,
    SchemaError,
    WaypostError,
    raised_at,
)
from waypost.contracts.prediction import QueryBatch
from waypost.contracts.records import Decision, LLMInfo, Query, QueryLike
from waypost.contracts.router import MetaRouter, TrainableRouter
from waypost.contracts.routing_data import RoutingData
from waypost.contracts.step_router import Action, EpisodeState, StepRouter


class PlainRouter(TrainableRouter):
    """Stands for a router that learns nothing.

    The router sees each query as it was given, and decides; its ``candidates`` are the LLMs that
    the policy allows. Where one LLM only may be used it is not asked. Of its ranking the LLMs
    that a request may not use are left out, and those that it lacks come after, in the order of
    their names. The lambda of a decision is the one that the router says it applied, 0 by
    default. The propensity is the router's own, together with the policy's exploration.

    Args:
        plugin: The router.
        params: What it was built with.
    """

    needs_embeddings = False
    learns = False
    new_model_support = "zero-shot"

    def __init__(self, plugin: MetaRouter, params: Mapping[str, Any] | None = None) -> None:
        self.plugin = plugin
        self.params = dict(params or {})
        self.name = plugin.name  # type: ignore[misc] # each stands for one router
        self.router_family = plugin.router_family  # type: ignore[misc]

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return what the router was built with."""
        return dict(self.params)

    # -- fit ----------------------------------------------------------------------------------

    def fit(self, data: RoutingData) -> Self:
        """Note who the candidates are and what their calls cost; the data may have no rows.

        Raises:
            SchemaError: no LLM.
        """
        if not data.llms:
            raise SchemaError(f"{self.name}: the routing data holds no LLM")
        self.n_features_in_ = 0
        self.mean_quality_ = column_mean(data.quality)
        self.cost_model_ = CostModel.fit(data)
        self.llms_ = data.llms
        return self

    def _fit(self, data: RoutingData) -> None:
        """Nothing."""

    # -- route --------------------------------------------------------------------------------

    def route_single(self, query: QueryLike) -> Decision:
        """Decide one query; see `MetaRouter.route_single`."""
        return self.route_batch([query])[0]

    def route_batch(self, queries: Sequence[QueryLike]) -> list[Decision]:
        """Decide several queries.

        Raises:
            NotFittedError: the candidates are not known yet.
            PolicyError, SchemaError: a query cannot be decided as asked.
            PluginError: the router raises, or answers what is no sound decision.
        """
        self._require_fitted()
        parsed = tuple(Query.of(query) for query in queries)
        if not parsed:
            return []
        known = self.model_names
        allowed = deciding.allowed_mask(parsed, self.policy, known)
        free = np.flatnonzero(allowed.sum(axis=1) > 1).tolist()
        asked = self._ask([_as_given(queries[row]) for row in free])
        own = dict(zip(free, asked, strict=True))
        cost = self.predict_cost(QueryBatch(parsed))
        places = np.zeros(cost.shape)
        for row, decision in own.items():
            places[row] = _places(decision, known)
            for name, dollars in decision.cost_usd.items():
                if name in known:
                    cost[row, known.index(name)] = dollars
        order = policy.rank(
            -places,
            cost,
            known,
            allowed=allowed,
            max_cost_usd=deciding.cost_limits(parsed, self.policy),
        )
        rate = self.policy.exploration
        texts = [query.text for query in parsed]
        order, propensity, drawn = policy.explore(order, known, texts, rate, self.policy.seed)
        return [
            self._decision(
                own.get(row), order[row], cost[row], float(propensity[row]), drawn=bool(drawn[row])
            )
            for row in range(len(parsed))
        ]

    def _offer(self) -> None:
        served = self.policy.allowed_models
        self.plugin.candidates = tuple(
            llm for llm in self.llms_ if served is None or llm.name in served
        )

    def _ask(self, queries: list[str | Mapping[str, Any]]) -> list[Decision]:
        who = f"router {self.name}"
        if not queries:
            return []
        self._offer()
        try:
            made: Any = (
                [self.plugin.route_single(queries[0])]
                if len(queries) == 1
                else self.plugin.route_batch(queries)
            )
        except (PolicyError, SchemaError):
            raise
        except WaypostError as error:
            raise PluginError(f"{who}: {error}") from error
        # Other people's code: whatever it raises is named. Not its message: that may hold the
        # query.
        except Exception as error:
            raise PluginError(f"{who}: failed on a query: {raised_at(error)}") from error
        return check_decisions(made, len(queries), self.model_names, who)

    def _decision(
        self,
        own: Decision | None,
        order: NDArray[np.intp],
        cost: NDArray[np.float64],
        propensity: float,
        *,
        drawn: bool,
    ) -> Decision:
        ranking = tuple(self.model_names[j] for j in order if j >= 0)
        dollars = {self.model_names[j]: float(cost[j]) for j in order if j >= 0}
        kept = own is not None and own.model == ranking[0]
        share = self.policy.exploration / len(ranking)
        greedy = (propensity - share) * (1.0 if own is None else own.propensity)
        return Decision(
            model=ranking[0],
            ranking=ranking,
            quality={} if own is None else {n: own.quality[n] for n in ranking if n in own.quality},
            cost_usd={name: usd for name, usd in dollars.items() if not np.isnan(usd)},
            confidence=own.confidence if own is not None and kept else None,
            lam=0.0 if own is None else own.lam,
            propensity=share + greedy,
            reason=_reason(self.name, own, ranking[0], drawn=drawn),
            router=self.name,
            router_version=self.version,
        )


class PlainStepRouter(PlainRouter, StepRouter):
    """Stands for a router that works in steps and learns nothing."""

    plugin: StepRouter

    def __init__(self, plugin: StepRouter, params: Mapping[str, Any] | None = None) -> None:
        super().__init__(plugin, params)
        self.replayable = plugin.replayable  # type: ignore[misc] # as its name

    def step(self, state: EpisodeState) -> Action:
        """Say what to do next; see `StepRouter.step`."""
        self._offer()
        return self.plugin.step(state)

    def fallback(self, state: EpisodeState) -> Action:
        """Say what to do at a cap; see `StepRouter.fallback`."""
        self._offer()
        return self.plugin.fallback(state)


def trainable(router: MetaRouter, params: Mapping[str, Any] | None = None) -> TrainableRouter:
    """Return the router itself where it is trained, else what stands for it.

    Args:
        router: Any router.
        params: What it was built with.
    """
    if isinstance(router, TrainableRouter):
        return router
    if isinstance(router, StepRouter):
        return PlainStepRouter(router, params)
    return PlainRouter(router, params)


def no_outcomes(llms: Sequence[LLMInfo]) -> RoutingData:
    """Return routing data without queries: who the candidates are, and no outcomes."""
    nothing = np.empty((0, len(llms)))
    return RoutingData((), (), (), tuple(llms), nothing, nothing, nothing, nothing, nothing)


def _as_given(query: QueryLike) -> str | Mapping[str, Any]:
    """Return a text or a mapping: what the contract promises to a router."""
    return query.given() if isinstance(query, Query) else query


def _places(decision: Decision, known: Sequence[str]) -> list[int]:
    """Return each LLM's place in the ranking; those that it lacks follow by name."""
    ranking = dict.fromkeys((decision.model, *decision.ranking, *sorted(known)))
    place = {name: place for place, name in enumerate(ranking)}
    return [place[name] for name in known]


def _reason(name: str, own: Decision | None, model: str, *, drawn: bool) -> str:
    if drawn:
        return "drawn at random (exploration)"
    if own is None:
        return "the only model allowed"
    if own.model != model:
        return f"{name} chose {own.model}, which may not be used: the next of its ranking"
    return own.reason or f"chosen by {name}"
