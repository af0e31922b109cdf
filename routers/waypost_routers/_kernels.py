"""The RBF kernel by landmarks (Nystroem; Williams and Seeger, 2000), exact where all rows are."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from waypost.contracts.types import Floats

_SMALLEST = 1e-7
"""Directions in which the landmarks vary less than this share of the most are left out."""


def rbf(rows: NDArray[Any], landmarks: NDArray[Any], gamma: float) -> Floats:
    """Return exp(-gamma * squared distance), (n_rows, n_landmarks)."""
    a, b = np.asarray(rows, np.float64), np.asarray(landmarks, np.float64)
    squared = (a * a).sum(axis=1)[:, None] + (b * b).sum(axis=1) - 2 * (a @ b.T)
    return np.asarray(np.exp(-gamma * np.maximum(squared, 0.0)))


def gamma_scale(rows: NDArray[Any]) -> float:
    """Return 1 over the total variance of the rows, what scikit-learn calls ``scale``."""
    variance = float(np.asarray(rows, np.float64).var(axis=0).sum())
    return 1.0 / variance if variance > 1e-12 else 1.0


def draw_landmarks(rows: NDArray[Any], most: int, seed: int) -> NDArray[Any]:
    """Return all rows, or ``most`` of them drawn by seed.

    Args:
        rows: Distinct and in an order of their own (`distinct`), which the draw then depends on.
        most: Number of landmarks, at most.
        seed: Of the draw.
    """
    if len(rows) <= most:
        return rows
    return rows[np.sort(np.random.default_rng(seed).permutation(len(rows))[:most])]


def whitening(landmarks: NDArray[Any], gamma: float) -> Floats:
    """Return a map (n_landmarks, p): dot products of ``rbf(rows) @ map`` are the kernel."""
    values, vectors = np.linalg.eigh(rbf(landmarks, landmarks, gamma))
    kept = values > _SMALLEST * values[-1]
    return np.asarray(vectors[:, kept] / np.sqrt(values[kept]))
