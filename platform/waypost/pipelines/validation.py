"""How well a router decides on questions it was not fitted on. Never touches test data."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from waypost.contracts.cost import column_mean
from waypost.contracts.progress import report, watching
from waypost.contracts.router import TrainableRouter
from waypost.contracts.routing_data import RoutingData
from waypost.contracts.splits import fold_of
from waypost.pipelines.outcomes import look_up_names
from waypost.pipelines.sweep import sweep

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
        report("cross-validation", one, folds)
        training, held_out = data.select(fold != one), data.select(fold == one)
        if len(held_out) == 0 or np.isnan(training.quality).all(axis=0).any():
            return None
        with watching(None):  # a fold's own fit is not told of: the bar would jump
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
    chosen = sweep(router, held_out, (0.0,)).outcomes[0]
    # A validation split may lack an LLM of the training split: its cells are not measured.
    name = training.names[int(np.nanargmax(column_mean(training.quality)))]
    single = look_up_names(held_out, [name] * len(held_out))
    return {
        "quality": chosen.quality,
        "best_single": single.quality,
        "oracle": np.where(np.isnan(held_out.quality), -np.inf, held_out.quality).max(axis=1),
        "cost_usd": chosen.cost_usd,
        "best_single_cost_usd": single.cost_usd,
    }


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


def of_report(report: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return `summary` as a router that validates itself reports it, None where it did not.

    Its folds are those on which it chose, so the number is a little kind to it.
    """
    tried = {row["candidate"]: row for row in report.get("candidates", ())}
    chosen = tried.get(report["chosen"])
    if chosen is None:
        return None
    return {
        "method": f"{report['folds']}-fold cross-validation inside the fit, by which it chose",
        "queries": report["questions"],
        **{key: chosen[key] for key in ("quality", "gain", "gain_se")},
        **{key: report[key] for key in ("best_single", "oracle")},
        "cost_usd": None,
        "best_single_cost_usd": None,
    }


def _mean(values: NDArray[np.float64]) -> float | None:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else None
