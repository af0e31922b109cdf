"""Metrics of behaviour: use of the LLMs, escalation of cascades, ties and headroom."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from waypost.contracts.cost import column_mean
from waypost.contracts.types import Floats

SOLVED = 0.5
"""Minimum score that counts as solving a question."""

RARITY = {"1": (1, 1), "2": (2, 2), "3-5": (3, 5), "6+": (6, 10**9)}
"""Groups of questions by the number of LLMs that solve them."""


def usage_shares(model: NDArray[np.intp], n_llms: int) -> Floats:
    """Return the share of queries each LLM answers, shape (n_llms,), without choices of -1."""
    counts = np.bincount(model[model >= 0], minlength=n_llms).astype(np.float64)
    return counts / counts.sum() if counts.sum() else np.full(n_llms, np.nan)


def usage_entropy(shares: Floats) -> float:
    """Return the normalised entropy: 0 for one LLM only, 1 for equal shares; NaN for one LLM."""
    if len(shares) < 2 or np.isnan(shares).any():
        return np.nan
    used = shares[shares > 0]
    return abs(float(-(used * np.log(used)).sum() / np.log(len(shares))))


def collapse_index(shares: Floats, oracle: Floats) -> float:
    """Return the largest share minus the oracle's largest; above 0 the choice has collapsed."""
    return float(shares.max() - oracle.max())


def cost_rises(expected_usd: Floats) -> int:
    """Count the steps of an ascending lambda at which the expected cost rises; should be 0."""
    scale = np.nanmax(np.abs(expected_usd), initial=0.0)
    return int((np.diff(expected_usd) > 1e-9 * scale).sum())


def picks_best(quality: Floats, model: NDArray[np.intp]) -> float:
    """Return the share of queries whose choice has the highest measured score (routing accuracy).

    Ties count as right, so it is high if LLMs often agree; quality is more informative. Choices
    that were not measured are left out; NaN if none was measured.

    Args:
        quality: Measured scores (n, m).
        model: Chosen columns (n,), -1 for none.
    """
    chosen = np.where(model >= 0, quality[np.arange(len(quality)), model], np.nan)
    known = ~np.isnan(chosen)
    highest = np.where(np.isnan(quality), -np.inf, quality).max(axis=1, initial=-np.inf)
    return float((chosen[known] >= highest[known]).mean()) if known.any() else np.nan


def solver_recall(quality: Floats, model: NDArray[np.intp]) -> dict[str, dict[str, float]]:
    """Return how often the choice solves the question, by the number of LLMs that solve it.

    Args:
        quality: Measured scores (n, m).
        model: Chosen columns (n,); -1 and unmeasured choices are left out.

    Returns:
        Group of `RARITY` -> ``queries`` and ``recall`` (NaN without queries).
    """
    rows = np.arange(len(quality))
    chosen = np.where(model >= 0, quality[rows, model], np.nan)
    solvers = (np.nan_to_num(quality) >= SOLVED).sum(axis=1)
    found = {}
    for name, (low, high) in RARITY.items():
        group = (solvers >= low) & (solvers <= high) & ~np.isnan(chosen)
        recall = float((chosen[group] >= SOLVED).mean()) if group.any() else np.nan
        found[name] = {"queries": int(group.sum()), "recall": recall}
    return found


_SAME = 1e-9
"""Relative difference up to which costs are equal, because sums of floats depend on their order."""


def delta_ibc(
    quality: float,
    cost_usd: float,
    small: tuple[float, float],
    large: tuple[float, float],
) -> float | Literal["dominates", "n/a"]:
    """Return the relative gain per dollar over going from small to large, in percent (AutoMix).

    IBC is the gain in quality over the small model per additional dollar. The result is 100 *
    (IBC of the method / IBC of the large model - 1). Above 0 the method lies above the line
    between the two models.

    Args:
        quality: Mean score of the method.
        cost_usd: Its mean dollars, verdicts included.
        small: Mean score and dollars of the small model.
        large: Mean score and dollars of the large model.

    Returns:
        The percentage; ``dominates`` if the method costs no more than the small model and is
        not worse; ``n/a`` if it costs no more and is worse, or if the large model is not both
        better and more expensive than the small one.
    """
    if large[1] <= small[1] or large[0] <= small[0]:
        return "n/a"
    if cost_usd <= small[1] * (1 + _SAME):
        return "dominates" if quality >= small[0] else "n/a"
    slope = (large[0] - small[0]) / (large[1] - small[1])
    return 100 * ((quality - small[0]) / (cost_usd - small[1]) - slope) / slope


def escalation(
    quality: Floats, first: NDArray[np.intp], last: NDArray[np.intp]
) -> dict[str, float]:
    """Return how often a cascade escalates to another LLM, and how often its choice is wrong.

    Args:
        quality: Measured scores (n, m).
        first: Column of the LLM called first, (n,), -1 for none.
        last: Column of the LLM whose answer is returned, (n,), -1 for none.

    Returns:
        ``escalated``: share of queries whose answer is not the first LLM's. ``kept_wrong``: share
        of the other queries whose answer does not solve them (a score below `SOLVED`).
        ``left_right``: share of the escalated queries that the first answer solves. Shares are
        over measured answers; NaN if there are none.
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


@dataclass(frozen=True)
class Ties:
    """Shares of questions on which LLMs have equal scores.

    Attributes:
        questions: Number of questions with at least two measured scores; the shares are of
            these, NaN if there are none.
        several_best: Share on which at least two LLMs have the best score.
        all_equal: Share on which all measured scores are equal.
        none_scores: Share on which every measured score is 0.
    """

    questions: int
    several_best: float
    all_equal: float
    none_scores: float


def ties(quality: Floats) -> Ties:
    """Count ties in measured scores (n_queries, n_llms), NaN where not measured."""
    measured = ~np.isnan(quality)
    rows = quality[measured.sum(axis=1) >= 2]
    if not len(rows):
        return Ties(0, np.nan, np.nan, np.nan)
    best, worst = np.nanmax(rows, axis=1), np.nanmin(rows, axis=1)
    return Ties(
        questions=len(rows),
        several_best=float(((rows == best[:, None]).sum(axis=1) >= 2).mean()),
        all_equal=float((best == worst).mean()),
        none_scores=float((best == 0).mean()),
    )


@dataclass(frozen=True)
class Headroom:
    """The best single LLM compared with the best LLM for each question.

    Attributes:
        best: Column of the LLM with the highest mean score, in hindsight.
        questions: Number of questions that this LLM was measured on; the means are over these.
        best_mean: Its mean score.
        oracle_mean: Mean of the highest measured score of each question.
    """

    best: int
    questions: int
    best_mean: float
    oracle_mean: float

    @property
    def headroom(self) -> float:
        """Upper bound of the gain of routing over the best single LLM."""
        return self.oracle_mean - self.best_mean


def headroom(quality: Floats) -> Headroom | None:
    """Compare the best single LLM with the oracle; None if no score was measured."""
    means = column_mean(quality)
    if np.isnan(means).all():
        return None
    best = int(np.nanargmax(means))
    rows = quality[~np.isnan(quality[:, best])]
    oracle = float(np.nanmax(rows, axis=1).mean())
    return Headroom(best, len(rows), float(means[best]), oracle)
