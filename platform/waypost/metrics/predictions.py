"""Metrics of predictions: calibration, ranking of LLMs, and selection of queries by coverage."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from waypost.contracts.types import Floats
from waypost.metrics.behaviour import SOLVED

BINS = 15

CLIP = 1e-6
"""Minimum distance of a prediction to 0 and 1 in `log_loss`."""


def brier(predicted: Floats, measured: Floats) -> float:
    """Return the mean squared difference over the cells known in both; NaN without any."""
    both = ~np.isnan(predicted) & ~np.isnan(measured)
    return float(((predicted - measured)[both] ** 2).mean()) if both.any() else np.nan


def log_loss(predicted: Floats, measured: Floats) -> float:
    """Return the mean cross entropy in nats over the cells known in both; NaN without any.

    -(s log p + (1 - s) log(1 - p)) for a measured score s in [0, 1], where a partial score counts
    as a partial success; p is clipped to [`CLIP`, 1 - `CLIP`].
    """
    both = ~np.isnan(predicted) & ~np.isnan(measured)
    if not both.any():
        return np.nan
    p, s = np.clip(predicted[both], CLIP, 1 - CLIP), measured[both]
    return float(-(s * np.log(p) + (1 - s) * np.log1p(-p)).mean())


def reliability(predicted: Floats, measured: Floats, bins: int = BINS) -> list[list[float]]:
    """Return ``[mean predicted, mean measured, cells]`` of bins of equal mass.

    The cells known in both are sorted by prediction and divided into ``bins`` parts of equal size
    (up to one cell). Equal predictions stay in one bin, so there may be fewer bins.
    """
    both = ~np.isnan(predicted) & ~np.isnan(measured)
    values, scores = predicted[both], measured[both]
    if not len(values):
        return []
    _, place = np.unique(values, return_inverse=True)
    mass = np.bincount(place)
    middle = np.cumsum(mass) - mass / 2  # the middle of a value's cells determines its bin
    bin_of = np.minimum((middle * bins / len(values)).astype(int), bins - 1)[place]
    counts = np.bincount(bin_of, minlength=bins)
    sums = [np.bincount(bin_of, weights=v, minlength=bins) for v in (values, scores)]
    return [
        [float(p / c), float(s / c), int(c)] for p, s, c in zip(*sums, counts, strict=True) if c
    ]


def calibration_error(bins: list[list[float]]) -> float:
    """Return the ECE: mean |predicted - measured| over bins, weighted by mass; NaN without bins."""
    total = sum(count for _, _, count in bins)
    return sum(abs(p - s) * c for p, s, c in bins) / total if total else np.nan


def merged(parts: list[list[list[float]]], bins: int = BINS) -> list[list[float]]:
    """Merge the bins of several runs into ``bins`` bins of about equal mass, by prediction."""
    rows = sorted(row for part in parts for row in part)
    if not rows:
        return []
    table = np.array(rows, np.float64)
    middle = np.cumsum(table[:, 2]) - table[:, 2] / 2
    place = np.minimum((middle * bins / table[:, 2].sum()).astype(int), bins - 1)
    found = []
    for one in np.unique(place):
        predicted, measured, count = table[place == one].T
        mass = count.sum()
        found.append([float(predicted @ count / mass), float(measured @ count / mass), int(mass)])
    return found


@dataclass(frozen=True, eq=False)
class Coverage:
    """Gains of queries in the order in which coverage includes them, without unknown gains.

    Attributes:
        rows: Row numbers of the queries, in order.
        gain: Gain of each query when included.
        starts: Start of each group of equal values in ``rows``.
    """

    rows: NDArray[np.intp]
    gain: Floats
    starts: NDArray[np.intp]

    @classmethod
    def of(cls, gain: Floats, value: Floats) -> Coverage:
        """Order queries by falling value; a query without a value (NaN) is last.

        Args:
            gain: Gain of each query when included, (n,), NaN where not measured.
            value: Value to order by, (n,).
        """
        known = np.flatnonzero(~np.isnan(gain))
        rank = np.where(np.isnan(value), -np.inf, value)[known]
        order = np.argsort(-rank, kind="stable")
        rank = rank[order]
        new = np.ones(len(rank), bool)
        new[1:] = rank[1:] != rank[:-1]
        rows = known[order]
        return cls(rows, gain[rows], np.flatnonzero(new))

    def means(self, weights: Floats | None = None) -> tuple[Floats, Floats]:
        """Return the mean gain over coverage 0 to 1, and the gain at coverage 1; both (k,).

        The first, the area below the curve, is half of the second for a random order, and more
        for a good one.

        Args:
            weights: Count of each of all queries in k draws, (k, n); None counts each once.
        """
        mass, gained = self._groups(weights)
        total = mass.sum(axis=1)
        # a query adds its gain from its place on the axis to 1; its place is its group's middle
        left = total[:, None] - np.cumsum(mass, axis=1) + mass / 2
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.einsum("ij,ij->i", gained, left) / total**2, gained.sum(axis=1) / total

    def curve(self) -> tuple[Floats, Floats]:
        """Return the corners: coverage from 0 to 1, and the mean gain over all queries at it."""
        mass, gained = self._groups(None)
        n = max(len(self.rows), 1)
        return np.r_[0.0, np.cumsum(mass[0]) / n], np.r_[0.0, np.cumsum(gained[0]) / n]

    def at(self, shares: ArrayLike) -> Floats:
        """Return the mean gain over all queries at these coverages."""
        return np.interp(np.asarray(shares, np.float64), *self.curve())

    def first_reaching(self, target: float) -> float:
        """Return the smallest coverage with at least this mean gain; NaN if there is none."""
        x, y = self.curve()
        reached = np.flatnonzero(y >= target - 1e-12)
        if not len(reached):
            return np.nan
        i = reached[0]
        if i == 0:
            return 0.0
        return float(x[i - 1] + (x[i] - x[i - 1]) * (target - y[i - 1]) / (y[i] - y[i - 1]))

    def _groups(self, weights: Floats | None) -> tuple[Floats, Floats]:
        """Return counts and sums of gains of the groups of equal values, (k, groups) each."""
        own = np.ones((1, len(self.rows))) if weights is None else np.take(weights, self.rows, 1)
        gained = own * self.gain
        if len(self.starts) == len(self.rows):
            return own, gained
        mass, sums = (np.add.reduceat(part, self.starts, axis=1) for part in (own, gained))
        return mass, sums


_BLOCK = 2_000_000
"""Maximum pairs of LLMs that are compared at once."""


def kendall_tau(predicted: Floats, measured: Floats) -> Floats:
    """Return Kendall's tau-b of each query's LLMs, (n,), from -1 (reversed order) to 1.

    (concordant - discordant) / sqrt(pairs that differ in prediction * pairs that differ in
    measurement); a pair of LLMs is concordant if predicted and measured scores order it alike
    (Kendall, Biometrika 33, 1945). If many measured scores are equal, as with right and wrong,
    the best order of unequal predictions has a tau below 1.

    Args:
        predicted: Predicted scores, (n, m).
        measured: Measured scores, (n, m).

    Returns:
        Tau-b; NaN if all measured scores are equal, 0 if only all predicted scores are.
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
    """Return the NDCG of each query's LLMs, shape (n,), from 0 to 1 (the best order).

    DCG = sum of measured score / log2(1 + place) over the LLMs by falling prediction, divided by
    that of the best order (Jarvelin and Kekalainen, 2002). LLMs of equal prediction have the
    mean discount of their places, the average over random orders among them (McSherry and
    Najork, 2008). A random order is far from 0; compare with a row that predicts training means.

    Args:
        predicted: Predicted scores, (n, m).
        measured: Measured scores, (n, m), at least 0.

    Returns:
        NDCG; NaN if no LLM scored above 0, or all measured scores are equal.
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
    """Return the area below the ROC curve of one LLM's predictions, (n,), of solved queries.

    It is the share of pairs of a solved and an unsolved query in which the solved one has the
    higher prediction; equal predictions count half. 0.5 is chance, 1 is perfect. A query is solved
    if its measured score is at least `SOLVED`. NaN if all queries or none are solved.
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
