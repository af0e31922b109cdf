"""Single numbers of a cost-quality curve that need no choice of a setting."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

ARENA_USD_PER_1K = (0.0044, 200.0)
ARENA_BETA = 0.1


def hypervolume(cost: ArrayLike, quality: ArrayLike, most: float, least: float) -> float:
    """Share of the box above the reference point that the settings dominate, from 0 to 1.

    The box goes from cost 0 to ``most`` and from quality ``least`` to 1; a setting dominates what
    costs no less and is no better. No mixing of settings. (Zitzler and Thiele, 1999.)

    Args:
        cost: Mean cost of each setting, (n,).
        quality: Its mean score; a point with a NaN is none.
        most: Cost of the reference point, such as the dearest single LLM's.
        least: Its quality, such as that of a random choice.

    Returns:
        NaN where no setting has a cost, or the box is empty.
    """
    c, q = np.asarray(cost, np.float64), np.asarray(quality, np.float64)
    known = ~np.isnan(c) & ~np.isnan(q)
    if not known.any() or not most > 0 or not least < 1:
        return np.nan
    order = np.argsort(c[known], kind="stable")
    x = np.minimum(c[known][order], most)
    height = np.maximum(np.maximum.accumulate(q[known][order]) - least, 0.0)
    return float((np.diff(x, append=most) * height).sum() / (most * (1 - least)))


def arena_score(quality: float, usd_per_1k: float) -> float:
    """RouterArena's score (2510.00202) of a mean score and dollars of 1,000 queries, from 0 to 1.

    (1 + b) * A * C / (b * A + C) with b = .1, A the quality and C = the log of 200 / cost over the
    log of 200 / 0.0044: 1 for the cheapest, 0 for the dearest; a cost outside counts as the nearest
    end. NaN where the cost is unknown or 0.
    """
    low, high = ARENA_USD_PER_1K
    if not usd_per_1k > 0 or math.isnan(quality):
        return np.nan
    cheap = math.log(high / min(max(usd_per_1k, low), high)) / math.log(high / low)
    if quality <= 0 or cheap <= 0:
        return 0.0
    return (1 + ARENA_BETA) * quality * cheap / (ARENA_BETA * quality + cheap)
