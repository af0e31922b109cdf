"""Exact tests for paired right-or-wrong outcomes."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray


def is_binary(*vectors: NDArray[np.float64]) -> bool:
    """Say whether every measured score is 0 or 1."""
    return all(bool(np.isin(v[~np.isnan(v)], (0.0, 1.0)).all()) for v in vectors)


def mcnemar(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """Two-sided exact p of McNemar's test for scores of 0 and 1; rows with a NaN are left out."""
    wins, losses = int((a > b).sum()), int((a < b).sum())
    n, low = wins + losses, min(wins, losses)
    logs = [
        math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1) for k in range(low + 1)
    ]
    tail = math.fsum(math.exp(value - n * math.log(2)) for value in logs)
    return min(1.0, 2 * tail)


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Correct p values of several comparisons (Holm's step-down); the keys stay."""
    ordered = sorted(p_values, key=lambda name: (p_values[name], name))
    corrected, highest = {}, 0.0
    for place, name in enumerate(ordered):
        highest = max(highest, min(1.0, (len(ordered) - place) * p_values[name]))
        corrected[name] = highest
    return {name: corrected[name] for name in p_values}
