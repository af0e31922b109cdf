"""Plans of automix from recorded verdicts: one chain for each of a grid of cost weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from waypost.contracts.cost import CostModel, column_mean
from waypost.contracts.errors import SchemaError
from waypost.contracts.routing_data import RoutingData
from waypost.contracts.types import Floats
from waypost_routers._cascade.chains import Ladder, fit_chain, run_chain

LAMBDAS = (0.0, *(round(float(x), 6) for x in np.geomspace(0.001, 10, 17)), float("inf"))
"""Cost weights that chains are learned for; a request uses the largest one not above its own."""

FOLDS = 5

Plan: TypeAlias = dict[str, Any]
"""A chain as JSON data: ``family`` (null if nothing is verified), ``lift`` and ``lift_se`` over
the best single LLM in quality - lambda * cost / cost_ref, ``confidence``, ``cost_factor`` (dollars
of an episode over those of its first answer), and ``tiers``: for each ``model``, ``ask_next`` by
number of supporting verdicts (null: accept) and ``blind`` (the action if all verdicts fail)."""


def count_verdicts(data: RoutingData, wanted: int | None) -> int:
    """Return the number of verdicts per answer: ``wanted``, or the most frequent in the data.

    Raises:
        SchemaError: the data holds no verdicts, or fewer than ``wanted`` on every answer.
    """
    recorded = np.zeros(1, np.intp)
    if data.verdicts is not None:
        recorded = (~np.isnan(data.verdicts)).sum(axis=2)
    if not recorded.any():
        raise SchemaError(
            "automix: the data holds no verdicts on answers; record answers and verdicts with "
            "`waypost data responses` and `waypost data verdicts`"
        )
    if wanted is None:
        return int(np.bincount(recorded[recorded > 0]).argmax())
    if wanted > recorded.max():
        raise SchemaError(
            f"automix: verdicts is {wanted}, but the data holds at most "
            f"{recorded.max()} on an answer; record more with `waypost data verdicts`"
        )
    return wanted


def ladder_of(
    data: RoutingData, tiers: Sequence[str], cost_model: CostModel, verdicts: int
) -> tuple[Ladder, list[str]]:
    """Return the rows, cheapest LLM first, and the names in that order.

    Dollars that were not recorded are predicted; without a prediction they are 0.
    """
    characters = np.array([len(text) for text in data.queries], np.float64)
    predicted = cost_model.predict(characters)
    dollars = np.where(np.isnan(data.cost_usd), predicted, data.cost_usd)
    each = data.verdict_cost_usd
    each = np.where(np.isnan(each), column_mean(each), each)
    # Without a recorded cost a verdict is taken to cost as much as the answer.
    verify = verdicts * np.where(np.isnan(each), dollars, each)
    reference = cost_model.cost_ref
    scale = 1 / reference if reference > 0 else 0.0
    mean = np.nan_to_num(column_mean(dollars), nan=np.inf)
    score = column_mean(data.quality)
    order = sorted(
        (data.names.index(name) for name in tiers),
        key=lambda j: (mean[j], score[j], data.names[j]),
    )
    assert data.verdicts is not None  # checked by `count_verdicts`
    count = data.verdicts[:, :, :verdicts].astype(np.float64).sum(axis=2)
    return Ladder(
        quality=data.quality[:, order],
        cost=np.nan_to_num(dollars * scale)[:, order],
        verify=np.nan_to_num(verify * scale)[:, order],
        count=count[:, order],
        verdicts=verdicts,
    ), [data.names[j] for j in order]


def choose_plan(
    ladder: Ladder,
    fold: NDArray[np.intp],
    families: Sequence[str],
    lam: float,
    order: Sequence[str],
) -> Plan:
    """Choose the family with the best chains on questions not used to fit them."""
    weight = min(lam, 1e9)  # stands for infinity: far above any ratio of quality to cost
    held_out = [_held_out(ladder, fold, weight, family) for family in (None, *families)]
    lifts = _utility_lift(held_out[1:], held_out[0], weight)
    best = max(range(len(families)), key=lambda i: lifts[i][0])
    lift, error = lifts[best]
    chosen = families[best] if lift > error else None
    chain = fit_chain(ladder, weight, chosen)
    if len(chain) == 1:
        chosen = None
    score = held_out[0 if chosen is None else best + 1][0]
    cost = run_chain(chain, ladder)[1].mean()
    first = ladder.cost[:, chain[0].column].mean()
    among = score >= np.nanmax(np.nan_to_num(ladder.quality, nan=-1.0), axis=1) - 1e-6
    return {
        "family": chosen,
        "lift": None if chosen is None else round(lift, 6),
        "lift_se": None if chosen is None else round(error, 6),
        "confidence": float(among[~np.isnan(score)].mean()) if (~np.isnan(score)).any() else None,
        "cost_factor": float(cost / first) if first > 0 else 1.0,
        "tiers": [
            {
                "model": order[tier.column],
                "ask_next": None if tier.actions is None else list(tier.actions),
                "blind": tier.blind,
            }
            for tier in chain
        ],
    }


def _held_out(
    ladder: Ladder, fold: NDArray[np.intp], lam: float, family: str | None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    score, cost = np.full(len(fold), np.nan), np.full(len(fold), np.nan)
    for one in np.unique(fold):
        out = fold == one
        # With a single group no rows are left to fit on.
        if not out.all():
            chain = fit_chain(ladder.select(~out), lam, family)
            score[out], cost[out] = run_chain(chain, ladder.select(out))
    return score, cost


def _utility_lift(
    scores: Sequence[tuple[Floats, Floats]], base: tuple[Floats, Floats], lam: float
) -> list[tuple[float, float]]:
    """Return mean and standard error, over the rows, of each option's utility gain on the base."""
    found = []
    for score, cost in scores:
        gain = score - base[0] - lam * (cost - base[1])
        gain = gain[~np.isnan(gain)]
        error = gain.std(ddof=1) / np.sqrt(len(gain)) if len(gain) > 1 else np.inf
        found.append((float(gain.mean()) if len(gain) else -np.inf, float(error)))
    return found
