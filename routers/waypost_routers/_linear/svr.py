"""Support vector regression by a landmark RBF kernel (Nystroem; Williams and Seeger, 2000)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from waypost.contracts.types import Floats

_SMALLEST = 1e-7
"""Eigenvalues of the kernel below this share of the largest are dropped."""


def rbf(rows: NDArray[Any], landmarks: NDArray[Any], gamma: float) -> Floats:
    """Return exp(-gamma * squared distance), (n_rows, n_landmarks)."""
    a, b = np.asarray(rows, np.float64), np.asarray(landmarks, np.float64)
    squared = (a * a).sum(axis=1)[:, None] + (b * b).sum(axis=1) - 2 * (a @ b.T)
    return np.asarray(np.exp(-gamma * np.maximum(squared, 0.0)))


def gamma_scale(rows: NDArray[Any]) -> float:
    """Return 1 / total variance of the rows, as scikit-learn's ``gamma="scale"``."""
    variance = float(np.asarray(rows, np.float64).var(axis=0).sum())
    return 1.0 / variance if variance > 1e-12 else 1.0


def draw_landmarks(rows: NDArray[Any], most: int, seed: int) -> NDArray[Any]:
    """Return all rows, or ``most`` of them drawn by seed.

    Args:
        rows: Distinct rows in canonical order (`distinct`): the draw depends on the order.
        most: Maximum number of landmarks.
        seed: Seed of the draw.
    """
    if len(rows) <= most:
        return rows
    return rows[np.sort(np.random.default_rng(seed).permutation(len(rows))[:most])]


def whitening(landmarks: NDArray[Any], gamma: float) -> Floats:
    """Return a map (n_landmarks, p); the dot products of ``rbf(rows) @ map`` are the kernel."""
    values, vectors = np.linalg.eigh(rbf(landmarks, landmarks, gamma))
    kept = values > _SMALLEST * values[-1]
    return np.asarray(vectors[:, kept] / np.sqrt(values[kept]))


_STEPS = 40
_CLOSE = 1e-7
_HALVINGS = 20


def fit_svr(
    features: Floats, targets: Floats, weights: Floats, c: float, epsilon: float
) -> tuple[Floats, Floats]:
    """Fit one regression per column.

    Args:
        features: (n, p).
        targets: (n, n_columns).
        weights: (n, n_columns), 0 leaves a cell out; each column sums to 1, so that ``c`` does not
            depend on the number of rows.
        c: Weight of the mean loss against the norm: scikit-learn's C times the number of rows.
        epsilon: Largest error without loss.

    Returns:
        Coefficients (p, n_columns) and intercepts (n_columns,).
    """
    rows = np.column_stack([features, np.ones(len(features))])
    solutions = np.empty((rows.shape[1], targets.shape[1]))
    for columns in same_weights(weights):
        weight = weights[:, columns[0]]
        used = weight > 0
        gram = (rows[used] * weight[used, None]).T @ rows[used]
        for j in columns:
            solutions[:, j] = _newton(rows[used], targets[used, j], weight[used], gram, c, epsilon)
    return solutions[:-1], solutions[-1]


def same_weights(weights: Floats) -> list[list[int]]:
    """Return groups of columns with equal weights, which can share matrices."""
    groups: dict[bytes, list[int]] = {}
    for column in range(weights.shape[1]):
        groups.setdefault(weights[:, column].tobytes(), []).append(column)
    return list(groups.values())


def _newton(
    rows: Floats, target: Floats, weight: Floats, gram: Floats, c: float, epsilon: float
) -> Floats:
    norm = np.ones(rows.shape[1])
    norm[-1] = 0.0  # no penalty on the intercept

    def objective(beta: Floats) -> float:
        outside = np.maximum(np.abs(rows @ beta - target) - epsilon, 0.0)
        return float(beta @ (norm * beta) / 2 + c * (weight @ outside**2))

    beta = np.zeros(rows.shape[1])
    beta[-1] = weight @ target
    value = objective(beta)
    for _ in range(_STEPS):
        error = rows @ beta - target
        inside = np.abs(error) <= epsilon
        loss = np.where(inside, 0.0, error - np.sign(error) * epsilon)
        gradient = norm * beta + 2 * c * (rows.T @ (weight * loss))
        still = rows[inside]
        curvature = 2 * c * (gram - (still * weight[inside, None]).T @ still)
        curvature[np.diag_indices_from(curvature)] += norm + 1e-9
        step = np.linalg.solve(curvature, gradient)
        for _ in range(_HALVINGS):
            new = objective(beta - step)
            if new <= value:
                break
            step = step / 2
        else:
            return beta
        beta, value = beta - step, new
        if float(np.abs(rows @ step).max()) < _CLOSE:
            break
    return beta


def held_out_errors(
    features: Floats,
    targets: Floats,
    weights: Floats,
    cs: Sequence[float],
    held_out: tuple[Floats, Floats],
) -> Floats:
    """Return the mean squared error on held-out questions for each of ``cs``, (n_cs,).

    It uses the solutions at epsilon 0, which one eigendecomposition gives for every C. Epsilon
    changes them little compared with C.

    Args:
        features: (n, p).
        targets: (n, n_columns).
        weights: (n, n_columns), as in `fit_svr`.
        cs: Values of C to compare.
        held_out: Features (n_held, p) and scores (n_held, n_columns), NaN where not measured.
    """
    held_features, held_scores = held_out
    known = ~np.isnan(held_scores)
    squares = np.zeros(len(cs))
    for columns in same_weights(weights):
        weight = weights[:, columns[0]]
        centre = weight @ features
        centred = (features - centre) * np.sqrt(weight)[:, None]
        values, vectors = np.linalg.eigh(centred.T @ centred)
        turned = (held_features - centre) @ vectors
        for j in columns:
            mean = weight @ targets[:, j]
            inner = vectors.T @ (centred.T @ (np.sqrt(weight) * (targets[:, j] - mean)))
            k = known[:, j]
            for at, c in enumerate(cs):
                found = turned[k] @ (inner / (np.maximum(values, 0.0) + 0.5 / c)) + mean
                squares[at] += float(((found - held_scores[k, j]) ** 2).sum())
    return squares / max(int(known.sum()), 1)
