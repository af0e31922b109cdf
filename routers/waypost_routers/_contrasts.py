"""How well differences between LLMs are predicted: what a choice among them turns on.

How hard a question is for all of them is most of the variance of the scores and of no use here.
It is smoother than the score that the choices earned, so that fewer questions tell two settings
apart.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from waypost.contracts.types import Floats


def contrasts(values: Floats, known: NDArray[np.bool_]) -> Floats:
    """Subtract each row's mean over its known cells; 0 where not known.

    Args:
        values: (n, n_llms).
        known: (n, n_llms).
    """
    kept = np.where(known, values, 0.0)
    mean = kept.sum(axis=1, keepdims=True) / np.maximum(known.sum(axis=1, keepdims=True), 1)
    return np.where(known, kept - mean, 0.0)


def contrast_error(predicted: Floats, quality: Floats) -> float:
    """Return the mean squared error of the differences to each question's mean.

    Args:
        predicted: (n, n_llms), finite.
        quality: (n, n_llms) measured, NaN where not: those cells have no part.
    """
    known = ~np.isnan(quality)
    error = contrasts(predicted, known) - contrasts(quality, known)
    return float((error**2).sum() / max(known.sum(), 1))
