"""A reward model for off-policy evaluation: ridge regression on features of LLMs, cross-fitted."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from waypost.contracts.types import Floats

FOLDS = 5

PENALTY = 5.0
"""Penalty of a coefficient of standardised features, in rows."""


def cross_fitted(
    features: Floats,
    actions: NDArray[np.intp],
    rewards: Floats,
    clusters: NDArray[np.intp],
    *,
    folds: int = FOLDS,
    seed: int = 0,
) -> Floats:
    """Predict the reward of each LLM in each row, by a model that saw no row of its cluster.

    The model is ridge regression of the reward on a constant for each LLM and the features of the
    LLM in that row, each standardised; predictions stay within the range of the rewards.

    Args:
        features: (n, m, d), finite.
        actions: (n,), column of the logged LLM.
        rewards: (n,).
        clusters: (n,), number of the cluster of each row, from 0 without gaps.
        folds: Number of models, each fitted without one part of the clusters.
        seed: Seed of the parts.

    Returns:
        (n, m); NaN where there are fewer than two clusters.
    """
    n, m, d = features.shape
    count = int(clusters.max(initial=-1)) + 1
    found = np.full((n, m), np.nan)
    if count < 2:
        return found
    parts = min(folds, count)
    fold = (np.random.default_rng(seed).permutation(count) % parts)[clusters]
    rows = np.arange(n)
    design = np.zeros((n, m + d))
    design[rows, actions] = 1.0
    design[:, m:] = features[rows, actions]
    for part in range(parts):
        seen, held = fold != part, fold == part
        x, y = design[seen], rewards[seen]
        centre, scale = x.mean(axis=0), x.std(axis=0)
        scale = np.where(scale > 0, scale, 1.0)
        z = (x - centre) / scale
        slopes = np.linalg.solve(z.T @ z + PENALTY * np.eye(m + d), z.T @ (y - y.mean())) / scale
        base = y.mean() - centre @ slopes
        told = base + slopes[:m] + features[held] @ slopes[m:]
        found[held] = np.clip(told, y.min(), y.max())
    return found
