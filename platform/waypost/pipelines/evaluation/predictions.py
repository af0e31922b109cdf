"""How good a router's predictions are: scores, order, confidence, dollars."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from waypost.contracts.types import Floats
from waypost.metrics import coverage
from waypost.metrics.calibration import brier, calibration_error, log_loss, reliability
from waypost.metrics.costs import Costs, cost_error
from waypost.metrics.coverage import Coverage
from waypost.metrics.intervals import interval
from waypost.metrics.ranking import auroc, kendall_tau, ndcg
from waypost.pipelines.evaluation.ground import CURVE_DRAWS, Ground, mean
from waypost.pipelines.evaluation.headline import INTERVALS, Draws, Numbers
from waypost.pipelines.sweep import Sweep

Metric = Callable[[Floats, Floats], float]

COVERAGES = tuple(k / 20 for k in range(21))
"""Where curves over coverage are given."""


def predictions(ground: Ground, sweep: Sweep, draws: Draws) -> Numbers:
    """Measure what a router predicted, section 8 of the design's metrics; adds draws.

    Everything is NaN for a router that predicts no scores.
    """
    predicted, measured = sweep.predicted, ground.test.quality
    if predicted is None:
        return _unknown()
    bins = reliability(predicted, measured)
    by_llm = _by_llm(ground, predicted)
    error, low = _dollars(ground, sweep)
    return {
        **_unknown(),
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


def _unknown() -> Numbers:
    numbers = (
        "brier", "log_loss", "ece", "auroc", "kendall_tau", *INTERVALS["kendall_tau"], "ndcg",
        "selective_area", "selective_gain", *INTERVALS["selective_gain"], "margin_area",
        "margin_gain", *INTERVALS["margin_gain"], "cost_error", "cost_too_low",
    )  # fmt: skip
    curves: Numbers = {key: [] for key in ("reliability", "selective_curve", "margin_curve")}
    return {**dict.fromkeys(numbers, np.nan), **curves, "by_llm": {}}


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
    """Let some queries fall back to the best single LLM of training, by two orders.

    ``selective``: those of low confidence, of routers that have one. ``margin``: those for which
    the choice is predicted to gain little over the best single LLM. A router may well be sure
    where every LLM is right, which is no reason to choose.
    """
    model = sweep.outcomes[0].model
    scores = np.where(model >= 0, predicted[np.arange(len(model)), model], np.nan)
    orders = {"selective": sweep.confidence, "margin": scores - predicted[:, ground.best]}
    found: Numbers = {}
    for prefix, value in orders.items():
        if value is not None and not np.isnan(value).all():
            found |= _fall_back(ground, sweep, value, prefix, draws)
    return found


def _fall_back(ground: Ground, sweep: Sweep, value: Floats, prefix: str, draws: Draws) -> Numbers:
    default = ground.best_outcomes.quality
    order = Coverage.of(sweep.outcomes[0].quality - default, value)
    if not len(order.rows):
        return {}

    def over_random(weights: Floats | None = None) -> Floats:
        area, whole = order.means(weights)
        return area - whole / 2

    gain = f"{prefix}_gain"
    draws[gain] = drawn = ground.bootstrap.statistic(over_random, CURVE_DRAWS)
    fallback = float(default[order.rows].mean())
    points = zip(COVERAGES, coverage.at(order, COVERAGES), strict=True)
    return {
        f"{prefix}_area": fallback + float(order.means()[0][0]),
        gain: float(over_random()[0]),
        **dict(zip(INTERVALS[gain], interval(drawn), strict=True)),
        f"{prefix}_curve": [[share, fallback + float(more)] for share, more in points],
    }


def _dollars(ground: Ground, sweep: Sweep) -> tuple[float, float]:
    usd = ground.test.cost_usd
    # The whole call is predicted, which cannot be compared with the cost of a part of it.
    if sweep.predicted_usd is None or not Costs(ground.basis, usd).whole:
        return np.nan, np.nan
    return cost_error(sweep.predicted_usd, usd)
