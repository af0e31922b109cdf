"""Strengths of LLMs from battles two by two (Bradley and Terry, 1952)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from waypost.contracts.types import Floats

PRIOR_SIGMA = 2 * np.log(10)
"""Standard deviation of the Gaussian prior on strengths: 800 points of an Elo rating."""

_TIE = 1e-6
_STEPS = 12
NEAR = 6
"""Steps that are enough where the start is near; four leave an error of 1e-7."""

_LONGEST = 2.0


def wins(scores: NDArray[np.floating]) -> NDArray[np.float32]:
    """Return who beat whom on each question, (..., n_llms, n_llms).

    1 where the row's LLM scored more than the column's, 0.5 each way where they scored alike, 0
    where it scored less or one was not measured.

    Args:
        scores: (..., n_llms), NaN where not measured.
    """
    ahead = scores[..., :, None] - scores[..., None, :]
    won = (ahead > _TIE).astype(np.float32)
    won += np.float32(0.5) * (np.abs(ahead) <= _TIE)
    won[..., np.arange(scores.shape[-1]), np.arange(scores.shape[-1])] = 0
    return won


def fit_strengths(won: Floats, start: Floats, steps: int = _STEPS) -> Floats:
    """Find the strengths of highest posterior density: P(i beats j) = sigmoid(t_i - t_j).

    The prior is Gaussian around 0 (`PRIOR_SIGMA`), so that an LLM without a win or without a
    loss has a finite strength. Newton's method, a fixed number of steps for all, so that a
    result does not depend on its company.

    Args:
        won: (..., n_llms, n_llms) weight of the battles that the row's LLM won.
        start: (n_llms,) or (..., n_llms) where to start.
        steps: Of Newton's method.

    Returns:
        (..., n_llms).
    """
    fought = won + np.swapaxes(won, -1, -2)
    strength = np.broadcast_to(start, won.shape[:-1]).astype(np.float64)
    diagonal = np.arange(won.shape[-1])
    for _ in range(steps):
        p = win_chance(strength)
        gradient = (won - fought * p).sum(axis=-1) - strength / PRIOR_SIGMA**2
        curvature = -fought * p * (1 - p)
        curvature[..., diagonal, diagonal] = -curvature.sum(axis=-1) + PRIOR_SIGMA**-2
        step = np.linalg.solve(curvature, gradient[..., None])[..., 0]
        longest = np.abs(step).max(axis=-1, keepdims=True)
        strength = strength + step * np.minimum(1.0, _LONGEST / np.maximum(longest, _LONGEST))
    return strength


def win_chance(strength: Floats) -> Floats:
    """Return the chance that the row's LLM beats the column's, (..., n_llms, n_llms)."""
    lead = strength[..., :, None] - strength[..., None, :]
    # its own battles have no weight and no curvature: the diagonal of fought is 0
    return np.asarray(1.0 / (1.0 + np.exp(-np.clip(lead, -30, 30))))


def beats_average(strength: Floats) -> Floats:
    """Return each LLM's mean chance to beat the others, (..., n_llms); 0.5 where it is alone."""
    others = strength.shape[-1] - 1
    if others == 0:
        return np.full(strength.shape, 0.5)
    return np.asarray((win_chance(strength).sum(axis=-1) - 0.5) / others)
