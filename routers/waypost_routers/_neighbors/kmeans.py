"""Spherical k-means (Dhillon and Modha, 2001), seeded by k-means++ (Arthur, Vassilvitskii, 2007).

The result depends on the set of distinct vectors, not on their order or duplicates.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from waypost.contracts.types import Floats32

MOST_ROWS = 20_000
"""Maximum number of distinct vectors used to fit centroids; of more, a seeded sample."""

_STEPS = 30


def distinct_rows(rows: Floats32, seed: int) -> Floats32:
    """Return the distinct rows in sorted order, or a seeded sample of `MOST_ROWS` of them."""
    distinct = np.unique(rows, axis=0)
    if len(distinct) <= MOST_ROWS:
        return distinct
    drawn = np.random.default_rng(seed).choice(len(distinct), MOST_ROWS, replace=False)
    return distinct[np.sort(drawn)]


def fit_centroids(distinct: Floats32, k: int, seed: int) -> Floats32:
    """Return the centroids of ``k`` clusters.

    Args:
        distinct: From `distinct_rows`.
        k: At least 1; capped at the number of rows.
        seed: Seed of the first centroids.

    Returns:
        float32 (k, d), unit rows; fewer than k if clusters are left empty.
    """
    centroids = _spread_out(distinct, min(k, len(distinct)), np.random.default_rng(seed))
    labels = np.full(len(distinct), -1, np.intp)
    for _ in range(_STEPS):
        before, labels = labels, nearest_centroid(distinct, centroids)
        if (labels == before).all():
            break
        size = np.bincount(labels, minlength=len(centroids))
        kept = np.flatnonzero(size)
        starts = np.cumsum(size[kept]) - size[kept]
        sums = np.add.reduceat(distinct[np.argsort(labels, kind="stable")], starts, axis=0)
        length = np.linalg.norm(sums, axis=1, keepdims=True)
        centroids = centroids[kept]
        np.divide(sums, length, out=centroids, where=length > 1e-6)
        labels = np.searchsorted(kept, labels)
    return centroids


def nearest_centroid(rows: Floats32, centroids: Floats32) -> NDArray[np.intp]:
    """Return the index of each row's most similar centroid, (n,)."""
    return np.asarray((rows @ centroids.T).argmax(axis=1))


def _spread_out(rows: Floats32, k: int, draw: np.random.Generator) -> Floats32:
    """Draw rows in turn, with probability proportional to the distance to the rows drawn before.

    Each turn draws a few rows and keeps the one with the least total distance (greedy k-means++).
    """
    chosen = [int(draw.integers(len(rows)))]
    distance = _distance(rows, rows[chosen])[:, 0]
    trials = 2 + int(np.log(k))
    while len(chosen) < k:
        reach = np.cumsum(distance, dtype=np.float64)
        if reach[-1] <= 0:
            break
        drawn = np.searchsorted(reach, draw.random(trials) * reach[-1], side="right")
        drawn = np.minimum(drawn, len(rows) - 1)
        left = np.minimum(distance[:, None], _distance(rows, rows[drawn]))
        left[drawn, np.arange(trials)] = 0.0
        best = int(left.sum(axis=0).argmin())
        chosen.append(int(drawn[best]))
        distance = left[:, best]
    return rows[chosen]


def _distance(rows: Floats32, others: Floats32) -> Floats32:
    return np.asarray(np.maximum(np.float32(1) - rows @ others.T, np.float32(0)))
