"""The dial from cheap to good, as the cost weight that routers take."""

from __future__ import annotations

import math

CHEAPEST, BEST = 0.0, 10.0
"""Ends of the dial."""

_MIDDLE = 5.0
_DECADES_PER_STEP = 0.4


def cost_weight(dial: float) -> float:
    """Return the lambda of a place of the dial.

    The best end is 0, quality alone; the middle is 1, where one average call of the dearest LLM
    costs as much as the difference between a right and a wrong answer; each step is a factor of
    2.5, so that the cheapest end is 100.
    """
    if dial >= BEST:
        return 0.0
    return float(f"{10 ** (_DECADES_PER_STEP * (_MIDDLE - max(dial, CHEAPEST))):.3g}")


def place_of(lam: float) -> float:
    """Return the nearest place of the dial (in halves) to a lambda, infinite ones included."""
    if lam <= 0:
        return BEST
    if math.isinf(lam):
        return CHEAPEST
    exact = _MIDDLE - math.log10(lam) / _DECADES_PER_STEP
    return min(max(round(2 * exact) / 2, CHEAPEST), BEST - 0.5)
