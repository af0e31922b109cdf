"""Ridge regression of many columns at once, with unmeasured cells left out.

The penalty is chosen by cross-validation. All folds share one Gram matrix, from which each fold's
part is subtracted, so that n folds and all penalties cost little more than n fits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from waypost.contracts.routing_data import RoutingData
from waypost.contracts.splits import fold_of
from waypost.contracts.types import Floats

PENALTIES = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
"""Candidate penalties, in hundredths of the rows' total squared distance from their mean."""

_MOST_LEVERAGE = 0.999


@dataclass(frozen=True, eq=False)
class Ridge:
    """A linear map from features to columns.

    Attributes:
        weights: (d, n_columns).
        intercept: (n_columns,).
        penalty: (n_columns,), the chosen or given penalty of each column.
    """

    weights: Floats
    intercept: Floats
    penalty: Floats

    def predict(self, features: NDArray[np.floating[Any]]) -> Floats:
        """Return (n, n_columns) for features (n, d)."""
        return np.asarray(features @ self.weights + self.intercept)

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Return the state as named arrays."""
        return {
            "weights": self.weights,
            "intercept": self.intercept,
            "penalty": self.penalty,
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Ridge:
        """Rebuild the map from `to_arrays`."""
        return cls(arrays["weights"], arrays["intercept"], arrays["penalty"])


FOLDS = 8


def folds_of(data: RoutingData) -> NDArray[np.intp]:
    """Return each question's fold, (n,), independent of row order; near-duplicates share one."""
    return fold_of(data.queries, FOLDS, 0, data.groups)


def fit_ridge(
    features: NDArray[np.floating[Any]],
    targets: Floats,
    fold: NDArray[np.intp],
    penalties: Sequence[float] = PENALTIES,
    *,
    same_penalty: bool = True,
    contrasts: bool = False,
) -> tuple[Ridge, Floats]:
    """Fit the map, with the penalty chosen by cross-validation.

    Args:
        features: (n, d).
        targets: (n, n_columns), NaN where unknown; a column has at least one known value.
        fold: (n,) fold of each row; rows of the same question are in one fold.
        penalties: Candidates, relative to the total squared length of the centred rows, so that
            they depend neither on the number of rows nor on their length.
        same_penalty: Whether all columns share one penalty.
        contrasts: Choose penalties by the error of differences between a row's columns, not of
            their level: which LLM is better is a weaker signal than which question is harder, and
            needs a higher penalty.

    Returns:
        The map, and out-of-sample predictions (n, n_columns), each by a map fitted without the
        row's fold; if a fold holds all of a column's values, they are the column's mean.
    """
    known = ~np.isnan(targets)
    groups: dict[bytes, list[int]] = {}
    for column in range(targets.shape[1]):
        groups.setdefault(known[:, column].tobytes(), []).append(column)
    rows, back = _narrow(features.astype(np.float64))
    tried = np.asarray(penalties, np.float64)
    outside = np.empty((len(tried), *targets.shape))
    sums = {}
    for columns in groups.values():
        sums[columns[0]] = whole = _Sums.of(rows, targets[:, columns], known[:, columns[0]])
        for one in np.unique(fold):
            left_out = fold == one
            part = whole.without(rows, targets[:, columns], known[:, columns[0]] & left_out)
            of_fold = part.solve(tried).of(rows[left_out])
            place = np.ix_(np.arange(len(tried)), np.flatnonzero(left_out), np.array(columns))
            outside[place] = of_fold
    error = np.where(known, outside - np.where(known, targets, 0.0), 0.0)
    if contrasts:
        counts = np.maximum(known.sum(axis=1, keepdims=True), 1)
        error = np.where(known, error - error.sum(axis=2, keepdims=True) / counts, 0.0)
    squared = (error**2).sum(axis=1)
    best = squared.sum(axis=1).argmin() if same_penalty else squared.argmin(axis=0)
    best = np.broadcast_to(best, targets.shape[1:])
    weights = np.zeros((rows.shape[1], targets.shape[1]))
    intercept = np.zeros(targets.shape[1])
    for columns in groups.values():
        solved = sums[columns[0]].solve(tried)
        for i, column in enumerate(columns):
            weights[:, column] = solved.weights[best[column], :, i]
            intercept[column] = solved.intercept[best[column], i]
    chosen = np.take_along_axis(outside, best[None, None, :], axis=0)[0]
    return Ridge(weights if back is None else back @ weights, intercept, tried[best]), chosen


def _narrow(rows: Floats) -> tuple[Floats, Floats | None]:
    """Project wide rows (d > n) onto their span: the same fit in at most n columns.

    Returns:
        Rows (n, r), and the map (d, r) that restores weights; None if rows are not wide.
    """
    if len(rows) >= rows.shape[1]:
        return rows, None
    values, vectors = np.linalg.eigh(rows @ rows.T)
    kept = values > max(float(values[-1]), 1e-12) * 1e-12
    length = np.sqrt(values[kept])
    return vectors[:, kept] * length, rows.T @ (vectors[:, kept] / length)


@dataclass(frozen=True, eq=False)
class _Solved:
    weights: Floats  # (n_penalties, d, n_columns)
    intercept: Floats  # (n_penalties, n_columns)

    def of(self, rows: Floats) -> Floats:
        return np.asarray(rows @ self.weights + self.intercept[:, None, :])


@dataclass(frozen=True, eq=False)
class _Sums:
    """Sufficient statistics of a fit: sums over the measured rows of some columns."""

    count: int
    x: Floats  # (d,)
    y: Floats  # (n_columns,)
    xx: Floats  # (d, d)
    xy: Floats  # (d, n_columns)

    @classmethod
    def of(cls, rows: Floats, targets: Floats, measured: NDArray[np.bool_]) -> _Sums:
        x, y = rows[measured], targets[measured]
        return cls(len(x), x.sum(axis=0), y.sum(axis=0), x.T @ x, x.T @ y)

    def without(self, rows: Floats, targets: Floats, measured: NDArray[np.bool_]) -> _Sums:
        part = _Sums.of(rows, targets, measured)
        if part.count == self.count:  # no row is left: predict the mean
            return _Sums(self.count, 0 * self.x, self.y, 0 * self.xx, 0 * self.xy)
        return _Sums(
            self.count - part.count,
            self.x - part.x,
            self.y - part.y,
            self.xx - part.xx,
            self.xy - part.xy,
        )

    def solve(self, penalties: Floats) -> _Solved:
        mean_x, mean_y = self.x / self.count, self.y / self.count
        centred = self.xx - self.count * np.outer(mean_x, mean_x)
        values, vectors = np.linalg.eigh(centred)
        values = np.maximum(values, 0.0)
        turned = vectors.T @ (self.xy - self.count * np.outer(mean_x, mean_y))
        scale = max(float(values.sum()), 1e-9) / 100
        shrunk = turned / (values[:, None] + penalties[:, None, None] * scale)
        weights = vectors @ shrunk
        return _Solved(weights, mean_y - mean_x @ weights)
