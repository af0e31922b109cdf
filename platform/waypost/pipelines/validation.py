"""How well a router decides on questions it was not fitted on. Never touches test data."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from waypost.contracts.cost import column_mean
from waypost.contracts.records import Query
from waypost.contracts.router import TrainableRouter
from waypost.contracts.routing_data import RoutingData
from waypost.contracts.splits import fold_of

MakeRouter = Callable[[], TrainableRouter]


def cross_validate(
    make: MakeRouter, data: RoutingData, folds: int, seed: int
) -> dict[str, Any] | None:
    """Decide each fold's questions with a router fitted on the others.

    Returns `summary` over all questions, or None where there are too few to leave some out
    (fewer distinct texts than folds, or a fold without which an LLM has no score).
    """
    fold = fold_of(data.queries, folds, seed, data.groups)
    parts = []
    for one in range(folds):
        training, held_out = data.select(fold != one), data.select(fold == one)
        if len(held_out) == 0 or np.isnan(training.quality).all(axis=0).any():
            return None
        parts.append(decide_on(make().fit(training), training, held_out))
    merged = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
    return {"method": f"{folds}-fold cross-validation of the training split", **summary(merged)}


def decide_on(
    router: TrainableRouter, training: RoutingData, held_out: RoutingData
) -> dict[str, NDArray[np.float64]]:
    """Decide questions at lambda 0 and look up what the choice scored.

    Returns vectors of shape (n,), NaN where not measured: ``quality`` and ``cost_usd`` of the
    choice, ``best_single`` and ``best_single_cost_usd`` of the LLM with the highest training
    mean, ``oracle`` the best score of any LLM.
    """
    decisions = router.decide([Query(text) for text in held_out.queries], held_out.embeddings)
    single = training.names[int(np.nanargmax(column_mean(training.quality)))]
    chosen = [decision.model for decision in decisions]
    return {
        "quality": _look_up(held_out, held_out.quality, chosen),
        "best_single": _look_up(held_out, held_out.quality, [single] * len(held_out)),
        "oracle": np.where(np.isnan(held_out.quality), -np.inf, held_out.quality).max(axis=1),
        "cost_usd": _look_up(held_out, held_out.cost_usd, chosen),
        "best_single_cost_usd": _look_up(held_out, held_out.cost_usd, [single] * len(held_out)),
    }


def _look_up(
    data: RoutingData, matrix: NDArray[np.float64], chosen: Sequence[str]
) -> NDArray[np.float64]:
    # A validation split may lack an LLM of the training split: its cells are not measured.
    columns = {name: j for j, name in enumerate(data.names)}
    known = np.column_stack([matrix, np.full(len(matrix), np.nan)])
    return known[np.arange(len(matrix)), [columns.get(name, -1) for name in chosen]]


def summary(vectors: dict[str, NDArray[np.float64]]) -> dict[str, Any]:
    """Average the questions on which both the choice and the best single LLM were measured.

    ``gain`` is the mean difference of the two, ``gain_se`` its paired standard error. Costs are
    null where not recorded.
    """
    both = ~np.isnan(vectors["quality"]) & ~np.isnan(vectors["best_single"])
    kept = {key: value[both] for key, value in vectors.items()}
    n = int(both.sum())
    if n == 0:
        return {"queries": 0}
    gain = kept["quality"] - kept["best_single"]
    return {
        "queries": n,
        "quality": float(kept["quality"].mean()),
        "best_single": float(kept["best_single"].mean()),
        "gain": float(gain.mean()),
        "gain_se": float(gain.std(ddof=1) / np.sqrt(n)) if n > 1 else None,
        "oracle": float(kept["oracle"].mean()),
        "cost_usd": _mean(kept["cost_usd"]),
        "best_single_cost_usd": _mean(kept["best_single_cost_usd"]),
    }


def _mean(values: NDArray[np.float64]) -> float | None:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else None
