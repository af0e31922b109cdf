"""Numbers that references and routers alike have: quality, its intervals, what was used."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from waypost.contracts.types import Floats
from waypost.metrics.behaviour import usage_shares
from waypost.metrics.intervals import interval
from waypost.pipelines.evaluation.comparison import (
    CURVE_DRAWS,
    Ground,
    mean,
    mean_usd,
    with_known_mean,
)
from waypost.pipelines.evaluation.lambda_curve import Sweep

Numbers = dict[str, Any]
Draws = dict[str, Floats]

HEADLINE = (
    "quality", "quality_low", "quality_high", "delta_best_single", "delta_low", "delta_high",
)  # fmt: skip
INTERVALS = {
    "quality": ("quality_low", "quality_high"),
    "delta_best_single": ("delta_low", "delta_high"),
    "aiq": ("aiq_low", "aiq_high"),
    "delta_aiq": ("delta_aiq_low", "delta_aiq_high"),
    "kendall_tau": ("kendall_tau_low", "kendall_tau_high"),
    "selective_gain": ("selective_gain_low", "selective_gain_high"),
    "margin_gain": ("margin_gain_low", "margin_gain_high"),
    "apgr": ("apgr_low", "apgr_high"),
}
"""Number -> the two ends of its 95 % interval."""


@dataclass(frozen=True, eq=False)
class Card:
    """Numbers of one row of the report, as in report.json, NaN where they cannot be computed.

    Attributes:
        numbers: By key.
        draws: Bootstrap draws by the key of the number they belong to (``unseen.`` before those
            of the unseen queries); what intervals over seeds are made of.
        sweep: What they come from, for routers.
    """

    numbers: Numbers
    draws: Draws = field(default_factory=dict)
    sweep: Sweep | None = None


@dataclass(frozen=True, eq=False)
class Curve:
    """Means at each weight, shape (n_lambdas,): quality, dollars of a call, list price."""

    lambdas: tuple[float, ...]
    quality: Floats
    cost_usd: Floats
    price: Floats

    @classmethod
    def of(cls, ground: Ground, sweep: Sweep) -> Curve:
        """Average a sweep."""
        return cls(
            sweep.lambdas,
            np.array([mean(one.quality) for one in sweep.outcomes]),
            np.array([mean_usd(one.cost_usd) for one in sweep.outcomes]),
            np.array([list_price(ground, one.model) for one in sweep.outcomes]),
        )

    def points(self, values: Floats) -> list[list[float]]:
        """Return ``[lambda, quality, value]`` of each weight."""
        rows = zip(self.lambdas, self.quality, values, strict=True)
        return [[lam, float(q), float(v)] for lam, q, v in rows]


def headline(ground: Ground, quality: Floats, numbers: Numbers, draws: Draws) -> None:
    """Add `HEADLINE`, and the draws behind it, of scores earned (n,)."""
    difference = quality - ground.best_outcomes.quality
    drawn = ground.bootstrap.means(np.column_stack([quality, difference]))
    _add(numbers, draws, quality, difference, drawn)
    draws["quality"], draws["delta_best_single"] = drawn[:, 0], drawn[:, 1]


def unseen(ground: Ground, quality: Floats, numbers: Numbers, draws: Draws) -> Numbers:
    """Return `HEADLINE` of the queries without a near-duplicate in training."""
    rows = ground.unseen
    if rows.all():
        draws |= {f"unseen.{key}": draws[key] for key in ("quality", "delta_best_single")}
        return {key: numbers[key] for key in HEADLINE}
    if not rows.any():
        return dict.fromkeys(HEADLINE, np.nan)
    difference = quality - ground.best_outcomes.quality
    drawn = ground.unseen_bootstrap.means(np.column_stack([quality, difference])[rows])
    found: Numbers = {}
    _add(found, draws, quality[rows], difference[rows], drawn)
    draws["unseen.quality"], draws["unseen.delta_best_single"] = drawn[:, 0], drawn[:, 1]
    return found


def _add(
    numbers: Numbers, draws: Draws, quality: Floats, difference: Floats, drawn: Floats
) -> None:
    numbers["quality"] = mean(quality)
    numbers["quality_low"], numbers["quality_high"] = interval(drawn[:, 0])
    numbers["delta_best_single"] = mean(difference)
    numbers["delta_low"], numbers["delta_high"] = interval(drawn[:, 1])


def area(ground: Ground, sweep: Sweep, curve: Curve, draws: Draws) -> Numbers:
    """Return AIQ and what it has over mixing single LLMs, with intervals; adds their draws."""
    single = ground.singles
    aiq = float(single.aiq(curve.cost_usd, curve.quality)[0])
    found = {
        "aiq": aiq,
        "aiq_log": float(single.aiq(curve.cost_usd, curve.quality, log=True)[0]),
        "delta_aiq": aiq - float(single.aiq(single.cost, single.quality)[0]),
        **dict.fromkeys((*INTERVALS["aiq"], *INTERVALS["delta_aiq"]), np.nan),
    }
    if np.isnan(aiq):
        return found
    cost = with_known_mean(np.column_stack([one.cost_usd for one in sweep.outcomes]))
    quality = np.column_stack([one.quality for one in sweep.outcomes])
    drawn = ground.singles_drawn.aiq(
        ground.bootstrap.means(cost, CURVE_DRAWS), ground.bootstrap.means(quality, CURVE_DRAWS)
    )
    draws["aiq"], draws["delta_aiq"] = drawn, drawn - ground.zero_aiq_drawn
    for key in ("aiq", "delta_aiq"):
        found |= dict(zip(INTERVALS[key], interval(draws[key]), strict=True))
    return found


def task_rows(ground: Ground) -> dict[str, NDArray[np.intp]]:
    """Return the rows of each task, by name; rows without a task are one of their own."""
    names = np.array([name or "(no task)" for name in ground.test.task_names])
    return {str(task): np.flatnonzero(names == task) for task in np.unique(names)}


def by_task(ground: Ground, quality: Floats) -> dict[str, float]:
    """Mean of each task's measured scores."""
    return {task: mean(quality[rows]) for task, rows in task_rows(ground).items()}


def usage(ground: Ground, model: NDArray[np.intp]) -> dict[str, float]:
    """Share of the queries each LLM answers."""
    shares = usage_shares(model, len(ground.test.llms))
    return dict(zip(ground.test.names, map(float, shares), strict=True))


def list_price(ground: Ground, model: NDArray[np.intp]) -> float:
    """Mean blended list price of the chosen LLMs; NaN where one of them has none."""
    chosen = model[model >= 0]
    return float(ground.prices[chosen].mean()) if len(chosen) else np.nan


KEYS = ("delta_top", "delta_top_low", "delta_top_high")


def add_versus(routers: Mapping[str, dict[str, Any]], drawn: Mapping[str, Floats]) -> str | None:
    """Add `KEYS` to each router's numbers: its quality minus the highest, with its interval.

    Draws are of the same queries for all, so differences are paired. The highest was found on the
    evaluated split, so that a router whose interval holds 0 may well be the better one.

    Args:
        routers: Numbers with ``quality``, by name.
        drawn: Bootstrap draws of each one's quality.

    Returns:
        The name of the highest; None without routers.
    """
    known = {name: row["quality"] for name, row in routers.items() if not np.isnan(row["quality"])}
    top = max(known, key=lambda name: known[name], default=None)
    for name, row in routers.items():
        delta, ends = np.nan, (np.nan, np.nan)
        if top is not None and name in known:
            delta = row["quality"] - known[top]
            ends = interval(drawn[name] - drawn[top])
        row.update(zip(KEYS, (delta, *ends), strict=True))
    return top
