"""Logistic regression on soft targets with a Gaussian prior, by Newton's method."""

from __future__ import annotations

import numpy as np

from waypost.contracts.types import Floats

_STEPS = 60
_CLOSE = 1e-9
_FAR = 30.0


def sigmoid(values: Floats) -> Floats:
    """Return 1 / (1 + exp(-x)), without overflow."""
    # np.clip has more overhead, which matters for the few values of one request
    return np.asarray(1.0 / (1.0 + np.exp(-np.minimum(np.maximum(values, -_FAR), _FAR))))


def logit(values: Floats, margin: float = 1e-4) -> Floats:
    """Return log(p / (1 - p)) of values clipped to [margin, 1 - margin]."""
    inside = np.minimum(np.maximum(values, margin), 1 - margin)
    return np.asarray(np.log(inside) - np.log1p(-inside))


def fit_logistic(
    features: Floats,
    targets: Floats,
    prior: Floats,
    precision: Floats,
    weights: Floats | None = None,
) -> Floats:
    """Return the maximum a posteriori coefficients.

    Args:
        features: (n, d), with a constant column if there is an intercept.
        targets: (n,) in [0, 1].
        prior: (d,) prior means.
        precision: (d,) prior precisions, counted in rows: 0 is no prior.
        weights: (n,) weights of the rows; None is 1 each.

    Returns:
        (d,) coefficients.
    """
    beta = prior.astype(np.float64).copy()
    mass = np.ones(len(features)) if weights is None else weights
    for _ in range(_STEPS):
        p = sigmoid(features @ beta)
        gradient = features.T @ (mass * (targets - p)) - precision * (beta - prior)
        curvature = (features * (mass * p * (1 - p))[:, None]).T @ features
        curvature[np.diag_indices_from(curvature)] += precision + 1e-9
        step = np.linalg.solve(curvature, gradient)
        longest = float(np.abs(step).max(initial=0.0))
        beta += step * min(1.0, 4.0 / max(longest, 1e-12))
        if longest < _CLOSE:
            break
    return beta
