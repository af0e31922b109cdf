"""Route measured questions at each of a range of cost weights, with any kind of router."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from waypost.contracts import policy
from waypost.contracts.records import Prediction, Query
from waypost.contracts.router import QueryBatch, ScoreRouter, TrainableRouter
from waypost.contracts.routing_data import RoutingData
from waypost.contracts.step_router import StepRouter
from waypost.metrics.comparison import Outcomes, Sweep, look_up, look_up_names
from waypost.pipelines.evaluation import replay

_FEW = 9


def sweep(router: TrainableRouter, data: RoutingData, lambdas: Sequence[float]) -> Sweep:
    """Route every query at every cost weight and look up the outcomes; no LLM is called.

    A score router predicts once, and the policy ranks at each weight. Other routers decide again
    at each weight, so only `few` of the weights are used for them. The episodes of a step router
    are replayed; of one whose calls data cannot hold (`decides_alone`), its single-round choice is
    looked up.

    Args:
        router: A fitted router; if it needs embeddings, those of ``data`` are used.
        data: Measured outcomes, with the costs to count in ``cost_usd``.
        lambdas: Cost weights, ascending.

    Raises:
        SchemaError: The data lacks embeddings or recorded answers that the router needs.
        PluginError: A plug-in router fails, or returns invalid decisions.
    """
    some = few(lambdas)
    if isinstance(router, StepRouter) and not decides_alone(router):
        return Sweep(some, tuple(replay.outcomes(router, data, lam) for lam in some))
    if isinstance(router, ScoreRouter):
        return _by_policy(router, data, lambdas)
    return Sweep(some, tuple(_by_asking(router, data, lam) for lam in some))


def decides_alone(router: object) -> bool:
    """Return whether a step router also scores LLMs by itself, and makes calls no data holds.

    Recorded data can then measure its single-round choice only.
    """
    return (
        isinstance(router, StepRouter) and isinstance(router, ScoreRouter) and not router.replayable
    )


def _by_policy(router: ScoreRouter, data: RoutingData, lambdas: Sequence[float]) -> Sweep:
    # the steps of `ScoreRouter.decide`, without creating a Decision for each query and weight
    queries = tuple(Query(text) for text in data.queries)
    batch = QueryBatch(queries, data.embeddings if router.needs_embeddings else None)
    prediction = router.predict(batch)
    quality = np.asarray(policy.decision_quality(prediction, router.mean_quality_), np.float64)
    cost = router.predict_cost(batch, prediction)
    names = router.model_names
    place = np.array([data.names.index(n) if n in data.names else -1 for n in names], np.intp)
    rows = np.arange(len(queries))
    allowed = policy.allowed_mask(queries, router.policy, names)
    found: list[Outcomes] = []
    expected: list[float] = []
    confidence = None
    for lam in lambdas:
        order = policy.rank(
            quality,
            cost,
            names,
            lam=lam,
            cost_ref=router.cost_model_.cost_ref,
            allowed=allowed,
        )
        chosen = router.explore(order, queries)[0][:, 0]
        if not found:
            confidence = _confidence(prediction, chosen)
        found.append(look_up(data, place[chosen]))
        expected.append(float(cost[rows, chosen].mean()))
    predicted, usd = (np.full(data.quality.shape, np.nan) for _ in range(2))
    predicted[:, place[place >= 0]] = quality[:, place >= 0]
    usd[:, place[place >= 0]] = cost[:, place >= 0]
    return Sweep(tuple(lambdas), tuple(found), predicted, np.array(expected), usd, confidence)


def _confidence(prediction: Prediction, chosen: NDArray[np.intp]) -> NDArray[np.float64] | None:
    if prediction.confidence is None:
        return None
    sure = np.asarray(prediction.confidence, np.float64)[np.arange(len(chosen)), chosen]
    unlike = prediction.out_of_distribution
    return sure if unlike is None else np.where(unlike, np.nan, sure)


def _by_asking(router: TrainableRouter, data: RoutingData, lam: float) -> Outcomes:
    queries = [Query(text, lam=lam) for text in data.queries]
    decisions = router.decide(queries, data.embeddings if router.needs_embeddings else None)
    return look_up_names(data, [decision.model for decision in decisions])


def few(lambdas: Sequence[float]) -> tuple[float, ...]:
    """Return at most `_FEW` of the cost weights, with the first and the last."""
    if len(lambdas) <= _FEW:
        return tuple(lambdas)
    return tuple(lambdas[i] for i in np.linspace(0, len(lambdas) - 1, _FEW).astype(int))
