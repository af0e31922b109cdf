"""Choose among candidate predictors by the outcomes of their routing decisions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from waypost.contracts import policy
from waypost.contracts.cost import column_mean
from waypost.contracts.routing_data import RoutingData
from waypost.contracts.types import Floats
from waypost.metrics.comparison import lambda_grid, look_up
from waypost.metrics.costs import costs_of
from waypost.metrics.operating_points import KEY, Curve, curve_of
from waypost.tune.auto.stacking import Stack

LAMBDAS = (0.0, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0)
"""Cost weights of the comparison; 0 has the same weight as all others together."""


@dataclass(frozen=True, eq=False)
class Candidate:
    """A candidate predictor with its out-of-sample predictions.

    Attributes:
        name: Name in the report.
        stack: Weights of all tried members.
        quality: (n, n_llms) predicted quality.
        cost_usd: (n, n_llms) predicted dollars, NaN where unknown.
        corrected: Whether `stacking.Correction` is part of it.
    """

    name: str
    stack: Stack
    quality: Floats
    cost_usd: Floats
    corrected: bool = False


def choose(
    candidates: Sequence[Candidate],
    data: RoutingData,
    mean_quality: Floats,
    cost_ref: float,
    fold: NDArray[np.intp],
) -> tuple[Candidate, dict[str, Any]]:
    """Choose the candidate whose decisions have the highest utility.

    Returns the first candidate within one standard error (paired, over questions) of the best,
    because the best of many noisy estimates is partly best by chance.

    Args:
        candidates: Candidates in the order of preference.
        data: The predicted questions.
        mean_quality: (n_llms,) training means.
        cost_ref: See `policy.rank`.
        fold: Fold of each question, (n,); for the report only.

    Returns:
        The chosen candidate, and a JSON-able report.
    """
    best_single = int(np.argmax(mean_quality))
    single = data.quality[:, best_single]
    utilities, qualities = [], []
    for candidate in candidates:
        utility, quality = earned(candidate, data, cost_ref)
        utilities.append(utility)
        qualities.append(quality)
    table = np.stack(utilities)
    means = np.nanmean(table, axis=1)
    best = int(np.argmax(means))
    behind = table[best] - table
    measured = np.maximum((~np.isnan(behind)).sum(axis=1), 1)
    error = np.nanstd(behind, axis=1) / np.sqrt(measured)
    close = np.flatnonzero(np.nanmean(behind, axis=1) <= error)
    taken = int(close[0]) if len(close) else best
    rows = []
    for candidate, utility, quality in zip(candidates, means, qualities, strict=True):
        gain = quality - single
        rows.append(
            {
                "candidate": candidate.name,
                "quality": _number(np.nanmean(quality)),
                "gain": _number(np.nanmean(gain)),
                "gain_se": _number(np.nanstd(gain) / np.sqrt(max((~np.isnan(gain)).sum(), 1))),
                "utility": _number(utility),
            }
        )
    why = f"{candidates[best].name} has the highest utility"
    if taken != best:
        why = f"{why}, and {candidates[taken].name}, preferred, is within one standard error of it"
    oracle = np.where(np.isnan(data.quality), -np.inf, data.quality).max(axis=1)
    report = {
        "chosen": candidates[taken].name,
        "why": f"{why}, out of sample, over {len(LAMBDAS)} cost weights",
        "questions": len(data),
        "folds": len(np.unique(fold)),
        "best_single": _number(np.nanmean(single)),
        "oracle": _number(oracle.mean()),
        "candidates": rows,
    }
    found = _curve(candidates[taken], data, best_single, cost_ref)
    if found is not None:
        report[KEY] = found.to_dict()
    return candidates[taken], report


def _curve(candidate: Candidate, data: RoutingData, strong: int, cost_ref: float) -> Curve | None:
    """Return the operating points of a candidate, out of sample."""
    costs = costs_of(data)
    if costs.whole:
        data = replace(data, cost_usd=costs.usd)
    lambdas = lambda_grid(column_mean(costs.usd))
    quality = candidate.quality.clip(0, 1)
    found = [
        look_up(
            data,
            policy.rank(quality, candidate.cost_usd, data.names, lam=lam, cost_ref=cost_ref)[:, 0],
        )
        for lam in lambdas
    ]
    return curve_of(
        "cross-validation inside the fit, used for its choice",
        data.names[strong],
        lambdas,
        np.column_stack([one.quality for one in found]),
        np.column_stack([one.cost_usd for one in found]),
        np.column_stack([one.model == strong for one in found]),
        data.quality[:, strong],
        data.cost_usd[:, strong],
    )


def earned(candidate: Candidate, data: RoutingData, cost_ref: float) -> tuple[Floats, Floats]:
    """Return the mean utility over the cost weights and the quality at weight 0, (n,) each."""
    spent = np.where(np.isnan(data.cost_usd), candidate.cost_usd, data.cost_usd)
    priced = bool(np.isfinite(cost_ref) and cost_ref > 0 and not np.isnan(spent).all())
    rows = np.arange(len(data))
    found = []
    quality = np.empty(len(data))
    for lam in LAMBDAS if priced else LAMBDAS[:1]:
        order = policy.rank(
            candidate.quality.clip(0, 1),
            candidate.cost_usd,
            data.names,
            lam=lam,
            cost_ref=cost_ref,
        )
        first = order[:, 0]
        earned = data.quality[rows, first]
        if lam == 0:
            quality = earned
            found.append(earned)
        else:
            found.append(earned - lam * spent[rows, first] / cost_ref)
    if len(found) == 1:
        return found[0], quality
    return (found[0] + np.mean(found[1:], axis=0)) / 2, quality


def _number(value: Any) -> float | None:
    return None if not np.isfinite(value) else round(float(value), 6)
