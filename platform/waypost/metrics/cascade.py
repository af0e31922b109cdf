"""Metrics of cascades (routing_metrics.md section 5 of the design; AutoMix, arXiv 2310.12963)."""

from __future__ import annotations

from typing import Literal

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
