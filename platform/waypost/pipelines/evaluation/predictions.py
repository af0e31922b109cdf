"""How good a router's predictions are: scores, order, confidence, dollars."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from waypost.metrics import coverage
from waypost.metrics.calibration import brier, calibration_error, log_loss, reliability
from waypost.metrics.costs import Costs, cost_error
from waypost.metrics.coverage import Coverage
from waypost.metrics.intervals import interval
from waypost.metrics.ranking import auroc, kendall_tau, ndcg
from waypost.pipelines.evaluation.ground import CURVE_DRAWS, Ground, mean
from waypost.pipelines.evaluation.headline import INTERVALS, Draws, Numbers
from waypost.pipelines.sweep import Sweep

Floats = NDArray[np.float64]
Metric = Callable[[Floats, Floats], float]

COVERAGES = tuple(k / 20 for k in range(21))
"""Where ``selective_curve`` is given."""


def predictions(ground: Ground, sweep: Sweep, draws: Draws) -> Numbers:
    """Measure what a router predicted, section 8 of the design's metrics; adds draws.

    Everything is NaN for a router that predicts no scores.
    """
    predicted, measured = sweep.predicted, ground.test.quality
    if predicted is None:
        return {**_UNKNOWN, "reliability": [], "selective_curve": [], "by_llm": {}}
    bins = reliability(predicted, measured)
    by_llm = _by_llm(ground, predicted)
    error, low = _dollars(ground, sweep)
    return {
        **_UNKNOWN,
        "brier": brier(predicted, measured),
        "log_loss": log_loss(predicted, measured),
        "ece": calibration_error(bins),
        "reliability": bins,
        "auroc": mean([one["auroc"] for one in by_llm.values()]),
        "by_llm": by_llm,
        **_order(ground, predicted, draws),
        **_selective(ground, sweep, predicted, draws),
        "cost_error": error,
        "cost_too_low": low,
    }


_UNKNOWN: dict[str, Any] = {
    **dict.fromkeys(
        (
            "brier", "log_loss", "ece", "auroc", "kendall_tau", *INTERVALS["kendall_tau"], "ndcg",
            "selective_area", "selective_gain", *INTERVALS["selective_gain"], "cost_error",
            "cost_too_low",
        ),
        np.nan,
    ),
    "confidence_is": None,
}  # fmt: skip


def _by_llm(ground: Ground, predicted: Floats) -> dict[str, dict[str, float]]:
    metrics: dict[str, Metric] = {
        "brier": brier,
        "log_loss": log_loss,
        "ece": lambda p, s: calibration_error(reliability(p, s)),
        "auroc": auroc,
    }
    columns = zip(ground.test.names, predicted.T, ground.test.quality.T, strict=True)
    return {name: {key: of(p, s) for key, of in metrics.items()} for name, p, s in columns}


def _order(ground: Ground, predicted: Floats, draws: Draws) -> Numbers:
    tau = kendall_tau(predicted, ground.test.quality)
    draws["kendall_tau"] = drawn = ground.bootstrap.means(tau, CURVE_DRAWS)[:, 0]
    return {
        "kendall_tau": mean(tau),
        **dict(zip(INTERVALS["kendall_tau"], interval(drawn), strict=True)),
        "ndcg": mean(ndcg(predicted, ground.test.quality)),
    }


def _selective(ground: Ground, sweep: Sweep, predicted: Floats, draws: Draws) -> Numbers:
    """Let queries of low confidence fall back to the best single LLM of training.

    A router without a confidence is as sure as the score that it predicts to gain by its choice.
    """
    first, default = sweep.outcomes[0], ground.best_outcomes.quality
    confidence, source = sweep.confidence, "the router's confidence"
    if confidence is None:
        rows = np.arange(len(predicted))
        scores = np.where(first.model >= 0, predicted[rows, first.model], np.nan)
        confidence, source = scores - predicted[:, ground.best], "predicted gain"
    order = Coverage.of(first.quality - default, confidence)
    if not len(order.rows):
        return {"selective_curve": []}

    def over_random(weights: Floats | None = None) -> Floats:
        area, whole = order.means(weights)
        return area - whole / 2

    draws["selective_gain"] = drawn = ground.bootstrap.statistic(over_random, CURVE_DRAWS)
    fallback = float(default[order.rows].mean())
    points = zip(COVERAGES, coverage.at(order, COVERAGES), strict=True)
    return {
        "confidence_is": source,
        "selective_area": fallback + float(order.means()[0][0]),
        "selective_gain": float(over_random()[0]),
        **dict(zip(INTERVALS["selective_gain"], interval(drawn), strict=True)),
        "selective_curve": [[share, fallback + float(gain)] for share, gain in points],
    }


def _dollars(ground: Ground, sweep: Sweep) -> tuple[float, float]:
    usd = ground.test.cost_usd
    # The whole call is predicted, which cannot be compared with the cost of a part of it.
    if sweep.predicted_usd is None or not Costs(ground.basis, usd).whole:
        return np.nan, np.nan
    return cost_error(sweep.predicted_usd, usd)
