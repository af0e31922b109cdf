"""The shipped router earns its place at the lambda that the documentation names."""

from __future__ import annotations

import numpy as np

from waypost.contracts.cost import column_mean
from waypost.contracts.routing_data import read_routing_data
from waypost.loading import manifest_of
from waypost.metrics.operating_points import read_curve

LAMBDA = 0.4
"""What docs/training.md and docs/quickstart.md name."""


def test_at_lambda_04_half_the_cost_buys_more_than_any_fixed_mix(root) -> None:
    starter = root / "serve_configs" / "starter"
    curve = read_curve(manifest_of(starter / "artifact").metrics)
    data = read_routing_data(starter / "data")
    point = min(curve.points, key=lambda one: abs(one.lam - LAMBDA))
    assert abs(point.lam - LAMBDA) < 0.01
    assert point.cost_usd <= 0.48 * curve.strong_cost_usd
    quality, usd = column_mean(data.quality), column_mean(data.cost_usd)
    best = max(
        np.interp(point.cost_usd, usd[[i, j]], quality[[i, j]])
        for i in range(len(usd))
        for j in range(len(usd))
        if usd[i] < point.cost_usd < usd[j]
    )
    assert round(best, 2) == 0.4
    assert point.quality - best > 0.15
