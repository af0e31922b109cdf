"""Keep the LLM of a session: the policy folded over the turns of a conversation.

The first turn takes its decision. Each later turn stays with the LLM of the turn before, unless
another one is ahead in utility by more than the stay bonus, or the LLM may no longer be chosen.
In the staying LLM's utility the tokens of the earlier conversation cost its
``cached_input_price``. The fold is a function of the conversation, so gateways agree without
shared memory.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from waypost.contracts import policy
from waypost.contracts.cost import CostModel
from waypost.contracts.policy import EPSILON, PolicySettings
from waypost.contracts.records import Decision, FloatMatrix, Query


@dataclass(frozen=True, slots=True)
class Stay:
    """What the fold says of a query.

    Attributes:
        last: The LLM of the turn before; None in the first turn.
        told: Whether the client told it, so that it does not come from a fold.
        words: Why the LLM is kept though another ranks higher, or left; may be empty.
        note: See `Session.note`.
    """

    last: str | None
    told: bool
    words: str
    note: str


def with_earlier(
    queries: tuple[Query, ...], *, keeps: bool = True
) -> tuple[tuple[Query, ...], list[int] | None]:
    """Return the queries, each after the earlier turns of its session, and their own rows.

    Args:
        queries: The queries.
        keeps: Whether the router keeps LLMs; otherwise sessions are left out.

    Returns:
        The rows are None where no query has a session.
    """
    if all(query.session is None for query in queries):
        return queries, None
    found: list[Query] = []
    rows = []
    for query in queries:
        if query.session is not None and not keeps:
            query = replace(query, session=None)
        for turn in query.session.earlier if query.session is not None else ():
            tokens = turn.input_tokens
            found.append(
                replace(query, text=turn.text, input_tokens=tokens, query_id=None, session=None)
            )
        rows.append(len(found))
        found.append(query)
    return tuple(found), rows


def rank(
    quality: FloatMatrix,
    cost: NDArray[np.float64],
    queries: Sequence[Query],
    known: tuple[str, ...],
    settings: PolicySettings,
    costs: CostModel,
    allowed: NDArray[np.bool_],
    *,
    lam: NDArray[np.float64] | None = None,
) -> tuple[NDArray[np.intp], list[Stay | None]]:
    """Order the LLMs of each query as `policy.rank` does, with the kept LLM of a session first.

    Args:
        quality: Predicted scores, (n_queries, n_llms).
        cost: Predicted dollars, same shape; NaN where unknown.
        queries: As `with_earlier` returns them.
        known: The n_llms names.
        settings: Defaults of the policy.
        costs: Prices of cached tokens.
        allowed: True where an LLM may be chosen, same shape.
        lam: Cost weights, (n_queries,); None where ``quality`` only orders the LLMs. A session
            then stays as long as its LLM may be chosen.

    Returns:
        The order, and for each query what the fold says; None without a session.

    Raises:
        PolicyError: no LLM may be chosen for a query. An earlier turn that has no LLM within the
            budget is ordered without it.
    """
    limits = policy.cost_limits(queries, settings)
    folds = [row for row, query in enumerate(queries) if query.session is not None]
    if folds and limits is not None:
        limits = _without_earlier(limits, queries, folds, cost, allowed)
    order = policy.rank(
        quality,
        cost,
        known,
        lam=0.0 if lam is None else lam,
        cost_ref=costs.cost_ref,
        allowed=allowed,
        max_cost_usd=limits,
    )
    stays: list[Stay | None] = [None] * len(queries)
    if folds:
        weights = None if lam is None else policy.dollar_weights(lam, costs.cost_ref)
        fold = _Fold(order, quality, policy.fill_unknown(cost), queries, known, costs, weights)
        for row in folds:
            stays[row] = fold.run(row)
    return order, stays


def _without_earlier(
    limits: NDArray[np.float64],
    queries: Sequence[Query],
    folds: Sequence[int],
    cost: NDArray[np.float64],
    allowed: NDArray[np.bool_],
) -> NDArray[np.float64]:
    # the budget of an earlier request is not known: this one's must not refuse it
    fits: NDArray[np.bool_] = np.any(allowed & (cost <= limits[:, None]), axis=1)
    found = limits.copy()
    for row in folds:
        session = queries[row].session
        earlier = slice(row - len(session.earlier if session else ()), row)
        found[earlier] = np.where(fits[earlier], found[earlier], np.nan)
    return found


@dataclass(frozen=True, slots=True)
class _Fold:
    """The arguments of `rank`; `run` changes ``order``."""

    order: NDArray[np.intp]
    quality: FloatMatrix
    cost: NDArray[np.float64]
    queries: Sequence[Query]
    known: tuple[str, ...]
    costs: CostModel
    weights: NDArray[np.float64] | None

    def run(self, row: int) -> Stay:
        session = self.queries[row].session
        assert session is not None  # `rank` asks for such rows only
        cached = [*(turn.cached_tokens for turn in session.earlier), session.cached_tokens]
        first = row - len(session.earlier)
        last, words = session.last_model, ""
        for step, tokens in enumerate(cached, first):
            before = last
            words = "" if last is None else self._stay(step, last, tokens, session.stay_bonus)
            last = self.known[self.order[step, 0]]
        told = session.last_model is not None and not session.earlier
        return Stay(before, told, words, session.note)

    def _stay(self, row: int, last: str, cached_tokens: int, bonus: float) -> str:
        """Put the LLM of the turn before first, if it stays; return why, or why it does not."""
        ranked = [int(j) for j in self.order[row] if j >= 0]
        names = [self.known[j] for j in ranked]
        if last not in names:
            return f"{last} may not be chosen for this request"
        stays = ranked[names.index(last)]
        if ranked[0] == stays:
            return ""
        gain = self._gain(row, ranked[0], stays, cached_tokens)
        if gain > max(bonus, EPSILON):
            if math.isinf(gain):  # cost alone decides
                return f"{names[0]} is cheaper than {last}"
            return f"{names[0]} is ahead of {last} by {gain:.3f}, more than {bonus:g}"
        ranked.remove(stays)
        self.order[row, : len(ranked) + 1] = [stays, *ranked]
        if self.weights is None:
            return f"{last} may still be chosen, and the router predicts no gain"
        if gain <= EPSILON:
            return f"its cached tokens make up for {names[0]}"
        return f"{names[0]} is ahead by {gain:.3f}, not more than {bonus:g}"

    def _gain(self, row: int, best: int, stays: int, cached_tokens: int) -> float:
        """Return the utility by which another LLM is ahead of the one that stays."""
        if self.weights is None:
            return -math.inf
        query, weight = self.queries[row], float(self.weights[row])
        saved = self.costs.saved(stays, len(query.text), query.input_tokens, cached_tokens)
        dearer = float(self.cost[row, best] - self.cost[row, stays]) + saved
        if math.isinf(weight):
            return math.inf if dearer < 0 else 0.0
        return float(self.quality[row, best] - self.quality[row, stays]) - weight * dearer


def draw_keys(queries: Sequence[Query]) -> list[str]:
    """Return the keys of exploration: the text, or the session's id, so that a draw stays."""
    return [
        query.text if query.session is None else query.session_id or query.text for query in queries
    ]


def told(
    decisions: Sequence[Decision], stays: Sequence[Stay | None], drawn: NDArray[np.bool_]
) -> list[Decision]:
    """Return the decisions of queries with a session with its state and why."""
    return [
        made if stay is None else _told(made, stay, drawn=bool(random))
        for made, stay, random in zip(decisions, stays, drawn, strict=True)
    ]


def _told(made: Decision, stay: Stay, *, drawn: bool) -> Decision:
    last, reason = stay.last, made.reason
    if drawn and not stay.told and last is not None:
        last = made.model  # the whole session was drawn: see `draw_keys`
    state = session_state(last, made.model)
    if state != "new" and not drawn:
        own = predicted(made, made.model) if state == "kept" and stay.words else reason
        reason = f"{state}: " + "; ".join(part for part in (stay.words, own) if part)
    reason = "; ".join(part for part in (reason, stay.note) if part)
    return replace(made, session=state, last_model=last, reason=reason)


def session_state(last: str | None, model: str) -> Any:
    """Return the `SessionState` of an answer of ``model`` after one of ``last``."""
    return "new" if last is None else "kept" if last == model else "moved"


def predicted(made: Decision, model: str) -> str:
    """Return what a decision predicts for an LLM, in words; empty where it predicts nothing."""
    quality, cost = made.quality.get(model), made.cost_usd.get(model)
    known = [] if quality is None else [f"predicted quality {quality:.3f}"]
    known += [] if cost is None else [f"{cost:.3g} USD"]
    return " at ".join(known)
