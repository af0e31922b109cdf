"""Sending only some queries another way: what is gained over coverage, surest first.

Two questions of routing have this form. Selective routing: queries that the router is less sure
of fall back to a default (Geifman and El-Yaniv, 1705.08500). Two-model routing: queries that gain
most by the router's scores go to the strong LLM, the others to the weak one (RouteLLM, 2406.18665).
Queries of equal value enter together; between two values the curve is a straight line, which is
what a random order among equals has on average.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from waypost.contracts.types import Floats


@dataclass(frozen=True, eq=False)
class Coverage:
    """Gains of queries in the order in which they enter; only queries whose gain is known.

    Attributes:
        rows: Their numbers among all queries, the first to enter first.
        gain: What each gains by entering.
        starts: Where each group of equal value begins in ``rows``.
    """

    rows: NDArray[np.intp]
    gain: Floats
    starts: NDArray[np.intp]

    @classmethod
    def of(cls, gain: Floats, value: Floats) -> Coverage:
        """Order queries by falling value; one without a value (NaN) enters last.

        Args:
            gain: What each query gains by entering, (n,), NaN where not measured.
            value: What they are ordered by, (n,).
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
        """Return the mean gain over coverage 0 to 1, and that with every query entered; both (k,).

        The first, the area below the curve, is half of the second for a random order, and more
        for a good one.

        Args:
            weights: (k, n) how often each of all queries counts, one row a draw; None is once.
        """
        mass, gained = self._groups(weights)
        total = mass.sum(axis=1)
        # A query adds its gain on the part of the axis after it entered, in the middle of its group
        left = total[:, None] - np.cumsum(mass, axis=1) + mass / 2
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.einsum("ij,ij->i", gained, left) / total**2, gained.sum(axis=1) / total

    def curve(self) -> tuple[Floats, Floats]:
        """Return the corners: coverage from 0 to 1, and the mean gain of all queries there."""
        mass, gained = self._groups(None)
        n = max(len(self.rows), 1)
        return np.r_[0.0, np.cumsum(mass[0]) / n], np.r_[0.0, np.cumsum(gained[0]) / n]

    def first_reaching(self, target: float) -> float:
        """Return the smallest coverage with this mean gain or more; NaN where it never has."""
        x, y = self.curve()
        reached = np.flatnonzero(y >= target - 1e-12)
        if not len(reached):
            return np.nan
        i = reached[0]
        if i == 0:
            return 0.0
        return float(x[i - 1] + (x[i] - x[i - 1]) * (target - y[i - 1]) / (y[i] - y[i - 1]))

    def _groups(self, weights: Floats | None) -> tuple[Floats, Floats]:
        """Return how many queries each group of equals has, and their gains' sum, (k, groups)."""
        own = np.ones((1, len(self.rows))) if weights is None else np.take(weights, self.rows, 1)
        gained = own * self.gain
        if len(self.starts) == len(self.rows):
            return own, gained
        mass, sums = (np.add.reduceat(part, self.starts, axis=1) for part in (own, gained))
        return mass, sums


def at(coverage: Coverage, shares: ArrayLike) -> Floats:
    """Return the mean gain at these coverages."""
    return np.interp(np.asarray(shares, np.float64), *coverage.curve())
