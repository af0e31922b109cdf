"""Ridge regression of many columns at once, unmeasured cells left out.

The penalty is chosen by exact leave-one-out error (Allen's PRESS; Golub, Heath and Wahba, 1979),
for which no second fit is needed: with hat values h, the error of a row left out is
(y - fit) / (1 - h).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

PENALTIES = (1e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1.0, 3.0)
"""Tried penalties: a share of the mean squared length of the centred rows, times the rows."""

_MOST_LEVERAGE = 0.999


@dataclass(frozen=True, eq=False)
class Ridge:
    """A linear map from features to columns.

    Attributes:
        weights: (d, n_columns).
        intercept: (n_columns,).
        penalty: Of `PENALTIES` (or the one asked for), by column, (n_columns,).
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
            "weights": self.weights.astype(np.float32),
            "intercept": self.intercept,
            "penalty": self.penalty,
        }

    @classmethod
    def from_arrays(cls, arrays: dict[str, NDArray[Any]]) -> Ridge:
        """Rebuild it from `to_arrays`."""
        return cls(arrays["weights"], arrays["intercept"], arrays["penalty"])


def fit_ridge(
    features: NDArray[np.floating[Any]],
    targets: Floats,
    penalties: Sequence[float] = PENALTIES,
    *,
    same_penalty: bool = True,
) -> tuple[Ridge, Floats]:
    """Fit, the penalty chosen by leave-one-out error.

    Args:
        features: (n, d).
        targets: (n, n_columns), NaN where unknown; a column has at least one known value.
        penalties: To choose from. They do not depend on the number of rows or their length, so
            rows that stand twice change nothing but the leave-one-out error.
        same_penalty: One for all columns; else one for each.

    Returns:
        The map, and out-of-sample predictions (n, n_columns): leave-one-out where the cell was
        measured, the map's own elsewhere.
    """
    known = ~np.isnan(targets)
    groups: dict[bytes, list[int]] = {}
    for column in range(targets.shape[1]):
        groups.setdefault(known[:, column].tobytes(), []).append(column)
    rows = features.astype(np.float64)
    found = [_Solved(rows, targets, columns, known[:, columns[0]]) for columns in groups.values()]
    errors = np.stack([_errors(found, penalty, targets.shape) for penalty in penalties])
    best = errors.mean(axis=1).argmin() if same_penalty else errors.argmin(axis=0)
    chosen = np.broadcast_to(np.asarray(penalties, np.float64)[best], targets.shape[1:]).copy()
    weights = np.zeros((rows.shape[1], targets.shape[1]))
    intercept = np.zeros(targets.shape[1])
    for solved in found:
        for column in solved.columns:
            weights[:, column], intercept[column] = solved.map(column, chosen[column])
    ridge = Ridge(weights, intercept, chosen)
    outside = ridge.predict(rows)
    for solved in found:
        for column in solved.columns:
            outside[solved.rows, column] = solved.left_out(column, chosen[column])
    return ridge, outside


def _errors(found: list[_Solved], penalty: float, shape: tuple[int, ...]) -> Floats:
    errors = np.zeros(shape[1])
    for solved in found:
        for column in solved.columns:
            errors[column] = solved.error(column, penalty)
    return errors


class _Solved:
    """The eigenvectors of one set of measured rows, shared by the columns measured there."""

    def __init__(
        self, features: Floats, targets: Floats, columns: list[int], known: NDArray[np.bool_]
    ) -> None:
        self.columns = columns
        self.rows = np.flatnonzero(known)
        self._centre = features[self.rows].mean(axis=0)
        centred = features[self.rows] - self._centre
        values, vectors = np.linalg.eigh(centred.T @ centred)
        self._values, self._vectors = np.maximum(values, 0.0), vectors
        self._turned = centred @ vectors
        self._scale = max(float(self._values.sum()), 1e-12)
        self._targets = {column: targets[self.rows, column] for column in columns}

    def map(self, column: int, penalty: float) -> tuple[Floats, float]:
        """Return weights and intercept of one column."""
        target = self._targets[column]
        mean = float(target.mean())
        inner = self._turned.T @ (target - mean) / self._shrunk(penalty)
        weights = self._vectors @ inner
        return weights, mean - float(self._centre @ weights)

    def left_out(self, column: int, penalty: float) -> Floats:
        """Return each measured row's prediction by a fit without it, the penalty's same."""
        target = self._targets[column]
        if len(target) == 1:
            return target.copy()
        inner = self._turned.T @ (target - target.mean()) / self._shrunk(penalty)
        fit = self._turned @ inner + target.mean()
        hat = (self._turned**2 / self._shrunk(penalty)).sum(axis=1) + 1 / len(target)
        return np.asarray(target - (target - fit) / (1 - np.minimum(hat, _MOST_LEVERAGE)))

    def error(self, column: int, penalty: float) -> float:
        """Return the mean squared leave-one-out error."""
        return float(np.mean((self.left_out(column, penalty) - self._targets[column]) ** 2))

    def _shrunk(self, penalty: float) -> Floats:
        return np.asarray(self._values + penalty * self._scale / 10)
