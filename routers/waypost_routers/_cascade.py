"""Chains of LLMs, cheapest first, in which each one's verdicts decide whether the next is asked."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from waypost.contracts.types import Floats
from waypost_routers._verdict_policies import FAMILIES, Evidence

_TIE = 1e-9


@dataclass(frozen=True, eq=False)
class Ladder:
    """Measured rows of the candidates, cheapest first; matrices of shape (n_rows, n_tiers).

    Attributes:
        quality: Scores; NaN where not measured.
        cost: Dollars of the answer over cost_ref.
        verify: Dollars of all its verdicts over cost_ref.
        count: Supporting verdicts, NaN where they were not recorded.
        verdicts: How many are asked for.
    """

    quality: Floats
    cost: Floats
    verify: Floats
    count: Floats
    verdicts: int

    def select(self, rows: NDArray[np.bool_]) -> Ladder:
        """Return some rows."""
        return Ladder(
            self.quality[rows], self.cost[rows], self.verify[rows], self.count[rows], self.verdicts
        )


@dataclass(frozen=True)
class Tier:
    """One LLM of a chain.

    Attributes:
        column: Its place in the ladder.
        actions: By number of supporting verdicts: 1 asks the next tier, 0 accepts. None accepts
            without verdicts.
        blind: What to do where no verdict could be had.
    """

    column: int
    actions: tuple[int, ...] | None = None
    blind: int = 0


Chain = tuple[Tier, ...]


def fit_chain(ladder: Ladder, lam: float, family: str | None) -> Chain:
    """Choose, from the dearest tier down, what to do with each.

    A tier is left out, ends the chain without being verified, or is verified by the family's
    table and passes on to the tiers chosen before it: whichever has the highest mean of quality
    - lam * cost on the training rows. Without a family nothing is verified, and what is left is
    the best single LLM at that cost weight.
    """
    last = ladder.quality.shape[1] - 1
    chain: Chain = (Tier(last),)
    score, cost = ladder.quality[:, last], ladder.cost[:, last]
    for column in reversed(range(last)):
        own, price = ladder.quality[:, column], ladder.cost[:, column]
        both = ~np.isnan(own) & ~np.isnan(score)
        options = [(0.0, 0.0, chain, score, cost)]
        options.append((*_lift(own, price, score, cost, lam), (Tier(column),), own, price))
        seen = both & ~np.isnan(ladder.count[:, column])
        if family is not None and seen.any():
            rows = Evidence(
                count=ladder.count[seen, column].astype(np.intp),
                own=own[seen],
                next=score[seen],
                price=lam * cost[seen],
                verdicts=ladder.verdicts,
            )
            actions = tuple(int(action) for action in FAMILIES[family](rows))
            tier = Tier(column, actions, int(rows.net.mean() > 0))
            earned, spent = _pass(tier, ladder, score, cost)
            lift = _lift(
                np.where(seen, earned, np.nan), spent, np.where(seen, score, np.nan), cost, lam
            )
            options.append((*lift, (tier, *chain), earned, spent))
        best = max(option[0] for option in options)
        tied = [option for option in options if option[0] >= best - _TIE]
        _, _, chain, score, cost = min(tied, key=lambda option: option[1])
    return chain


def run_chain(chain: Chain, ladder: Ladder) -> tuple[Floats, Floats]:
    """Return what each row earns and costs, verdicts included, shape (n_rows,) each."""
    score, cost = ladder.quality[:, chain[-1].column], ladder.cost[:, chain[-1].column]
    for tier in reversed(chain[:-1]):
        score, cost = _pass(tier, ladder, score, cost)
    return score, cost


def _pass(tier: Tier, ladder: Ladder, score: Floats, cost: Floats) -> tuple[Floats, Floats]:
    column = tier.column
    count = ladder.count[:, column]
    verified = ~np.isnan(count)
    table = np.asarray(tier.actions if tier.actions is not None else [0], np.intp)
    ask = np.full(len(count), tier.blind, np.intp)
    ask[verified] = table[count[verified].astype(np.intp)]
    own = ladder.cost[:, column] + np.where(verified, ladder.verify[:, column], 0.0)
    return np.where(ask == 1, score, ladder.quality[:, column]), own + ask * cost


def _lift(
    score: Floats, cost: Floats, other: Floats, other_cost: Floats, lam: float
) -> tuple[float, float]:
    """Return the mean gain over the other in utility, and in cost; -inf where nothing is known."""
    known = ~np.isnan(score) & ~np.isnan(other)
    if not known.any():
        return -np.inf, 0.0
    dearer = float((cost - other_cost)[known].mean())
    return float((score - other)[known].mean()) - lam * dearer, dearer
