"""What routing could win: how often LLMs tie, the best single LLM, the oracle."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from waypost.contracts.cost import column_mean
from waypost.contracts.types import Floats


@dataclass(frozen=True)
class Ties:
    """How often a question does not tell LLMs apart.

    Attributes:
        questions: Those with at least two measured scores; the shares are of these, and NaN
            where there are none.
        several_best: Share where two LLMs or more have the best score.
        all_equal: Share where all measured scores are equal.
        none_scores: Share where every measured score is 0.
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
    """The best single LLM beside the choice of the best LLM for each question.

    Attributes:
        best: Column of the LLM with the highest mean score, in hindsight.
        questions: Those that this LLM was measured on; the means are over these.
        best_mean: Its mean score.
        oracle_mean: Mean of the highest measured score of each question.
    """

    best: int
    questions: int
    best_mean: float
    oracle_mean: float

    @property
    def headroom(self) -> float:
        """What choosing could win at most."""
        return self.oracle_mean - self.best_mean


def headroom(quality: Floats) -> Headroom | None:
    """Compare the best single LLM with the oracle; None where nothing was measured."""
    means = column_mean(quality)
    if np.isnan(means).all():
        return None
    best = int(np.nanargmax(means))
    rows = quality[~np.isnan(quality[:, best])]
    oracle = float(np.nanmax(rows, axis=1).mean())
    return Headroom(best, len(rows), float(means[best]), oracle)
