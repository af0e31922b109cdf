"""The decision rule: order LLMs by predicted quality and cost. The only place that handles
cost, budget, ties and exploration.

For a request with cost weight lambda the models are ordered by

    utility_j = quality_j - lambda * cost_j / cost_ref

with ``cost_ref`` the mean dollars of the most expensive LLM on the training data, so that
lambda = 1 trades one full point of quality for one average call of the most expensive LLM. Cost
is applied after quality is predicted: one fitted router serves every lambda, and a changed
price needs no new fit.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

from waypost.contracts.errors import BudgetError, EmptyPoolError, PolicyError, SchemaError, names
from waypost.contracts.records import Decision, FloatMatrix, Prediction, Query

EPSILON = 1e-6
"""Utilities closer than this are a tie: the cheaper model wins, then the lower name."""


@dataclass(frozen=True)
class PolicySettings:
    """Defaults of a deployment, changed without a new fit.

    Attributes:
        lam: Cost weight of requests that name none; at least 0.
        allowed_models: Names to choose from; None is the whole pool.
        max_cost_usd: Limit on the predicted dollars of one call; None is no limit.
        exploration: Share of requests in [0, 1] sent to a uniformly drawn eligible model.
        seed: Seed of the exploration draws.
    """

    lam: float = 0.0
    allowed_models: tuple[str, ...] | None = None
    max_cost_usd: float | None = None
    exploration: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.lam >= 0:
            raise PolicyError(f"policy: lambda is {self.lam}; expected a number of at least 0")
        if not 0 <= self.exploration <= 1:
            raise PolicyError(f"policy: exploration is {self.exploration}; expected 0 to 1")
        if self.max_cost_usd is not None and not self.max_cost_usd >= 0:
            raise PolicyError(f"policy: max_cost_usd is {self.max_cost_usd}; expected at least 0")


def rank(
    quality: ArrayLike,
    cost: ArrayLike,
    names: Sequence[str],
    *,
    lam: ArrayLike = 0.0,
    cost_ref: float = 1.0,
    allowed: ArrayLike | None = None,
    max_cost_usd: ArrayLike | None = None,
    epsilon: float = EPSILON,
) -> NDArray[np.intp]:
    """Order the models of each query, best first.

    Args:
        quality: Shape (n_queries, n_llms) or (n_llms,), finite.
        cost: Predicted dollars of one call, same shape, at least 0; NaN where unknown. An
            unknown cost counts as the row's highest known one and never fits a budget.
        names: The n_llms names, columns of ``quality``.
        lam: Cost weight, at least 0, scalar or (n_queries,); ``inf`` orders by cost alone.
        cost_ref: Dollars that lambda = 1 weighs as one full point of quality. Where it is NaN
            (no cost known) or not above 0, cost has no weight.
        allowed: True where a model may be chosen, shape as ``quality``; None is everywhere.
        max_cost_usd: Most dollars of one call, scalar or (n_queries,); NaN is no limit.
        epsilon: Utilities within this distance of the best remaining one are a tie.

    Returns:
        Column indices, shape (n_queries, n_llms). Models that may not be chosen are left out, and
        the row is filled with -1 at its end.

    Raises:
        EmptyPoolError: a query has no allowed model.
        BudgetError: a query has allowed models, but none within its budget.
        SchemaError: shapes differ or a quality is not finite.
        PolicyError: a negative lambda.
    """
    q = np.atleast_2d(np.asarray(quality, dtype=np.float64))
    c = np.atleast_2d(np.asarray(cost, dtype=np.float64))
    if q.shape != c.shape or q.shape[1] != len(names):
        raise SchemaError(f"rank: quality {q.shape}, cost {c.shape} and {len(names)} names differ")
    if q.shape[1] == 0:
        raise EmptyPoolError("no model to choose from: the pool is empty")
    if not np.isfinite(q).all():
        raise SchemaError("rank: quality must be finite; a model never measured has to be left out")
    weights = np.asarray(lam, dtype=np.float64)
    if weights.shape != (len(q),):
        weights = np.broadcast_to(weights, (len(q),))
    if not (weights >= 0).all():
        raise PolicyError("lambda must be a number of at least 0")
    ok = _eligible(q.shape, c, allowed, max_cost_usd)
    known = fill_unknown(c)
    return _order(q, known, weights, cost_ref, ok, _name_ranks(tuple(names)), epsilon)


def _eligible(
    shape: tuple[int, ...],
    cost: NDArray[np.float64],
    allowed: ArrayLike | None,
    max_cost_usd: ArrayLike | None,
) -> NDArray[np.bool_]:
    ok = np.ones(shape, bool) if allowed is None else np.atleast_2d(np.asarray(allowed, bool))
    if ok.shape != shape:
        ok = np.broadcast_to(ok, shape)
    if not ok.any(axis=1).all():
        raise EmptyPoolError("no model to choose from: none of the allowed models is in the pool")
    if max_cost_usd is None:
        return ok
    limit = np.broadcast_to(np.asarray(max_cost_usd, dtype=np.float64), (len(ok),))[:, None]
    within: NDArray[np.bool_] = ok & (np.isnan(limit) | (cost <= limit))
    if not within.any(axis=1).all():
        row = int(np.argmin(within.any(axis=1)))
        cheapest = np.where(ok[row], cost[row], np.inf).min(
            initial=np.inf, where=~np.isnan(cost[row])
        )
        least = f"; the cheapest is predicted at {cheapest:.6g} USD" if cheapest < np.inf else ""
        raise BudgetError(f"no allowed model fits max_cost_usd = {limit[row, 0]:.6g}{least}")
    return within


def fill_unknown(cost: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the costs, shape (n_queries, n_llms), with unknown ones as the row's highest."""
    unknown = np.isnan(cost)
    if not unknown.any():
        return cost
    highest = np.where(unknown, 0.0, cost).max(axis=1, keepdims=True)
    return np.where(unknown, highest, cost)


def dollar_weights(lam: NDArray[np.float64], cost_ref: float) -> NDArray[np.float64]:
    """Return the utility that a dollar costs each query, inf where cost alone decides."""
    scale = 1.0 / cost_ref if cost_ref > 0 and math.isfinite(cost_ref) else 0.0
    with np.errstate(over="ignore", invalid="ignore"):
        weight = lam * scale
    return np.where(np.isinf(lam) | ~np.isfinite(weight), np.inf, weight)


@lru_cache(maxsize=64)
def _name_ranks(names: tuple[str, ...]) -> NDArray[np.intp]:
    ranks = np.empty(len(names), dtype=np.intp)
    ranks[sorted(range(len(names)), key=lambda j: names[j])] = np.arange(len(names))
    return ranks


def _order(
    q: NDArray[np.float64],
    c: NDArray[np.float64],
    lam: NDArray[np.float64],
    cost_ref: float,
    ok: NDArray[np.bool_],
    name_ranks: NDArray[np.intp],
    epsilon: float,
) -> NDArray[np.intp]:
    weight = dollar_weights(lam, cost_ref)
    cost_only = np.isinf(weight)
    weight = np.where(cost_only, 0.0, weight)[:, None]
    utility = np.where(ok, q - weight * c, -np.inf)
    by_name = name_ranks[None, :].repeat(len(q), axis=0)
    order = np.lexsort((by_name, c, -utility))
    row_of = np.arange(len(q))[:, None]  # take_along_axis would cost much of a single decision
    best_first = utility[row_of, order]
    with np.errstate(invalid="ignore"):
        gaps = best_first[:, :-1] - best_first[:, 1:]
    for row in np.flatnonzero(((gaps > 0) & (gaps <= epsilon)).any(axis=1)):
        order[row] = _order_with_ties(utility[row], c[row], name_ranks, epsilon)
    if cost_only.any():
        dear = np.where(ok, c, np.inf)
        order[cost_only] = np.lexsort((by_name, -q, dear))[cost_only]
    return np.where(ok[row_of, order], order, -1)


def _order_with_ties(
    utility: NDArray[np.float64],
    cost: NDArray[np.float64],
    name_ranks: NDArray[np.intp],
    epsilon: float,
) -> NDArray[np.intp]:
    # Ties are found against the best remaining utility, place by place. Rounding utilities to a
    # grid would be faster. But a pair may straddle a grid line at one lambda and not at the next,
    # and the chosen cost could then rise with lambda.
    left = list(range(len(utility)))
    order = []
    while left:
        best = max(utility[j] for j in left)
        tied = [j for j in left if utility[j] >= best - epsilon]
        pick = min(tied, key=lambda j: (cost[j], name_ranks[j]))
        order.append(pick)
        left.remove(pick)
    return np.array(order, dtype=np.intp)


def explore(
    order: NDArray[np.intp], names: Sequence[str], keys: Sequence[str], rate: float, seed: int
) -> tuple[NDArray[np.intp], NDArray[np.float64], NDArray[np.bool_]]:
    """Put a uniformly drawn eligible model first for a share of the queries.

    The draw is a hash of seed and key, so it is the same alone and in any batch, and does not
    depend on the order of the pool.

    Args:
        order: As `rank` returns it, shape (n_queries, n_llms).
        names: The n_llms names.
        keys: One text per query; equal keys give equal draws.
        rate: Share in [0, 1].
        seed: Seed of the draws.

    Returns:
        The new order; the probability in (0, 1] of each query's first model under this
        policy, shape (n_queries,); and a mask of the queries with a drawn model, same shape.
    """
    result = order.copy()
    propensity = np.ones(len(order))
    drawn = np.zeros(len(order), bool)
    if rate <= 0:
        return result, propensity, drawn
    for row, key in enumerate(keys):
        eligible = order[row][order[row] >= 0]
        toss, pick = _uniform_pair(seed, key)
        chosen = eligible[0]
        if toss < rate:
            by_name = sorted(eligible, key=lambda j: names[j])
            chosen = by_name[int(pick * len(by_name))]
            drawn[row] = True
            result[row, : len(eligible)] = [chosen, *(j for j in eligible if j != chosen)]
        greedy = 1 - rate if chosen == eligible[0] else 0.0
        propensity[row] = greedy + rate / len(eligible)
    return result, propensity, drawn


def _uniform_pair(seed: int, key: str) -> tuple[float, float]:
    digest = hashlib.blake2b(
        key.encode("utf-8", "surrogatepass"), key=str(seed).encode(), digest_size=16
    ).digest()
    return (
        int.from_bytes(digest[:8], "big") / 2**64,
        int.from_bytes(digest[8:], "big") / 2**64,
    )


def allowed_mask(
    queries: Sequence[Query], policy: PolicySettings, known: tuple[str, ...]
) -> NDArray[np.bool_]:
    """Return a mask of the models that each query may use, shape (n_queries, n_llms).

    Raises:
        EmptyPoolError: a query may use no model, or a name is not in ``known``.
    """
    allowed = np.repeat(_mask(policy.allowed_models, known)[None, :], len(queries), axis=0)
    for row, query in enumerate(queries):
        if query.allowed_models is not None:
            allowed[row] &= _mask(query.allowed_models, known)
        if not allowed[row].any():
            raise EmptyPoolError(
                f"no model to choose from: none of the allowed models is among {names(known)}"
            )
    return allowed


def _mask(wanted: Sequence[str] | None, known: tuple[str, ...]) -> NDArray[np.bool_]:
    if wanted is None:
        return np.ones(len(known), bool)
    if unknown := [name for name in wanted if name not in known]:
        raise EmptyPoolError(
            f"allowed_models: the router does not know {names(unknown)}; it knows {names(known)}"
        )
    return np.array([name in wanted for name in known], bool)


def cost_weights(queries: Sequence[Query], policy: PolicySettings) -> NDArray[np.float64]:
    """Return each query's lambda: its own, else the policy's."""
    return np.array([policy.lam if query.lam is None else query.lam for query in queries])


def cost_limits(queries: Sequence[Query], policy: PolicySettings) -> NDArray[np.float64] | None:
    """Return each query's dollar limit, NaN where it has none; None where no query has one."""
    limits = [
        policy.max_cost_usd if query.max_cost_usd is None else query.max_cost_usd
        for query in queries
    ]
    if all(limit is None for limit in limits):
        return None
    return np.array([math.nan if limit is None else limit for limit in limits])


def decision_quality(prediction: Prediction, mean_quality: NDArray[np.float64]) -> FloatMatrix:
    """Return the quality that decides: the prediction, or the training means.

    Far from all training data a prediction is noise. There the training means decide; at lambda 0
    they choose the best single model.
    """
    unlike = prediction.out_of_distribution
    if unlike is None or not unlike.any():
        return prediction.quality
    return np.where(unlike[:, None], mean_quality, prediction.quality)


@dataclass(frozen=True, eq=False)
class Ranked:
    """Result of the policy for one query; the vectors have shape (n_llms,).

    Attributes:
        order: Column indices, best first, -1 where no further model may be chosen.
        quality: The quality that decided.
        cost_usd: Predicted dollars; NaN where unknown.
        lam: Cost weight.
        propensity: Probability of the first model under the policy.
        drawn: Whether the first model was drawn at random.
        consulted: Whether the router predicted; false where only one model was allowed.
        confidence: The router's confidence by model; None where it has none.
        unlike: Whether the query is unlike the training data.
    """

    order: NDArray[np.intp]
    quality: FloatMatrix
    cost_usd: NDArray[np.float64]
    lam: float
    propensity: float
    drawn: bool
    consulted: bool
    confidence: FloatMatrix | None = None
    unlike: bool = False

    def decision(self, known: tuple[str, ...], router: str, version: str) -> Decision:
        """Return it as a `Decision`; ``known`` names the columns."""
        eligible = [int(j) for j in self.order if j >= 0]
        best = eligible[0]
        has_confidence = self.confidence is not None and not self.unlike
        return Decision(
            model=known[best],
            ranking=tuple(known[j] for j in eligible),
            quality={known[j]: float(self.quality[j]) for j in eligible},
            cost_usd={
                known[j]: float(self.cost_usd[j])
                for j in eligible
                if not math.isnan(self.cost_usd[j])
            },
            confidence=float(self.confidence[best]) if has_confidence else None,  # type: ignore[index]
            lam=self.lam,
            propensity=self.propensity,
            reason=self._reason(best),
            router=router,
            router_version=version,
            out_of_distribution=self.unlike,
        )

    def _reason(self, best: int) -> str:
        if not self.consulted:
            return "the only model allowed"
        if self.drawn:
            return "drawn at random (exploration)"
        if self.unlike:
            return "a new kind of question: the best on average goes first"
        what = f"highest predicted quality ({self.quality[best]:.3f})"
        if self.lam > 0:
            what = (
                f"best predicted quality for its cost ({self.quality[best]:.3f}, "
                f"lambda {self.lam:g})"
            )
        cost = self.cost_usd[best]
        return what if math.isnan(cost) else f"{what} at {cost:.3g} USD"
