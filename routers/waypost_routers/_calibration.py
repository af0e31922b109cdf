"""Calibration: maps from a router's raw scores to expected quality and to confidence.

Both are fitted on questions that the scores were not trained on, with few parameters. Each LLM's
level is taken from all training data: a level estimated on a fifth of the questions is off by more
than the LLMs differ.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from waypost.contracts.types import Floats
from waypost_routers._linear.logistic import fit_logistic, logit, sigmoid

Link = Literal["identity", "logit"]

PRIOR_CELLS = 200.0
"""Weight, in held-out cells, of the prior that the scores are already calibrated (slope 1)."""

OWN_PRECISION = 20.0
"""Precision, in questions, of the prior that an LLM's own slope is the common one."""

_HALVINGS = 50
_TIE = 1e-6


@dataclass(frozen=True, eq=False)
class Calibration:
    """A map from raw scores to quality in [0, 1].

    ``identity``: level_j + slope * (raw - centre_j), for scores in units of quality.
    ``logit`` (Platt, 1999): sigmoid(level_j + slope * (raw - centre_j)), for scores of any scale.

    Attributes:
        link: 0 for identity, 1 for logit.
        slope: (n_llms,), at least 0.
        centre: (n_llms,).
        level: (n_llms,).
    """

    link: int
    slope: Floats
    centre: Floats
    level: Floats

    def apply(self, raw: NDArray[np.floating[Any]]) -> Floats:
        """Return quality in [0, 1], (n, n_llms)."""
        inner = self.level + self.slope * (raw - self.centre)
        return sigmoid(inner) if self.link else np.minimum(np.maximum(inner, 0.0), 1.0)

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Return the state as named arrays."""
        return {
            "link": np.array([self.link]),
            "slope": self.slope,
            "centre": self.centre,
            "level": self.level,
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Calibration:
        """Rebuild the map from `to_arrays`."""
        return cls(int(arrays["link"][0]), arrays["slope"], arrays["centre"], arrays["level"])


def fit_slope(
    raw: Floats, quality: Floats, link: Link, weight: Floats | None = None, *, each: bool = False
) -> Floats:
    """Fit the slope of quality over raw scores on held-out questions.

    Args:
        raw: (n, n_llms) out-of-sample scores; no row if nothing was held out.
        quality: (n, n_llms), NaN where not measured.
        link: See `Calibration`.
        weight: (n,) weights of the rows; None is 1 each. The priors are counted in rows, so the
            rows of one question should sum to 1.
        each: With ``logit``: whether the scale of the scores differs between LLMs.

    Returns:
        (n_llms,), one slope for all LLMs: with separate slopes, learned on a fifth of the
        questions, routing favours the LLMs whose slope is overestimated. With ``identity`` the
        prior is 1. With ``each``, separate slopes, shrunk towards the common one.
    """
    known = ~np.isnan(quality)
    if not known.any():
        return np.ones(raw.shape[1])
    x = raw - _column_mean(raw, known)
    y = quality - _column_mean(quality, known)
    mass = np.ones(raw.shape) if weight is None else np.repeat(weight[:, None], raw.shape[1], 1)
    if link == "identity":
        xx = float((mass * x**2)[known].sum())
        prior = PRIOR_CELLS * xx / mass[known].sum()
        slope = (float((mass * x * y)[known].sum()) + prior) / max(xx + prior, 1e-12)
        return np.full(raw.shape[1], float(np.clip(slope, 0.0, 2.0)))
    levels = logit(np.nan_to_num(_column_mean(quality, known), nan=0.5), 0.01)
    offset = np.broadcast_to(levels, raw.shape)
    common = _platt(x[known], quality[known], offset[known], mass[known], None)
    if not each:
        return np.full(raw.shape[1], common)
    own = [
        _platt(x[k, j], quality[k, j], offset[k, j], mass[k, j], common) if k.any() else common
        for j, k in enumerate(known.T)
    ]
    return np.array(own)


def _platt(x: Floats, y: Floats, offset: Floats, mass: Floats, prior: float | None) -> float:
    # The offset is a feature whose weight is fixed at 1: levels are set later.
    scale = max(float(np.abs(x).mean()), 1e-9)
    features = np.column_stack([offset, x / scale])
    precision = np.array([1e9, 1e-3 if prior is None else OWN_PRECISION])
    beta = fit_logistic(features, y, np.array([1.0, (prior or 0.0) * scale]), precision, mass)
    return max(float(beta[1]) / scale, 0.0)


def calibrated(
    slope: Floats, raw: Floats, quality: Floats, mean: Floats, link: Link
) -> Calibration:
    """Return the map whose mean over the training questions is each LLM's training mean.

    Args:
        slope: From `fit_slope`.
        raw: (n, n_llms), the final scores of all training questions.
        quality: (n, n_llms), NaN where not measured; those cells are left out.
        mean: (n_llms,) training means.
        link: See `Calibration`.
    """
    known = ~np.isnan(quality)
    known |= ~known.any(axis=0)  # an LLM with no score in these rows has its mean over all rows
    centre = _column_mean(raw, known)
    if link == "identity":
        return Calibration(0, slope, centre, mean.copy())
    inner = slope * (raw - centre)
    low, high = np.full(raw.shape[1], -20.0), np.full(raw.shape[1], 20.0)
    counts = np.maximum(known.sum(axis=0), 1)
    for _ in range(_HALVINGS):
        level = (low + high) / 2
        over = (sigmoid(inner + level) * known).sum(axis=0) / counts > mean
        low, high = np.where(over, low, level), np.where(over, level, high)
    return Calibration(1, slope, centre, (low + high) / 2)


def _column_mean(values: Floats, known: NDArray[np.bool_]) -> Floats:
    sums = np.where(known, values, 0.0).sum(axis=0)
    return np.asarray(sums / np.maximum(known.sum(axis=0), 1))


@dataclass(frozen=True, eq=False)
class Sureness:
    """A map from predicted quality to the probability that an LLM is among the best.

    It is logistic in two numbers: the LLM's predicted lead over the best other LLM, and the logit
    of its predicted quality.

    Attributes:
        beta: (3,): constant, weight of the lead, weight of the quality's logit.
    """

    beta: Floats

    def apply(self, quality: Floats) -> Floats:
        """Return probabilities, (n, n_llms), for predicted quality (n, n_llms)."""
        lead = _lead(quality)
        return sigmoid(self.beta[0] + self.beta[1] * lead + self.beta[2] * logit(quality, 0.01))

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Return the state as named arrays."""
        return {"beta": self.beta}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Sureness:
        """Rebuild the map from `to_arrays`."""
        return cls(arrays["beta"])


def fit_sureness(predicted: Floats, quality: Floats) -> Sureness:
    """Fit the confidence map on held-out questions.

    Args:
        predicted: (n, n_llms) calibrated quality; with no row the result is the prior.
        quality: (n, n_llms), NaN where not measured.
    """
    known = ~np.isnan(quality)
    highest = np.where(known, quality, -np.inf).max(axis=1, initial=-np.inf, keepdims=True)
    best = (quality >= highest - _TIE)[known].astype(np.float64)
    features = np.column_stack(
        [np.ones(known.sum()), _lead(predicted)[known], logit(predicted, 0.01)[known]]
    )
    return Sureness(
        fit_logistic(features, best, np.array([0.0, 4.0, 0.0]), np.array([0.1, 0.1, 1]))
    )


def _lead(quality: Floats) -> Floats:
    """Return each LLM's predicted lead over the best other LLM, (n, n_llms)."""
    if quality.shape[1] == 1:
        return np.zeros(quality.shape)
    top = np.sort(quality, axis=1)[:, -2:]
    first = quality >= top[:, 1:]
    return np.asarray(quality - np.where(first, top[:, :1], top[:, 1:]))
