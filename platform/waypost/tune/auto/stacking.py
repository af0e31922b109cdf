"""Combine the predictions of several routers into one (stacked regression; Breiman, 1996).

A prediction has two parts with separate weights: how hard the question is (the mean over the LLMs)
and which LLM is better at it (the contrasts). One part may be easier to predict than the other. All
weights are fitted on out-of-sample predictions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from waypost.contracts.types import Floats

PRIOR_QUESTIONS = 1000.0
"""Weight of the prior of equal weights, in questions."""

MOST_MEMBERS = 5
"""Maximum members of a stack, all of which predict every request; the least useful are dropped."""

NEIGHBOURS = 200
"""Number of neighbouring training questions for a correction; at most an eighth of all."""

_SWEEPS = 500
_BLOCK = 256


@dataclass(frozen=True, eq=False)
class Stack:
    """Weights of the members, and the means that their predictions are centred on.

    Attributes:
        contrast: (n_members,) weights of the differences between LLMs, at least 0.
        level: (n_members,) weights of the questions' means, at least 0.
        mean: (n_llms,) training mean of each LLM.
    """

    contrast: Floats
    level: Floats
    mean: Floats

    def combine(self, predictions: Floats) -> Floats:
        """Return unclipped quality (n, n_llms) from predictions (n_members, n, n_llms)."""
        away = predictions - self.mean
        level = away.mean(axis=2, keepdims=True)
        # einsum takes a fifth of the time of tensordot for one question, the same for many
        both = np.einsum("k,knm->nm", self.contrast, away - level)
        return np.asarray(self.mean + both + np.einsum("k,knm->nm", self.level, level))

    @property
    def used(self) -> NDArray[np.bool_]:
        """Whether each member has any weight, (n_members,)."""
        return np.asarray((self.contrast > 0) | (self.level > 0))

    def only(self, members: NDArray[np.bool_]) -> Stack:
        """Return the stack of the selected members; the mask has shape (n_members,)."""
        return Stack(self.contrast[members], self.level[members], self.mean)

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Return the state as named arrays."""
        return {"contrast": self.contrast, "level": self.level, "mean": self.mean}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Stack:
        """Rebuild it from `to_arrays`."""
        return cls(arrays["contrast"], arrays["level"], arrays["mean"])


def fit_stack(predictions: Floats, quality: Floats, mean: Floats) -> Stack:
    """Fit non-negative weights by least squares on measured cells, shrunk towards equal weights.

    Args:
        predictions: (n_members, n, n_llms) out-of-sample predictions.
        quality: (n, n_llms) scores, NaN where not measured; every row has a score.
        mean: (n_llms,) training means.
    """
    contrast, level = _least_squares(predictions, quality, mean)
    kept = np.arange(len(predictions))
    while len(kept) > MOST_MEMBERS:
        losses = [contrast.only(np.delete(kept, place)).loss for place in range(len(kept))]
        kept = np.delete(kept, int(np.argmin(losses)))
    return _stack(
        kept, contrast.only(kept).weights, level.only(kept).weights, len(contrast.right), mean
    )


def fit_mean(predictions: Floats, quality: Floats, mean: Floats, kept: NDArray[np.intp]) -> Stack:
    """Fit one common weight for the members ``kept``; other arguments as in `fit_stack`."""
    contrast, level = (part.only(kept) for part in _least_squares(predictions, quality, mean))
    ones = np.ones(len(kept))
    return _stack(kept, contrast.even * ones, level.even * ones, len(predictions), mean)


def _stack(
    kept: NDArray[np.intp], contrast: Floats, level: Floats, members: int, mean: Floats
) -> Stack:
    weights = np.zeros((2, members))
    weights[0, kept], weights[1, kept] = contrast, level
    return Stack(weights[0], weights[1], mean)


def _least_squares(
    predictions: Floats, quality: Floats, mean: Floats
) -> tuple[_LeastSquares, _LeastSquares]:
    known = ~np.isnan(quality)
    counts = known.sum(axis=1, keepdims=True)

    def parts(values: Floats) -> tuple[Floats, Floats]:
        away = np.where(known, values - mean, 0.0)
        level = away.sum(axis=1, keepdims=True) / counts
        return np.where(known, away - level, 0.0), level

    contrast, level = parts(quality)
    found = [parts(one) for one in predictions]
    return (
        _LeastSquares.of([one for one, _ in found], contrast),
        _LeastSquares.of([one for _, one in found], level),
    )


@dataclass(frozen=True, eq=False)
class _LeastSquares:
    """Non-negative least squares with a prior of equal weights."""

    inner: Floats
    right: Floats
    square: float
    rows: int

    @classmethod
    def of(cls, columns: Sequence[Floats], target: Floats) -> _LeastSquares:
        flat = np.stack([column.ravel() for column in columns])
        return cls(flat @ flat.T, flat @ target.ravel(), float((target**2).sum()), len(target))

    def only(self, kept: NDArray[np.intp]) -> _LeastSquares:
        return _LeastSquares(
            self.inner[np.ix_(kept, kept)], self.right[kept], self.square, self.rows
        )

    @property
    def weights(self) -> Floats:
        members = len(self.right)
        energy = float(np.trace(self.inner)) / members
        strength = PRIOR_QUESTIONS / max(self.rows, 1) * energy
        inner = self.inner + (strength + 1e-9) * np.eye(members)
        return _coordinate_descent(inner, self.right + strength * self.even)

    @property
    def even(self) -> float:
        """The best common weight of all members, without shrinkage."""
        return max(float(self.right.sum()) / max(float(self.inner.sum()), 1e-12), 0.0)

    @property
    def loss(self) -> float:
        weights = self.weights
        return float(weights @ self.inner @ weights - 2 * self.right @ weights + self.square)


def _coordinate_descent(inner: Floats, right: Floats) -> Floats:
    weights = np.full(len(right), 1 / len(right))
    for _ in range(_SWEEPS):
        before = weights.copy()
        for k in range(len(right)):
            rest = right[k] - inner[k] @ weights + inner[k, k] * weights[k]
            weights[k] = max(rest / inner[k, k], 0.0)
        if np.abs(weights - before).max(initial=0.0) < 1e-9:
            break
    return weights


@dataclass(frozen=True, eq=False)
class Correction:
    """A correction by the mean error of the stack on neighbouring questions.

    Neighbours are questions with similar predictions of the members.

    Attributes:
        points: float32 (n, n_members * n_llms) contrasts of the members' predictions.
        errors: float32 (n, n_llms) contrasts of score less stacked prediction, NaN where not
            measured.
        k: Number of neighbours, and weight of a prior error of 0.
    """

    points: NDArray[np.float32]
    errors: NDArray[np.float32]
    k: int

    def of(self, predictions: Floats) -> Floats:
        """Return the correction of the stacked prediction, (n, n_llms).

        Args:
            predictions: (n_members, n, n_llms) predictions for questions outside ``points``.
        """
        asked = _points(predictions)
        found = np.zeros((len(asked), self.errors.shape[1]))
        size = (self.points**2).sum(axis=1)
        for start in range(0, len(asked), _BLOCK):
            part = asked[start : start + _BLOCK]
            away = size + (part**2).sum(axis=1)[:, None] - 2 * part @ self.points.T
            found[start : start + _BLOCK] = self._mean(np.maximum(away, 0.0))
        return found

    def _mean(self, away: NDArray[np.floating[Any]]) -> Floats:
        near = np.argpartition(away, self.k - 1, axis=1)[:, : self.k]
        distance = np.take_along_axis(away, near, axis=1)
        width = distance.mean(axis=1, keepdims=True) + 1e-9
        weight = np.exp(-distance / width)[:, :, None]
        errors = self.errors[near]
        known = ~np.isnan(errors)
        total = (weight * np.where(known, errors, 0.0)).sum(axis=1)
        mass = (weight * known).sum(axis=1) + self.k * weight.mean(axis=1)
        return np.asarray(total / mass)

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Return the state as named arrays."""
        return {"points": self.points, "errors": self.errors, "k": np.array([self.k])}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Correction:
        """Rebuild it from `to_arrays`."""
        return cls(arrays["points"], arrays["errors"], int(arrays["k"][0]))


def fit_correction(predictions: Floats, stacked: Floats, quality: Floats) -> Correction:
    """Build the correction from out-of-sample predictions; shapes as in `fit_stack`."""
    error = quality - stacked
    error = error - np.nanmean(error, axis=1, keepdims=True)
    k = max(1, min(NEIGHBOURS, len(quality) // 8))
    return Correction(_points(predictions), error.astype(np.float32), k)


def _points(predictions: Floats) -> NDArray[np.float32]:
    contrasts = predictions - predictions.mean(axis=2, keepdims=True)
    return np.concatenate(list(contrasts), axis=1).astype(np.float32)
