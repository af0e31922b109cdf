"""Are predicted scores what is earned: Brier score, log loss, calibration error, reliability."""

from __future__ import annotations

import numpy as np

from waypost.contracts.types import Floats

BINS = 15

CLIP = 1e-6
"""Nearest that a prediction comes to 0 or 1 in `log_loss`."""


def brier(predicted: Floats, measured: Floats) -> float:
    """Mean squared difference over the cells that both hold; NaN without any."""
    both = ~np.isnan(predicted) & ~np.isnan(measured)
    return float(((predicted - measured)[both] ** 2).mean()) if both.any() else np.nan


def log_loss(predicted: Floats, measured: Floats) -> float:
    """Mean cross entropy over the cells that both hold, at least 0, in nats; NaN without any.

    -(s log p + (1 - s) log(1 - p)) for a measured score s in [0, 1], a part of a point counting as
    part of a success; p is kept `CLIP` away from 0 and 1.
    """
    both = ~np.isnan(predicted) & ~np.isnan(measured)
    if not both.any():
        return np.nan
    p, s = np.clip(predicted[both], CLIP, 1 - CLIP), measured[both]
    return float(-(s * np.log(p) + (1 - s) * np.log1p(-p)).mean())


def reliability(predicted: Floats, measured: Floats, bins: int = BINS) -> list[list[float]]:
    """Return ``[mean predicted, mean measured, cells]`` of bins of equal mass.

    The cells that both hold are sorted by prediction and cut into ``bins`` parts of one size (to
    one cell); equal predictions stay in one bin, so there may be fewer bins.
    """
    both = ~np.isnan(predicted) & ~np.isnan(measured)
    values, scores = predicted[both], measured[both]
    if not len(values):
        return []
    _, place = np.unique(values, return_inverse=True)
    mass = np.bincount(place)
    middle = np.cumsum(mass) - mass / 2  # a value goes where the middle of its cells falls
    bin_of = np.minimum((middle * bins / len(values)).astype(int), bins - 1)[place]
    counts = np.bincount(bin_of, minlength=bins)
    sums = [np.bincount(bin_of, weights=v, minlength=bins) for v in (values, scores)]
    return [
        [float(p / c), float(s / c), int(c)] for p, s, c in zip(*sums, counts, strict=True) if c
    ]


def calibration_error(bins: list[list[float]]) -> float:
    """ECE: mean distance of predicted and measured over the bins, by mass; NaN without bins."""
    total = sum(count for _, _, count in bins)
    return sum(abs(p - s) * c for p, s, c in bins) / total if total else np.nan


def merged(parts: list[list[list[float]]], bins: int = BINS) -> list[list[float]]:
    """Put the bins of several runs into ``bins`` new ones, by prediction, of about equal mass."""
    rows = sorted(row for part in parts for row in part)
    if not rows:
        return []
    table = np.array(rows, np.float64)
    middle = np.cumsum(table[:, 2]) - table[:, 2] / 2
    place = np.minimum((middle * bins / table[:, 2].sum()).astype(int), bins - 1)
    found = []
    for one in np.unique(place):
        predicted, measured, count = table[place == one].T
        mass = count.sum()
        found.append([float(predicted @ count / mass), float(measured @ count / mass), int(mass)])
    return found
