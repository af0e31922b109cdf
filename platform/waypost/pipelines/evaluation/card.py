"""The numbers of one router: everything that one row of the report says."""

from __future__ import annotations

import numpy as np

from waypost.contracts.types import Floats
from waypost.metrics.behaviour import (
    collapse_index,
    cost_rises,
    picks_best,
    solver_recall,
    usage_entropy,
    usage_shares,
)
from waypost.metrics.cascade import delta_ibc, escalation
from waypost.metrics.significance import is_binary, mcnemar
from waypost.pipelines.evaluation.ground import Ground, mean, mean_usd
from waypost.pipelines.evaluation.headline import (
    Card,
    Curve,
    Draws,
    Numbers,
    area,
    by_task,
    headline,
    unseen,
    usage,
)
from waypost.pipelines.evaluation.matched import matched, ratio
from waypost.pipelines.evaluation.predictions import predictions
from waypost.pipelines.evaluation.two_models import two_models
from waypost.pipelines.sweep import Sweep

MARGIN = 0.02
"""Loss of quality that still counts as the same (non-inferiority), fixed beforehand."""


def card(ground: Ground, sweep: Sweep) -> Card:
    """Measure a router's sweep."""
    first, curve = sweep.outcomes[0], Curve.of(ground, sweep)
    numbers: Numbers = {}
    draws: Draws = {}
    headline(ground, first.quality, numbers, draws)
    numbers["cost_usd_per_1k"] = 1000 * float(curve.cost_usd[0])
    numbers |= _paired(ground, first.quality, numbers["delta_low"])
    numbers |= area(ground, sweep, curve, draws)
    numbers |= matched(ground, curve)
    numbers |= _gaps(ground, numbers)
    numbers |= _slope(ground, curve)
    numbers |= _behaviour(ground, sweep)
    numbers["episodes"] = _episodes(ground, sweep)
    numbers |= predictions(ground, sweep, draws)
    numbers |= two_models(ground, sweep, draws)
    numbers["tasks"] = by_task(ground, first.quality)
    numbers["macro_quality"] = mean(list(numbers["tasks"].values()))
    numbers["not_measured"] = int(np.isnan(first.quality).sum())
    numbers["cost_unknown"] = int(np.isnan(first.cost_usd).sum())
    numbers["list_price"] = float(curve.price[0])
    numbers["unseen"] = unseen(ground, first.quality, numbers, draws)
    numbers["curve"] = curve.points(1000 * curve.cost_usd)
    numbers["curve_price"] = curve.points(curve.price)
    numbers["usage_curve"] = [list(usage(ground, one.model).values()) for one in sweep.outcomes]
    return Card(numbers, draws, sweep)


def non_inferior(delta_low: float) -> bool | None:
    """Say whether quality is at most `MARGIN` below the best single LLM's; None if unknown."""
    return None if np.isnan(delta_low) else bool(delta_low > -MARGIN)


def _paired(ground: Ground, quality: Floats, delta_low: float) -> Numbers:
    best = ground.best_outcomes.quality
    difference = quality - best
    binary = is_binary(quality, best) and not np.isnan(difference).all()
    return {
        "non_inferior": non_inferior(delta_low),
        "wins": int((difference > 0).sum()),
        "ties": int((difference == 0).sum()),
        "losses": int((difference < 0).sum()),
        "mcnemar_p": mcnemar(quality, best) if binary else np.nan,
    }


def _gaps(ground: Ground, numbers: Numbers) -> Numbers:
    reachable = mean(ground.oracle.outcomes[0].quality)
    headroom = reachable - mean(ground.best_outcomes.quality)
    return {
        "gap_oracle": 1 - ratio(numbers["quality"], reachable),
        "recovered_headroom": ratio(numbers["delta_best_single"], headroom),
    }


def _slope(ground: Ground, curve: Curve) -> Numbers:
    """Return delta IBC at lambda 0: against the line from the cheapest to the best single LLM."""
    if np.isnan(ground.mean_usd).any() or np.isnan(curve.cost_usd[0]):
        return {"delta_ibc": np.nan, "dominates_cheapest": None}
    ends = [ground.always(j) for j in (int(np.argmin(ground.mean_usd)), ground.best)]
    small, large = ((mean(one.quality), mean_usd(one.cost_usd)) for one in ends)
    found = delta_ibc(float(curve.quality[0]), float(curve.cost_usd[0]), small, large)
    return {
        "delta_ibc": np.nan if isinstance(found, str) else found,
        "dominates_cheapest": found == "dominates",
    }


def _episodes(ground: Ground, sweep: Sweep) -> list[dict[str, float]]:
    """Return what each setting's episodes were like; nothing for routers of one call."""
    return [
        {
            "lambda": lam,
            "calls": float(one.calls.mean()),
            **escalation(ground.test.quality, one.first, one.model),
        }
        for lam, one in zip(sweep.lambdas, sweep.outcomes, strict=True)
        if one.calls is not None and one.first is not None
    ]


def _behaviour(ground: Ground, sweep: Sweep) -> Numbers:
    model, m = sweep.outcomes[0].model, len(ground.test.llms)
    shares = usage_shares(model, m)
    oracle_shares = usage_shares(ground.oracle.outcomes[0].model, m)
    expected = sweep.expected_usd
    return {
        "usage": usage(ground, model),
        "usage_entropy": usage_entropy(shares),
        "collapse_index": collapse_index(shares, oracle_shares),
        "cost_rises": None
        if expected is None or np.isnan(expected).any()
        else cost_rises(expected),
        "solver_recall": solver_recall(ground.test.quality, model),
        "picks_best": picks_best(ground.test.quality, model),
    }
