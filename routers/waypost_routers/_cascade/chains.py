"""Rules from verdicts to actions: the numbers of supporting verdicts that pass a question on.

These are the families of AutoMix (arXiv 2310.12963). Each is fitted on training rows of one tier
and returns, for every number of supporting verdicts, whether to call the next tier.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from waypost.contracts.types import Floats

Actions = NDArray[np.intp]
"""Shape (n + 1,): 1 if that number of n supporting verdicts passes the question on, else 0."""

_HOPELESS = 0.1
"""Largest score of both answers at which the next tier is taken not to help."""
_TOLERANCE = 1e-12


@dataclass(frozen=True, eq=False)
class Evidence:
    """Training rows of one tier, all measured; vectors of shape (n_rows,).

    Attributes:
        count: Number of supporting verdicts, 0 to `verdicts`.
        own: Score of the tier's answer.
        next: Score of the final answer if the question is passed on.
        price: Cost of passing on, in points of quality: lambda * dollars / cost_ref.
        verdicts: Number of verdicts requested.
    """

    count: NDArray[np.intp]
    own: Floats
    next: Floats
    price: Floats
    verdicts: int

    @property
    def net(self) -> Floats:
        """Gain of passing on minus its price."""
        return self.next - self.own - self.price

    def by_count(self, values: Floats) -> Floats:
        """Return sums of values by number of supporting verdicts, shape (n + 1,)."""
        sums = np.bincount(self.count, weights=values, minlength=self.verdicts + 1)
        return sums.astype(np.float64)


def threshold(rows: Evidence) -> Actions:
    """Pass on if at most t verdicts support the answer, with t (-1: never) of highest total net."""
    return _best_interval(rows.by_count(rows.net), from_zero=True)


def double_threshold(rows: Evidence) -> Actions:
    """Pass on between two numbers of verdicts: an unsupported answer may be beyond help."""
    return _best_interval(rows.by_count(rows.net), from_zero=False)


def self_consistency(rows: Evidence) -> Actions:
    """Pass on if at most half of the verdicts support the answer; nothing is fitted."""
    return (2 * np.arange(rows.verdicts + 1) <= rows.verdicts).astype(np.intp)


def pomdp(rows: Evidence) -> Actions:
    """Pass on if the expected net, over three hidden classes, is above 0.

    A question is hopeless (both answers score at most 0.1), needy (the next answer is better)
    or good (the rest). P(count | class) is estimated by counting, with add-one smoothing.
    """
    hopeless = (rows.own <= _HOPELESS) & (rows.next <= _HOPELESS)
    needy = ~hopeless & (rows.next > rows.own)
    expected = np.zeros(rows.verdicts + 1)
    for members in (hopeless, needy, ~hopeless & ~needy):
        if members.any():
            seen = np.bincount(rows.count[members], minlength=rows.verdicts + 1) + 1.0
            # P(class) P(count | class) is the posterior up to a positive factor.
            expected += members.mean() * seen / seen.sum() * rows.net[members].mean()
    return (expected > _TOLERANCE).astype(np.intp)


def greedy(rows: Evidence, kappa: float = 4.0) -> Actions:
    """Pass on if the mean net of that number of verdicts is above 0.

    Each mean is shrunk towards the mean of all rows, with the weight of ``kappa`` rows.
    """
    seen = rows.by_count(np.ones(len(rows.count)))
    mean = rows.net.mean() if len(rows.count) else 0.0
    expected = (rows.by_count(rows.net) + kappa * mean) / (seen + kappa)
    return (expected > _TOLERANCE).astype(np.intp)


FAMILIES: Mapping[str, Callable[[Evidence], Actions]] = {
    "threshold": threshold,
    "double_threshold": double_threshold,
    "self_consistency": self_consistency,
    "pomdp": pomdp,
    "greedy": greedy,
}


def _best_interval(net: Floats, *, from_zero: bool) -> Actions:
    best, chosen = _TOLERANCE, np.zeros(len(net), np.intp)
    for low in range(1 if from_zero else len(net)):
        totals = np.cumsum(net[low:])
        high = int(np.argmax(totals))
        if totals[high] > best:
            best = float(totals[high])
            chosen = np.zeros(len(net), np.intp)
            chosen[low : low + high + 1] = 1
    return chosen


_TIE = 1e-9


@dataclass(frozen=True, eq=False)
class Ladder:
    """Measured rows of the candidates, cheapest first; matrices of shape (n_rows, n_tiers).

    Attributes:
        quality: Scores; NaN where not measured.
        cost: Dollars of the answer over cost_ref.
        verify: Dollars of all verdicts on the answer over cost_ref.
        count: Number of supporting verdicts, NaN where not recorded.
        verdicts: Number of verdicts requested.
    """

    quality: Floats
    cost: Floats
    verify: Floats
    count: Floats
    verdicts: int

    def select(self, rows: NDArray[np.bool_]) -> Ladder:
        """Return the rows of a mask."""
        return Ladder(
            self.quality[rows], self.cost[rows], self.verify[rows], self.count[rows], self.verdicts
        )


@dataclass(frozen=True)
class Tier:
    """One LLM of a chain.

    Attributes:
        column: Column in the ladder.
        actions: By number of supporting verdicts: 1 calls the next tier, 0 accepts. None accepts
            without verdicts.
        blind: Action if all verdicts fail.
    """

    column: int
    actions: tuple[int, ...] | None = None
    blind: int = 0


Chain = tuple[Tier, ...]


def fit_chain(ladder: Ladder, lam: float, family: str | None) -> Chain:
    """Build a chain from the most expensive tier down.

    Each tier is left out, ends the chain unverified, or is verified by the family's table and
    passes on to the tiers chosen so far: the option with the highest mean of quality - lam * cost
    on the training rows. Without a family nothing is verified, and the chain is the best single
    LLM at that cost weight.
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
    """Return score and cost of each row, verdicts included, shape (n_rows,) each."""
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
    """Return the mean gain in utility over the other option, and in cost; -inf if unknown."""
    known = ~np.isnan(score) & ~np.isnan(other)
    if not known.any():
        return -np.inf, 0.0
    dearer = float((cost - other_cost)[known].mean())
    return float((score - other)[known].mean()) - lam * dearer, dearer
