"""Wrap routers that learn nothing, so that they can be saved, loaded, compared and served."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from waypost.contracts import policy, staying
from waypost.contracts.cost import CostModel, column_mean
from waypost.contracts.errors import (
    PluginError,
    PolicyError,
    SchemaError,
    WaypostError,
    names,
    raised_at,
)
from waypost.contracts.records import Decision, LLMInfo, Query, QueryBatch, QueryLike
from waypost.contracts.router import MetaRouter, TrainableRouter
from waypost.contracts.routing_data import RoutingData, read_routing_data
from waypost.contracts.step_router import Action, EpisodeState, StepRouter


def check_decisions(made: Any, count: int, known: Sequence[str], who: str) -> list[Decision]:
    """Return a router's decisions after checking them.

    Args:
        made: The return value of the router.
        count: Number of queries.
        known: Names of the LLMs.
        who: The router, for messages.

    Raises:
        PluginError: not a list of ``count`` valid decisions; names the first that is not valid.
    """
    if not isinstance(made, list | tuple) or len(made) != count:
        found = f"{len(made)} of them" if isinstance(made, list | tuple) else _kind(made)
        raise PluginError(f"{who}: route_batch: expected a list of {count} Decision; got {found}")
    for decision in made:
        if problem := _problem(decision, known):
            raise PluginError(f"{who}: {problem}")
    return list(made)


def _problem(decision: Any, known: Sequence[str]) -> str | None:
    if not isinstance(decision, Decision):
        return f"expected a Decision (from waypost import Decision); got {_kind(decision)}"
    if decision.model not in known:
        return f"chose {_named(decision.model)}; the models are {names(list(known))}"
    if not _is_names(decision.ranking):
        return f"ranking: expected the names of models; got {_kind(decision.ranking)}"
    if unknown := [name for name in decision.ranking if name not in known]:
        there_are = names(list(known))
        return f"ranking: no model is named {_named(unknown[0])}; the models are {there_are}"
    for field, allowed, expected in _NUMBERS:
        if not allowed(value := getattr(decision, field)):
            return f"{field}: expected {expected}; got {_shown(value)}"
    for field, allowed, expected in _BY_MODEL:
        values = getattr(decision, field)
        if not isinstance(values, Mapping):
            return f"{field}: expected a mapping from model to {expected}; got {_kind(values)}"
        if wrong := [value for value in values.values() if not allowed(value)]:
            return f"{field}: expected {expected} for each model; got {_shown(wrong[0])}"
    return None


def _is_names(value: Any) -> bool:
    return isinstance(value, list | tuple) and all(isinstance(name, str) for name in value)


def _number(low: float, high: float, *, without_low: bool = False) -> Callable[[Any], bool]:
    def allows(value: Any) -> bool:
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        return low <= value <= high and not (without_low and value == low)

    return allows


def _or_none(allows: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: value is None or allows(value)


_LARGEST = 1e300
_NUMBERS = (
    ("confidence", _or_none(_number(0, 1)), "a number from 0 to 1, or None"),
    ("lam", _number(0, math.inf), "a number of at least 0"),
    ("propensity", _number(0, 1, without_low=True), "a number above 0 and up to 1"),
    ("reason", lambda value: isinstance(value, str), "a text"),
)
_BY_MODEL = (
    ("quality", _number(-_LARGEST, _LARGEST), "a finite number"),
    ("cost_usd", _number(0, _LARGEST), "a finite number of at least 0"),
)


def _kind(value: Any) -> str:
    return "None" if value is None else f"a value of type {type(value).__name__}"


# A text is shown only where it could be a name; any other may be a user's query.
_NAME = re.compile(r"[\w./:@+-]{1,100}")


def _named(value: Any) -> str:
    looks_like_one = isinstance(value, str) and _NAME.fullmatch(value)
    return repr(value) if looks_like_one else _kind(value)


def _shown(value: Any) -> str:
    return repr(value) if isinstance(value, int | float) else _kind(value)


class PlainRouter(TrainableRouter):
    """Wraps a router that learns nothing.

    The wrapped router decides each query in its given form; its ``candidates`` are the LLMs that
    the policy allows. It is not called where only one LLM is allowed. LLMs that a request may not
    use are removed from its ranking, and allowed ones that it lacks are appended by name. The
    lambda of a decision is the one that the router reports, 0 by default. The propensity combines
    the router's own with the policy's exploration.

    Args:
        plugin: The router.
        params: Parameters it was built with.
    """

    needs_embeddings = False
    learns = False
    needs_data = False
    new_model_support = "zero-shot"

    def __init__(self, plugin: MetaRouter, params: Mapping[str, Any] | None = None) -> None:
        self.plugin = plugin
        self.params = dict(params or {})
        self.name = plugin.name  # type: ignore[misc] # an instance wraps one router
        self.router_family = plugin.router_family  # type: ignore[misc]

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return the parameters the router was built with."""
        return dict(self.params)

    # -- fit ----------------------------------------------------------------------------------

    def fit(self, data: RoutingData | str | Path) -> Self:
        """Store the candidates and the cost of their calls; the data may have no rows.

        Raises:
            SchemaError: the data has no LLM.
        """
        data = data if isinstance(data, RoutingData) else read_routing_data(data)
        if not data.llms:
            raise SchemaError(f"{self.name}: the routing data holds no LLM")
        self.n_features_in_ = 0
        self.mean_quality_ = column_mean(data.quality)
        self.cost_model_ = CostModel.fit(data)
        self.llms_ = data.llms
        return self

    def _fit(self, data: RoutingData) -> None:
        """Do nothing."""

    # -- route --------------------------------------------------------------------------------

    def route_single(self, query: QueryLike) -> Decision:
        """Decide one query; see `MetaRouter.route_single`."""
        return self.route_batch([query])[0]

    def route_batch(self, queries: Sequence[QueryLike]) -> list[Decision]:
        """Decide several queries.

        Raises:
            NotFittedError: the candidates are not known yet.
            PolicyError, SchemaError: a query has a wrong form, or no LLM may answer it.
            PluginError: the router raises, or returns no valid decision.
        """
        self._require_fitted()
        own_queries = tuple(Query.of(query) for query in queries)
        if not own_queries:
            return []
        parsed, rows = staying.with_earlier(own_queries, keeps=self.kind != "step")
        given = list(queries) if rows is None else _with_turns(parsed, queries, rows)
        known = self.model_names
        allowed = policy.allowed_mask(parsed, self.policy, known)
        free = np.flatnonzero(allowed.sum(axis=1) > 1).tolist()
        asked = self._ask([_as_given(given[row]) for row in free])
        own = dict(zip(free, asked, strict=True))
        cost = self.predict_cost(QueryBatch(parsed))
        places = np.zeros(cost.shape)
        for row, decision in own.items():
            places[row] = _places(decision, known)
            for name, dollars in decision.cost_usd.items():
                if name in known:
                    cost[row, known.index(name)] = dollars
        order, stays = staying.rank(
            -places, cost, parsed, known, self.policy, self.cost_model_, allowed
        )
        rate, keys = self.policy.exploration, staying.draw_keys(parsed)
        order, propensity, drawn = policy.explore(order, known, keys, rate, self.policy.seed)
        made = [
            self._decision(
                own.get(row), order[row], cost[row], float(propensity[row]), drawn=bool(drawn[row])
            )
            for row in range(len(parsed))
        ]
        made = staying.told(made, stays, drawn)
        return made if rows is None else [made[row] for row in rows]

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
        # Third-party code: the error names the exception's type. Its message is left out, because
        # it may hold the query.
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
    """Wraps a step router that learns nothing."""

    plugin: StepRouter

    def __init__(self, plugin: StepRouter, params: Mapping[str, Any] | None = None) -> None:
        super().__init__(plugin, params)
        self.replayable = plugin.replayable  # type: ignore[misc] # as its name

    def step(self, state: EpisodeState) -> Action:
        """Return the next action; see `StepRouter.step`."""
        self._offer()
        return self.plugin.step(state)

    def fallback(self, state: EpisodeState) -> Action:
        """Return the action at a cap; see `StepRouter.fallback`."""
        self._offer()
        return self.plugin.fallback(state)


def trainable(router: MetaRouter, params: Mapping[str, Any] | None = None) -> TrainableRouter:
    """Return the router itself where it is trainable, else its wrapper.

    Args:
        router: Any router.
        params: Parameters it was built with.
    """
    if isinstance(router, TrainableRouter):
        return router
    if isinstance(router, StepRouter):
        return PlainStepRouter(router, params)
    return PlainRouter(router, params)


def no_outcomes(llms: Sequence[LLMInfo]) -> RoutingData:
    """Return routing data with candidates but without queries and outcomes."""
    nothing = np.empty((0, len(llms)))
    return RoutingData((), (), (), tuple(llms), nothing, nothing, nothing, nothing, nothing)


def _as_given(query: QueryLike) -> str | Mapping[str, Any]:
    """Return the query as a text or a mapping, as the router contract promises."""
    return query.given() if isinstance(query, Query) else query


def _with_turns(
    parsed: Sequence[Query], queries: Sequence[QueryLike], rows: Sequence[int]
) -> list[QueryLike]:
    """Return the queries as given, after the earlier turns of their sessions; without sessions."""
    found: list[QueryLike] = [replace(query, session=None) for query in parsed]
    for row, query in zip(rows, queries, strict=True):
        if isinstance(query, Mapping):
            found[row] = {key: value for key, value in query.items() if key != "session"}
    return found


def _places(decision: Decision, known: Sequence[str]) -> list[int]:
    """Return each LLM's place in the ranking; LLMs that it lacks follow by name."""
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
