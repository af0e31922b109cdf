"""Do predicted scores order as measured ones do: LLMs of a query, and queries of an LLM.

Cells that either side lacks (NaN) take no part. See routing_metrics.md, section 8, of the design.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from waypost.contracts.types import Floats
from waypost.metrics.behaviour import SOLVED

_BLOCK = 2_000_000
"""Pairs of LLMs that are compared at once."""


def kendall_tau(predicted: Floats, measured: Floats) -> Floats:
    """Kendall's tau-b of each query's LLMs, shape (n,), from -1 (reversed) over 0 to 1.

    With a pair of LLMs concordant if both sides order it alike, discordant if otherwise:
    (concordant - discordant) / sqrt(pairs that differ in prediction * pairs that differ in
    measurement) (Kendall, Biometrika 33, 1945). Where many measured scores are equal, as right and
    wrong are, the best order of unequal predictions has a tau below 1.

    Args:
        predicted: Shape (n, m).
        measured: Shape (n, m).

    Returns:
        NaN where measured scores tell no two LLMs apart; 0 where only predicted ones do not.
    """
    n, m = predicted.shape
    left, right = np.triu_indices(m, 1)
    found = np.full(n, np.nan)
    size = max(1, _BLOCK // max(len(left), 1))
    for start in range(0, n, size):
        rows = slice(start, start + size)
        both = ~np.isnan(predicted[rows]) & ~np.isnan(measured[rows])
        known = both[:, left] & both[:, right]
        x, y = (_signs(scores[rows], left, right) * known for scores in (predicted, measured))
        agreed = (x * y).sum(axis=1, dtype=np.int64)
        differ = np.count_nonzero(x, axis=1) * np.count_nonzero(y, axis=1)
        told = np.count_nonzero(y, axis=1) > 0
        tau = agreed / np.sqrt(np.maximum(differ, 1))
        found[rows] = np.where(told, tau, np.nan)
    return found


def _signs(scores: Floats, left: NDArray[np.intp], right: NDArray[np.intp]) -> NDArray[np.int8]:
    a, b = scores[:, left], scores[:, right]
    return (a > b).astype(np.int8) - (a < b).astype(np.int8)


def ndcg(predicted: Floats, measured: Floats) -> Floats:
    """NDCG of each query's LLMs, shape (n,), from 0 to 1 (the best order).

    DCG = sum of measured score / log2(1 + place) over the LLMs by falling prediction, divided by
    that of the best order (Jarvelin and Kekalainen, 2002). LLMs of equal prediction share the
    mean discount of their places: what a random order among them has on average (McSherry and
    Najork, 2008). A random order is far from 0; compare with a row that predicts training means.

    Args:
        predicted: Shape (n, m).
        measured: Shape (n, m), at least 0.

    Returns:
        NaN where no LLM scored above 0, or measured scores tell no two LLMs apart.
    """
    both = ~np.isnan(predicted) & ~np.isnan(measured)
    score = np.where(both, measured, 0.0)
    order = np.argsort(np.where(both, -predicted, np.inf), axis=1, kind="stable")
    place = np.arange(score.shape[1])
    discount = 1 / np.log2(place + 2)
    ranked = np.take_along_axis(np.where(both, predicted, -np.inf), order, axis=1)
    new = np.ones(score.shape, bool)
    new[:, 1:] = ranked[:, 1:] != ranked[:, :-1]
    first = np.maximum.accumulate(np.where(new, place, 0), axis=1)
    ends = np.ones(score.shape, bool)
    ends[:, :-1] = new[:, 1:]
    after = np.where(ends, place + 1, score.shape[1])
    last = np.minimum.accumulate(after[:, ::-1], axis=1)[:, ::-1]
    total = np.r_[0.0, np.cumsum(discount)]
    shared = (total[last] - total[first]) / (last - first)
    reached = (np.take_along_axis(score, order, axis=1) * shared).sum(axis=1)
    best = (-np.sort(-score, axis=1) * discount).sum(axis=1)
    lowest = np.where(both, measured, np.inf).min(axis=1)
    told = score.max(axis=1) > lowest
    return np.where(told, reached / np.where(told, best, 1.0), np.nan)


def auroc(predicted: Floats, measured: Floats) -> float:
    """Area below the ROC curve of one LLM's predictions, shape (n,), for "it solves the query".

    The share of pairs of a solved and an unsolved query in which the solved one has the higher
    prediction, equal ones counting half: .5 is chance, 1 is right. Solved is a measured score of
    at least `SOLVED`. NaN where all queries, or none, are solved.
    """
    both = ~np.isnan(predicted) & ~np.isnan(measured)
    solved = measured[both] >= SOLVED
    n, positive = len(solved), int(solved.sum())
    if positive in (0, n):
        return np.nan
    _, place, mass = np.unique(predicted[both], return_inverse=True, return_counts=True)
    rank = (np.cumsum(mass) - (mass - 1) / 2)[place]
    above = rank[solved].sum() - positive * (positive + 1) / 2
    return float(above / (positive * (n - positive)))
