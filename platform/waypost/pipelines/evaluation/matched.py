"""What a curve reaches at somebody else's cost, quality or price."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from waypost.metrics.curves import best_within, cheapest_reaching, hull
from waypost.metrics.matched import arena_score, hypervolume
from waypost.pipelines.evaluation.ground import Ground, mean, mean_usd
from waypost.pipelines.evaluation.headline import Curve, Numbers

SHARES = (10, 25, 50, 75, 100)
"""Per cent of the best single LLM's cost at which the best quality is told."""


def matched(ground: Ground, curve: Curve) -> Numbers:
    """Return the numbers at the best single LLM's quality and cost, and at each list price."""
    best, best_usd = (
        mean(ground.best_outcomes.quality),
        mean_usd(ground.best_outcomes.cost_usd),
    )
    spent = {
        key: cheapest_reaching(curve.cost_usd, curve.quality, share * best)
        for key, share in (
            ("cost_save", 1.0),
            ("cost_save_99", 0.99),
            ("cost_save_95", 0.95),
            ("cost_save_90", 0.9),
        )
    }
    highest = float(np.nanmax(curve.quality, initial=-np.inf))
    usd, quality = float(curve.cost_usd[0]), float(curve.quality[0])
    at_random = mean(np.array([mean(row) for row in ground.test.quality]))
    dearest = float(np.nanmax(ground.singles.cost, initial=-np.inf))
    return {
        **{key: 1 - ratio(usd, best_usd) for key, usd in spent.items()},
        "perf_gain": ratio(highest - best, best),
        "gain_best": ratio(quality, best) - 1,
        "gain_random": ratio(quality, at_random) - 1,
        "beats_singles": _beats(ground, curve),
        "quality_at_cost": at_costs(curve.points(1000 * curve.cost_usd), 1000 * best_usd),
        "quality_at_price": _at_prices(ground, curve),
        "hypervolume": hypervolume(curve.cost_usd, curve.quality, dearest, at_random),
        "arena_score": arena_score(quality, 1000 * usd),
    }


def at_costs(points: Sequence[Sequence[float]], usd: float) -> dict[str, float]:
    """Return the best quality of a setting within each of `SHARES` of a cost.

    Args:
        points: ``[lambda, quality, cost]`` of each setting.
        usd: The whole cost, in the points' unit.
    """
    _, quality, cost = np.array(points, np.float64).T
    return {str(share): best_within(cost, quality, usd * share / 100) for share in SHARES}


def _beats(ground: Ground, curve: Curve) -> int | None:
    if np.isnan(curve.cost_usd).all() or np.isnan(ground.singles.cost).any():
        return None
    own = hull(curve.cost_usd, curve.quality)
    points = zip(ground.singles.cost[0], ground.singles.quality[0], strict=True)
    return sum(bool(own.at(c)[0] > q) for c, q in points)


def _at_prices(ground: Ground, curve: Curve) -> list[list[float]]:
    """Return ``[price, quality of a setting within it, quality by mixing two settings]``."""
    mixed = hull(curve.price, curve.quality)
    prices = np.unique(ground.prices[~np.isnan(ground.prices)])
    return [
        [float(p), best_within(curve.price, curve.quality, p), float(mixed.at(p * (1 + 1e-9))[0])]
        for p in prices
    ]


def ratio(part: float, whole: float) -> float:
    """Divide; NaN where the whole is not above 0."""
    return part / whole if whole > 0 else np.nan
