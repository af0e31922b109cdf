"""Bootstrap over queries: paired draws, percentile intervals, nested draws over seeds."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from waypost.contracts.types import Floats

LEVEL = 0.95
_BLOCK = 2_000_000
_KEEP_BYTES = 200_000_000


class Bootstrap:
    """Bootstrap draws of queries with replacement, shared by everything that is compared.

    All means of one draw are over the same queries, so differences between them are paired.

    Args:
        n: Number of queries, or groups of queries, to draw from.
        draws: Number of draws.
        seed: Seed of the draws.
        rows: Index below ``n`` of each row that means are taken over; None is all n in order.
            Rows with equal indices are drawn together. For splits of one pool, a query has the
            same weight in every split that contains it.
    """

    def __init__(
        self,
        n: int,
        draws: int = 10_000,
        seed: int = 0,
        rows: NDArray[np.intp] | None = None,
    ) -> None:
        self.n = n
        self.draws = draws
        self.seed = seed
        self.rows = rows
        self._kept: list[NDArray[np.uint8]] | None = None

    @classmethod
    def of_groups(
        cls,
        groups: NDArray[np.intp],
        draws: int = 10_000,
        seed: int = 0,
        rows: NDArray[np.intp] | slice = slice(None),
    ) -> Bootstrap:
        """Draw whole groups, because near-duplicates are not independent queries.

        Args:
            groups: Group of each query, numbered from 0 without gaps.
            draws: Number of draws.
            seed: Seed of the draws.
            rows: Row numbers of the queries that means are taken over.
        """
        return cls(int(groups.max(initial=-1)) + 1, draws, seed, groups[rows])

    def means(self, columns: ArrayLike, draws: int | None = None) -> Floats:
        """Return the mean of each column in each draw, over known values.

        Args:
            columns: Shape (n, k), or (rows, k), NaN where unknown.
            draws: Number of first draws to use; None is all.

        Returns:
            Shape (draws, k); NaN if a draw has no known value.
        """
        size = self.n if self.rows is None else len(self.rows)
        values = np.asarray(columns, np.float64).reshape(size, -1)
        count = self.draws if draws is None else min(draws, self.draws)
        known = ~np.isnan(values)
        partly = np.flatnonzero(~known.all(axis=0))
        filled = np.where(known, values, 0.0)
        found = np.empty((count, values.shape[1]))
        for start, weights in self._blocks(count):
            rows = slice(start, start + len(weights))
            total = np.repeat(weights.sum(axis=1, keepdims=True), values.shape[1], axis=1)
            if len(partly):
                total[:, partly] = weights @ known[:, partly].astype(np.float64)
            with np.errstate(invalid="ignore", divide="ignore"):
                found[rows] = np.where(total > 0, (weights @ filled) / total, np.nan)
        return found

    def statistic(self, of: Callable[[Floats], Floats], draws: int | None = None) -> Floats:
        """Return a statistic other than a mean in each draw, shape (draws,).

        Args:
            of: Function from the counts of each query in k draws, (k, rows), to the numbers, (k,).
            draws: Number of first draws to use; None is all.
        """
        count = self.draws if draws is None else min(draws, self.draws)
        return np.concatenate([of(weights) for _, weights in self._blocks(count)])

    def _blocks(self, count: int) -> Iterator[tuple[int, Floats]]:
        """Yield (first draw, counts of each query in each draw) block by block."""
        size = max(1, _BLOCK // max(self.n, 1))
        keep = self.draws * self.n <= _KEEP_BYTES
        if keep and self._kept is None:
            starts = range(0, self.draws, size)
            self._kept = [self._drawn(s, min(size, self.draws - s)) for s in starts]
        for place, start in enumerate(range(0, count, size)):
            wanted = min(size, count - start)
            # Whole blocks are drawn, so that the draws do not depend on their number.
            counts = (
                self._kept[place]
                if self._kept is not None
                else self._drawn(start, min(size, self.draws - start))
            )
            yield start, counts[:wanted].astype(np.float64)

    def _drawn(self, start: int, rows: int) -> NDArray[np.uint8]:
        draw = np.random.default_rng((self.seed, start))
        picks = draw.integers(0, self.n, (rows, self.n))
        picks += np.arange(rows)[:, None] * self.n
        counts = np.bincount(picks.ravel(), minlength=rows * self.n).reshape(rows, self.n)
        own = counts if self.rows is None else np.take(counts, self.rows, axis=1)
        return own.clip(max=255).astype(np.uint8)


def interval(draws: ArrayLike, level: float = LEVEL) -> tuple[float, float]:
    """Return the percentile interval of the draws; (NaN, NaN) if a draw is unknown."""
    values = np.asarray(draws, np.float64)
    if len(values) == 0 or np.isnan(values).any():
        return np.nan, np.nan
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def nested(per_seed: Sequence[ArrayLike], seed: int = 0) -> Floats:
    """Return draws of a mean over seeds, resampled over both seeds and queries.

    Each draw takes as many seeds as there are, with replacement, and averages their values in this
    draw of the queries. Test splits of one pool overlap. If each seed's draws are `Bootstrap` draws
    of the pool, a query in several splits does not count as several independent queries.

    Args:
        per_seed: Draws over queries of each seed, shape (draws,), all of equal length.
        seed: Seed of the draws of seeds.
    """
    table = np.stack([np.asarray(draws, np.float64) for draws in per_seed])
    n_seeds, n_draws = table.shape
    seeds = np.random.default_rng(seed).integers(0, n_seeds, (n_draws, n_seeds))
    means: Floats = table[seeds, np.arange(n_draws)[:, None]].mean(axis=1)
    return means


def is_binary(*vectors: NDArray[np.float64]) -> bool:
    """Return whether every measured score is 0 or 1."""
    return all(bool(np.isin(v[~np.isnan(v)], (0.0, 1.0)).all()) for v in vectors)


def mcnemar(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """Return the two-sided exact p of McNemar's test for scores 0 and 1, without rows with NaN."""
    wins, losses = int((a > b).sum()), int((a < b).sum())
    n, low = wins + losses, min(wins, losses)
    logs = [
        math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1) for k in range(low + 1)
    ]
    tail = math.fsum(math.exp(value - n * math.log(2)) for value in logs)
    return min(1.0, 2 * tail)


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Return p values corrected for several comparisons (Holm's step-down), by the same keys."""
    ordered = sorted(p_values, key=lambda name: (p_values[name], name))
    corrected, highest = {}, 0.0
    for place, name in enumerate(ordered):
        highest = max(highest, min(1.0, (len(ordered) - place) * p_values[name]))
        corrected[name] = highest
    return {name: corrected[name] for name in p_values}
