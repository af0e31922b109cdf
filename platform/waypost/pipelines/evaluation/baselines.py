"""Reference policies of an evaluation: baselines and upper bounds of routing."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from waypost.contracts.cost import column_mean
from waypost.metrics.comparison import Comparison, Outcomes, Sweep, mean
from waypost.metrics.costs import costs_of
from waypost.metrics.measure import Measured, Subject, measure
from waypost.metrics.table import BY_KEY

POINT = ("quality", "delta_best_single", "cost_usd_per_1k", "list_price", "usage", "tasks")
"""Metrics of a reference with one setting."""

CURVE = (*POINT, "aiq", "aiq_log", "delta_aiq", "curve")
"""Metrics of a reference with one setting for each cost weight."""


def task_oracle(comparison: Comparison) -> Sweep:
    """Choose the LLM that is best in training on the query's true task.

    If training has no score of an LLM on a task, the LLM's mean over all tasks is used.
    """
    train, test = comparison.train, comparison.test
    place = [train.names.index(n) if n in train.names else -1 for n in test.names]
    usd = costs_of(train).usd
    tasks = np.array(train.task_names)
    quality = np.tile(comparison.mean_quality, (len(test), 1))
    cost = np.tile(comparison.mean_usd, (len(test), 1))
    for task in set(test.task_names):
        rows = np.array([name == task for name in test.task_names])
        for target, source in ((quality, train.quality), (cost, usd)):
            means = np.append(column_mean(source[tasks == task]), np.nan)[place]
            target[rows] = np.where(np.isnan(means), target[rows], means)
    return comparison.sweep_by(np.nan_to_num(quality), cost, ~np.isnan(quality))


def _of(comparison: Comparison, sweep: Sweep, keys: Sequence[str]) -> Measured:
    return measure(Subject(comparison, sweep), [BY_KEY[key] for key in keys])


def _point(comparison: Comparison, outcomes: Outcomes, keys: Sequence[str] = POINT) -> Measured:
    return _of(comparison, Sweep((0.0,), (outcomes,)), keys)


def random(comparison: Comparison) -> Measured:
    """Measure the expectation of a uniform draw among the measured LLMs of each query."""
    n = len(comparison.test)
    quality = np.array([mean(row) for row in comparison.test.quality])
    outcomes = Outcomes(quality, np.full(n, np.nan), np.full(n, -1))
    found = _point(comparison, outcomes, ("quality", "delta_best_single", "tasks"))
    found.numbers["cost_usd_per_1k"] = 1000 * float(np.mean(comparison.singles.cost[0]))
    found.numbers["list_price"] = float(np.mean(comparison.prices))
    return found


def zero_router(comparison: Comparison) -> Measured:
    """Measure the best random mix of two single LLMs, independent of the query.

    Its points are those of the evaluated split, so it is an upper bound of such a mix.
    """
    single = comparison.singles
    corners = single.hull()
    points = zip(corners.quality[0], corners.cost[0], strict=True)
    known = comparison.has_costs
    found = Measured(
        {
            "quality": float(corners.quality[0, -1] if known else np.nanmax(single.quality)),
            "cost_usd_per_1k": 1000 * float(corners.cost[0, -1]),
            "aiq_log": float(single.aiq(single.cost, single.quality, log=True)[0]),
            "hull": [[float(q), 1000 * float(c)] for q, c in dict.fromkeys(points)],
        }
    )
    aiq = float(single.aiq(single.cost, single.quality)[0])
    found.put(BY_KEY["aiq"], aiq, comparison.zero_aiq_drawn)
    return found


def all_of(comparison: Comparison) -> dict[str, Measured]:
    """Measure every reference policy; return them by their keys in report.json."""
    found = {"random": random(comparison)}
    for name, column in comparison.single_columns.items():
        found[name] = _point(comparison, comparison.always(column))
        found[name].numbers["model_name"] = comparison.test.names[column]
    if "cheapest" not in found:
        found["cheapest"] = Measured({"quality": np.nan, "cost_usd_per_1k": np.nan})
    found["zero_router"] = zero_router(comparison)
    found["task_oracle"] = _of(comparison, task_oracle(comparison), CURVE)
    found["oracle"] = _of(comparison, comparison.oracle, CURVE)
    return found
