"""Metrics of cascades (routing_metrics.md section 5 of the design; AutoMix, arXiv 2310.12963)."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from waypost.metrics.behaviour import SOLVED

_SAME = 1e-9
"""Costs closer than this are the same: sums of the same dollars in another order."""


def delta_ibc(
    quality: float,
    cost_usd: float,
    small: tuple[float, float],
    large: tuple[float, float],
) -> float | Literal["dominates", "n/a"]:
    """Return how much more a method gains for a dollar than going from small to large, in percent.

    With IBC the gain in quality over the small model for each dollar spent beyond it: 100 *
    (IBC of the method / IBC of the large model - 1). Above 0 the method lies above the line
    between the two models.

    Args:
        quality: Mean score of the method.
        cost_usd: Its mean dollars, verdicts included.
        small: Mean score and dollars of the small model.
        large: Of the large one.

    Returns:
        The percentage; ``dominates`` where the method costs no more than the small model and is
        not worse; ``n/a`` where it costs no more and is worse, or where the large model is not
        both better and dearer than the small one.
    """
    if large[1] <= small[1] or large[0] <= small[0]:
        return "n/a"
    if cost_usd <= small[1] * (1 + _SAME):
        return "dominates" if quality >= small[0] else "n/a"
    slope = (large[0] - small[0]) / (large[1] - small[1])
    return 100 * ((quality - small[0]) / (cost_usd - small[1]) - slope) / slope


def escalation(
    quality: NDArray[np.float64], first: NDArray[np.intp], last: NDArray[np.intp]
) -> dict[str, float]:
    """Return how often a cascade goes on to another LLM, and how often wrongly so.

    Args:
        quality: Measured scores (n, m).
        first: Column of the LLM asked first, (n,), -1 for none.
        last: Of the one whose answer was given.

    Returns:
        ``escalated``: share of queries whose answer is not the first LLM's. ``kept_wrong``: share
        of the other queries whose answer does not solve them (a score below `SOLVED`): the
        verifier let it pass. ``left_right``: share of the escalated ones that the first answer
        had solved. Of measured answers; NaN where there are none.
    """
    known = (first >= 0) & (last >= 0)
    first, last, quality = first[known], last[known], quality[known]
    score = quality[np.arange(len(quality)), first]
    measured, went_on = ~np.isnan(score), first != last
    return {
        "escalated": _share(went_on),
        "kept_wrong": _share(score[~went_on & measured] < SOLVED),
        "left_right": _share(score[went_on & measured] >= SOLVED),
    }


def _share(values: NDArray[np.bool_]) -> float:
    return float(values.mean()) if len(values) else np.nan
