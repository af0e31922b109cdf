"""Measure a router's choices on questions that it was not fitted on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from waypost.contracts.cost import column_mean
from waypost.contracts.records import report, watching
from waypost.contracts.router import ScoreRouter, TrainableRouter
from waypost.contracts.routing_data import RoutingData
from waypost.contracts.splits import fold_of
from waypost.contracts.step_router import StepRouter
from waypost.metrics.comparison import lambda_grid, look_up_names
from waypost.metrics.costs import costs_of
from waypost.metrics.operating_points import KEY, curve_of
from waypost.pipelines.evaluation.lambda_curve import decides_alone, sweep

MakeRouter = Callable[[], TrainableRouter]


@dataclass(frozen=True, eq=False)
class Choices:
    """Outcomes of a router's choices on n questions.

    Attributes:
        vectors: By name, shape (n,), NaN where not measured: ``quality`` and ``cost_usd`` of the
            choice at lambda 0, ``best_single`` and ``best_single_cost_usd`` of the LLM with the
            highest training mean, ``oracle`` the best score of any LLM.
        strong: Name of the LLM with the highest training mean.
        lambdas: Cost weights, ascending from 0.
        quality: Scores of the choices at each weight, (n, n_lambdas).
        cost_usd: Dollars of the choices, alike.
        is_strong: Whether the choice is the strong LLM, alike.
    """

    vectors: dict[str, NDArray[np.float64]]
    strong: str
    lambdas: tuple[float, ...]
    quality: NDArray[np.float64]
    cost_usd: NDArray[np.float64]
    is_strong: NDArray[np.bool_]

    def result(self, method: str) -> dict[str, Any]:
        """Return `summary`, the method, and the curve under `KEY`."""
        curve = curve_of(
            method,
            self.strong,
            self.lambdas,
            self.quality,
            self.cost_usd,
            self.is_strong,
            self.vectors["best_single"],
            self.vectors["best_single_cost_usd"],
        )
        told = {} if curve is None else {KEY: curve.to_dict()}
        return {"method": method, **summary(self.vectors), **told}


def cross_validate(
    make: MakeRouter,
    data: RoutingData,
    folds: int,
    seed: int,
    lambdas: Sequence[float] = (0.0,),
) -> dict[str, Any] | None:
    """Route each fold's questions with a router fitted on the other folds.

    Returns `Choices.result` over all questions, or None if there are too few questions (fewer
    distinct texts than folds, or an LLM without a score outside of one fold).
    """
    fold = fold_of(data.queries, folds, seed, data.groups)
    parts: list[Choices] = []
    for one in range(folds):
        report("cross-validation", one, folds)
        training, held_out = data.select(fold != one), data.select(fold == one)
        if len(held_out) == 0 or np.isnan(training.quality).all(axis=0).any():
            return None
        with watching(None):  # the fits' own progress would make the bar jump
            parts.append(decide_on(make().fit(training), training, held_out, lambdas))
    merged = Choices(
        {key: np.concatenate([part.vectors[key] for part in parts]) for key in parts[0].vectors},
        best_single(data),
        parts[0].lambdas,
        np.concatenate([part.quality for part in parts]),
        np.concatenate([part.cost_usd for part in parts]),
        np.concatenate([part.is_strong for part in parts]),
    )
    return merged.result(f"{folds}-fold cross-validation of the training split")


def best_single(data: RoutingData) -> str:
    """Return the name of the LLM with the highest mean score."""
    return data.names[int(np.nanargmax(column_mean(data.quality)))]


def curve_lambdas(router: TrainableRouter, data: RoutingData) -> tuple[float, ...]:
    """Return the cost weights at which a router is measured: 0 alone where it ranks by no cost.

    Deciding again at each weight is slow for routers other than score routers.
    """
    if not isinstance(router, ScoreRouter):
        return (0.0,)
    if isinstance(router, StepRouter) and not decides_alone(router):
        return (0.0,)
    return lambda_grid(column_mean(costs_of(data).usd))


def decide_on(
    router: TrainableRouter,
    training: RoutingData,
    held_out: RoutingData,
    lambdas: Sequence[float] = (0.0,),
) -> Choices:
    """Route questions as `choices_of`; strong is the LLM with the highest training mean."""
    return choices_of(router, best_single(training), held_out, lambdas)


def choices_of(
    router: TrainableRouter, strong: str, held_out: RoutingData, lambdas: Sequence[float]
) -> Choices:
    """Route questions at each cost weight, of which the first is 0, and look up the outcomes.

    Dollars are those recorded; without any, list prices times both counted tokens. The questions
    may lack an LLM that the router was trained on; its outcomes are then not measured.
    """
    costs = costs_of(held_out)
    if costs.whole:
        held_out = replace(held_out, cost_usd=costs.usd)
    swept = sweep(router, held_out, lambdas)
    chosen = swept.outcomes[0]
    single = look_up_names(held_out, [strong] * len(held_out))
    column = held_out.names.index(strong) if strong in held_out.names else None
    vectors = {
        "quality": chosen.quality,
        "best_single": single.quality,
        "oracle": np.where(np.isnan(held_out.quality), -np.inf, held_out.quality).max(axis=1),
        "cost_usd": chosen.cost_usd,
        "best_single_cost_usd": single.cost_usd,
    }
    return Choices(
        vectors,
        strong,
        swept.lambdas,
        np.column_stack([one.quality for one in swept.outcomes]),
        np.column_stack([one.cost_usd for one in swept.outcomes]),
        np.column_stack([one.model == column for one in swept.outcomes]),
    )


def summary(vectors: dict[str, NDArray[np.float64]]) -> dict[str, Any]:
    """Return means over the questions with scores of both the choice and the best single LLM.

    ``gain`` is the mean difference of the two, ``gain_se`` its paired standard error. Costs are
    None if neither recorded nor priced.
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
    """Return `summary` from the report of a router that validates itself; None without one.

    The router also used these folds for its choice, so the numbers are slightly optimistic.
    """
    tried = {row["candidate"]: row for row in report.get("candidates", ())}
    chosen = tried.get(report["chosen"])
    if chosen is None:
        return None
    return {
        "method": f"{report['folds']}-fold cross-validation inside the fit, used for its choice",
        "queries": report["questions"],
        **{key: chosen[key] for key in ("quality", "gain", "gain_se")},
        **{key: report[key] for key in ("best_single", "oracle")},
        **({KEY: report[KEY]} if report.get(KEY) else {}),
        "cost_usd": None,
        "best_single_cost_usd": None,
    }


def _mean(values: NDArray[np.float64]) -> float | None:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else None
