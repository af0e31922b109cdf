"""Rate limits and budget of a run: leaky buckets, shares of the budget, tallies of the calls."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass
class _Account:
    """The dollars of one LLM.

    Attributes:
        max_cost: Upper bound for all its cells.
        booked: Upper bound for its calls in flight.
        settled: Upper bound for its finished calls.
        spent: Actual cost of the finished calls.
        ended: Whether it makes no further calls.
    """

    max_cost: float
    booked: float = 0.0
    settled: float = 0.0
    spent: float = 0.0
    ended: bool = False

    @property
    def taken(self) -> float:
        return self.spent + self.booked


class BudgetShares:
    """The division of a budget among LLMs in proportion to the expected cost of their cells.

    The expected cost is the upper bound times the ratio of actual to booked cost of the finished
    calls, so an LLM with short answers gets no money for long ones. The rest of an LLM that ended
    goes to the others. The LLM with the least relative spending is never refused, so no money stays
    unused.

    Args:
        max_costs: By LLM, upper bound for all its cells in dollars.
        budget_usd: The budget; infinity means no limit.
    """

    def __init__(self, max_costs: Mapping[str, float], budget_usd: float) -> None:
        self._budget = budget_usd
        self._of = {llm: _Account(max_cost) for llm, max_cost in max_costs.items()}

    def allow(self, llm: str, usd: float) -> bool:
        """Return whether the share of an LLM covers a call; True for unknown LLMs."""
        mine = self._of.get(llm)
        if mine is None:
            return True
        needs = {name: self._need(name) for name, one in self._of.items() if not one.ended}
        every = sum(needs.values())
        if len(needs) < 2 or not every or llm not in needs:
            return True
        rest = self._budget - sum(one.spent for one in self._of.values() if one.ended)
        if mine.taken + usd <= rest * needs[llm] / every:
            return True
        parts = {name: self._of[name].taken / need for name, need in needs.items() if need}
        return llm in parts and parts[llm] <= min(parts.values())

    def book(self, llm: str, usd: float) -> None:
        """Book a call."""
        if one := self._of.get(llm):
            one.booked += usd

    def settle(self, llm: str, usd: float, spent: float) -> None:
        """Replace the booking of a call by its actual cost."""
        if one := self._of.get(llm):
            one.booked -= usd
            one.spent += spent
            one.settled += usd if spent else 0.0  # a failed call must not lower the estimate

    def end(self, llm: str) -> None:
        """Release the share of an LLM that makes no further calls."""
        if one := self._of.get(llm):
            one.ended = True

    def _need(self, llm: str) -> float:
        one = self._of[llm]
        if one.settled:
            return one.max_cost * one.spent / one.settled
        spent = sum(other.spent for other in self._of.values())
        settled = sum(other.settled for other in self._of.values())
        return one.max_cost * (spent / settled if settled else 1.0)


@dataclass(frozen=True)
class RateLimits:
    """Maximum calls and tokens per minute, over all workers; None is no limit."""

    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None


@dataclass
class Tally:
    """Counts of one LLM's cells so far.

    Attributes:
        done: Finished cells: answered, cached, failed or left out.
        cached: Answers from the log, without cost.
        failed: Failed calls, after retries.
        left: Cells left out because of the budget.
        usd: Dollars of this run's answers.
        errors: Failed calls by kind of error.
    """

    done: int = 0
    cached: int = 0
    failed: int = 0
    left: int = 0
    usd: float = 0.0
    errors: Counter[str] = field(default_factory=Counter)

    def add(self, other: Tally) -> None:
        """Add the counts of another tally."""
        self.done += other.done
        self.cached += other.cached
        self.failed += other.failed
        self.left += other.left
        self.usd += other.usd
        self.errors.update(other.errors)


class LeakyBucket:
    """A leaky bucket without burst, which spreads units evenly over time (GCRA, ITU-T I.371).

    With requests as units no minute exceeds the limit. With tokens the last request of a minute can
    exceed it.
    """

    def __init__(self, per_minute: float) -> None:
        self._seconds = 60.0 / per_minute
        self._free_at = float("-inf")

    def take(self, units: float, now: float) -> float:
        """Book units and return the time in seconds from which they are available."""
        begin = max(self._free_at, now)
        self._free_at = begin + units * self._seconds
        return begin

    def give_back(self, units: float) -> None:
        """Return unused units; negative for units used beyond the booking."""
        self._free_at -= units * self._seconds


class RateLimiter:
    """Rate limits, budget and tallies of a run.

    Args:
        rates: Limits by LLM.
        budget_usd: Maximum dollars for answers; None is no limit.
        max_costs: Upper bound of the cost of each LLM's cells, by which the budget is shared
            (`BudgetShares`); None serves calls in order.
        clock: Returns seconds; for tests.
    """

    def __init__(
        self,
        rates: Mapping[str, RateLimits],
        budget_usd: float | None = None,
        max_costs: Mapping[str, float] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._requests = {
            n: LeakyBucket(r.requests_per_minute) for n, r in rates.items() if r.requests_per_minute
        }
        self._tokens = {
            n: LeakyBucket(r.tokens_per_minute) for n, r in rates.items() if r.tokens_per_minute
        }
        self._left_usd = float("inf") if budget_usd is None else budget_usd
        self._booked_usd = 0.0
        self._shares = BudgetShares(max_costs or {}, self._left_usd)
        self._clock = clock
        self._tallies: dict[str, Tally] = {}

    def admit(self, llm: str, tokens: float, usd: float) -> float | None:
        """Book one call.

        Args:
            llm: Name of the LLM.
            tokens: Maximum tokens of prompt and answer.
            usd: Maximum cost in dollars.

        Returns:
            Seconds to wait before the call; None if the budget or the LLM's share is too small.
            A booked call must be settled.
        """
        if usd > self._left_usd or not self._shares.allow(llm, usd):
            return None
        self._shares.book(llm, usd)
        self._left_usd -= usd
        self._booked_usd += usd
        now = self._clock()
        begin = now
        if bucket := self._requests.get(llm):
            begin = max(begin, bucket.take(1, now))
        if bucket := self._tokens.get(llm):
            begin = max(begin, bucket.take(tokens, now))
        return begin - now

    def settle(self, llm: str, tokens: float, usd: float, used_tokens: float, spent: float) -> None:
        """Replace the booking of a call by its actual tokens and cost."""
        self._left_usd += usd - spent
        self._booked_usd -= usd
        self._shares.settle(llm, usd, spent)
        if bucket := self._tokens.get(llm):
            bucket.give_back(tokens - used_tokens)

    def waiting(self) -> bool:
        """Return whether calls are in flight; once they are settled, a refused call may fit."""
        return self._booked_usd > 1e-12

    def end(self, llm: str) -> None:
        """Release the share of an LLM that makes no further calls."""
        self._shares.end(llm)

    def add_tally(self, llm: str, tally: Tally) -> None:
        """Add to an LLM's tally."""
        self._tallies.setdefault(llm, Tally()).add(tally)

    def tallies(self) -> dict[str, Any]:
        """Return the tallies by LLM."""
        return dict(self._tallies)
