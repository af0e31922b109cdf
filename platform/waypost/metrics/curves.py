"""Cost-quality curves: the hull that mixing reaches, the area below it, matched numbers.

Hulls take many curves at once (the draws of a bootstrap), one per row: ``cost`` and ``quality``
have shape (n_curves, n_points), the points in any order; points with a NaN are ignored.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from waypost.contracts.types import Floats


@dataclass(frozen=True, eq=False)
class Hull:
    """Non-decreasing upper convex hulls (NDCH), one per row.

    Routing a share of the traffic with one setting and the rest with another reaches every point
    between the two, so the hull of the settings is reachable (RouterBench, arXiv 2403.12031).

    Attributes:
        cost: Corners by rising cost, shape (n_curves, n_corners), padded with the last corner.
        quality: Quality of the corners, rising, same shape.
    """

    cost: Floats
    quality: Floats

    def at(self, cost: ArrayLike) -> Floats:
        """Return the best quality at a mean cost, (n_curves,); NaN below the cheapest corner."""
        x = np.broadcast_to(np.asarray(cost, np.float64), (len(self.cost),))
        right = (self.cost <= x[:, None]).sum(axis=1)
        last = self.cost.shape[1] - 1
        rows, i, j = np.arange(len(x)), np.clip(right - 1, 0, last), np.clip(right, 0, last)
        x0, x1 = self.cost[rows, i], self.cost[rows, j]
        y0, y1 = self.quality[rows, i], self.quality[rows, j]
        share = np.divide(x - x0, x1 - x0, out=np.zeros(len(x)), where=x1 > x0)
        found: Floats = np.where(right > 0, y0 + share * (y1 - y0), np.nan)
        return found

    def area(self, low: ArrayLike, high: ArrayLike, *, log: bool = False) -> Floats:
        """Return the mean height between two costs, shape (n_curves,).

        The hull is flat to the right of its last corner. With ``log`` the mean is over log cost.
        NaN if the interval is empty, or begins below the first corner or (with ``log``) at 0.
        """
        n = len(self.cost)
        a = np.broadcast_to(np.asarray(low, np.float64), (n,))[:, None]
        b = np.broadcast_to(np.asarray(high, np.float64), (n,))[:, None]
        x = np.concatenate([self.cost, np.maximum(self.cost[:, -1:], b)], axis=1)
        y = np.concatenate([self.quality, self.quality[:, -1:]], axis=1)
        x0, x1, y0 = x[:, :-1], x[:, 1:], y[:, :-1]
        slope = np.divide(y[:, 1:] - y0, x1 - x0, out=np.zeros_like(x0), where=x1 > x0)
        left, right = np.clip(x0, a, b), np.clip(x1, a, b)
        with np.errstate(divide="ignore", invalid="ignore"):
            if log:
                part = (y0 - slope * x0) * np.log(right / left) + slope * (right - left)
                width = np.log(b / a)
            else:
                part = (right - left) * (y0 + slope * ((left + right) / 2 - x0))
                width = b - a
            mean = (np.where(right > left, part, 0.0).sum(axis=1, keepdims=True) / width)[:, 0]
        fine = (b > a) & (a >= self.cost[:, :1]) & (~np.asarray(log) | (a > 0))
        return np.where(fine[:, 0], mean, np.nan)


def hull(cost: ArrayLike, quality: ArrayLike) -> Hull:
    """Return the NDCH of each row's points; rows without a valid point are all NaN."""
    x = np.atleast_2d(np.asarray(cost, np.float64))
    y = np.atleast_2d(np.asarray(quality, np.float64))
    none = np.isnan(x) | np.isnan(y)
    x, y = np.where(none, np.inf, x), np.where(none, -np.inf, y)
    order = np.lexsort((-y, x), axis=-1)
    x, y = np.take_along_axis(x, order, axis=1), np.take_along_axis(y, order, axis=1)
    n, m = x.shape
    rows, size = np.arange(n), np.zeros(n, np.intp)
    corner_x, corner_y = np.full((n, m), np.nan), np.full((n, m), np.nan)
    highest = np.full(n, -np.inf)
    for k in range(m):
        px, py = x[:, k], y[:, k]
        rises = py > highest
        highest = np.maximum(highest, py)
        while True:  # remove corners that lie on or below the line to the new one
            i, j = np.maximum(size - 2, 0), np.maximum(size - 1, 0)
            x0, y0, x1, y1 = (
                corner_x[rows, i],
                corner_y[rows, i],
                corner_x[rows, j],
                corner_y[rows, j],
            )
            with np.errstate(invalid="ignore"):  # from ignored points, which never rise
                back = rises & (size >= 2) & ((y1 - y0) * (px - x0) <= (py - y0) * (x1 - x0))
            if not back.any():
                break
            size = size - back
        corner_x[rows[rises], size[rises]] = px[rises]
        corner_y[rows[rises], size[rises]] = py[rises]
        size = size + rises
    width = int(size.max(initial=1)) or 1
    place = np.minimum(np.arange(width), np.maximum(size - 1, 0)[:, None])
    return Hull(
        np.take_along_axis(corner_x, place, axis=1), np.take_along_axis(corner_y, place, axis=1)
    )


@dataclass(frozen=True, eq=False)
class Singles:
    """The single LLMs of a comparison: mean cost and quality, shape (n_curves, n_llms).

    They define the interval of AIQ, from the cheapest to the most expensive LLM. Every hull starts
    at the cheapest LLM.
    """

    cost: Floats
    quality: Floats

    def aiq(self, cost: ArrayLike, quality: ArrayLike, *, log: bool = False) -> Floats:
        """Return the average quality over the interval (AIQ), (n_curves,); NaN without costs.

        AIQ = 1 / (high - low) * integral of the NDCH from low to high.

        Example:
            Two LLMs, at 1 USD with quality .5 and at 3 USD with .9, and a router's two settings:

            >>> singles = Singles(cost=np.array([[1.0, 3.0]]), quality=np.array([[0.5, 0.9]]))
            >>> singles.aiq(cost=[2.0, 3.0], quality=[0.8, 0.9]).round(4).tolist()
            [0.75]
        """
        known = ~np.isnan(self.cost) & ~np.isnan(self.quality)
        if not known.any(axis=1).all():
            return np.full(len(self.cost), np.nan)
        dollars = np.where(known, self.cost, np.inf)
        rows, first = np.arange(len(dollars)), _cheapest(dollars, self.quality)
        low = dollars[rows, first]
        high = np.where(known, self.cost, -np.inf).max(axis=1)
        x = np.column_stack([np.atleast_2d(cost), low])
        y = np.column_stack([np.atleast_2d(quality), self.quality[rows, first]])
        return hull(x, y).area(low, high, log=log)

    def hull(self) -> Hull:
        """Return the zero router: the best mix of two single LLMs at each cost."""
        return hull(self.cost, self.quality)


def _cheapest(cost: Floats, quality: Floats) -> NDArray[np.intp]:
    return np.lexsort((-np.nan_to_num(quality, nan=-1.0), cost), axis=-1)[:, 0]


def cheapest_reaching(cost: ArrayLike, quality: ArrayLike, target: float) -> float:
    """Return the lowest cost of a setting of at least this quality; NaN if none reaches it."""
    c, q = np.asarray(cost, np.float64), np.asarray(quality, np.float64)
    reached = c[(q >= target - 1e-12) & ~np.isnan(c)]
    return float(reached.min()) if len(reached) else np.nan


def best_within(cost: ArrayLike, quality: ArrayLike, limit: float) -> float:
    """Return the best quality of a setting that costs at most ``limit``; NaN if none does."""
    c, q = np.asarray(cost, np.float64), np.asarray(quality, np.float64)
    within = q[(c <= limit * (1 + 1e-9)) & ~np.isnan(q)]
    return float(within.max()) if len(within) else np.nan


ARENA_USD_PER_1K = (0.0044, 200.0)
ARENA_BETA = 0.1


def hypervolume(cost: ArrayLike, quality: ArrayLike, most: float, least: float) -> float:
    """Return the share of a box that the settings dominate, from 0 to 1 (Zitzler, Thiele, 1999).

    The box is cost 0 to ``most`` and quality ``least`` to 1. A setting dominates the points that
    cost no less and are no better. Settings are not mixed.

    Args:
        cost: Mean cost of each setting, (n,).
        quality: Mean score of each setting, (n,); points with a NaN are ignored.
        most: Cost of the reference point, such as the most expensive single LLM's.
        least: Quality of the reference point, such as that of a random choice.

    Returns:
        The share; NaN if no setting has a cost, or the box is empty.
    """
    c, q = np.asarray(cost, np.float64), np.asarray(quality, np.float64)
    known = ~np.isnan(c) & ~np.isnan(q)
    if not known.any() or not most > 0 or not least < 1:
        return np.nan
    order = np.argsort(c[known], kind="stable")
    x = np.minimum(c[known][order], most)
    height = np.maximum(np.maximum.accumulate(q[known][order]) - least, 0.0)
    return float((np.diff(x, append=most) * height).sum() / (most * (1 - least)))


def arena_score(quality: float, usd_per_1k: float) -> float:
    """Return RouterArena's score (arXiv 2510.00202) of a mean score and cost, from 0 to 1.

    (1 + b) * A * C / (b * A + C) with b = .1, A the quality and C = log(200 / cost) / log(200 /
    0.0044): 1 at 0.0044 USD per 1,000 queries, 0 at 200 USD. Costs outside this range are clipped.
    NaN if the cost is unknown or 0.
    """
    low, high = ARENA_USD_PER_1K
    if not usd_per_1k > 0 or math.isnan(quality):
        return np.nan
    cheap = math.log(high / min(max(usd_per_1k, low), high)) / math.log(high / low)
    if quality <= 0 or cheap <= 0:
        return 0.0
    return (1 + ARENA_BETA) * quality * cheap / (ARENA_BETA * quality + cheap)
