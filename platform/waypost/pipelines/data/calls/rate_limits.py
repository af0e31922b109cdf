"""What all workers of a run share: rates, the budget and each LLM's part of it."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass
class _Account:
    """Dollars of one LLM.

    Attributes:
        wish: All its cells, at their dearest.
        booked: Calls that are not settled, at their dearest.
        settled: Calls that are, at their dearest.
        spent: What those took.
        ended: Whether it asks no more.
    """

    wish: float
    booked: float = 0.0
    settled: float = 0.0
    spent: float = 0.0
    ended: bool = False

    @property
    def taken(self) -> float:
        return self.spent + self.booked


class Shares:
    """Says whose turn it is where money is short.

    An LLM's share is that part of the budget which its cells are of all cells in dollars. What
    calls take of what is booked for them is seen of those that were made, so that an LLM of short
    answers is not given the money for long ones. What an LLM leaves goes to those that still ask,
    and whoever is farthest behind is never refused, so that the shares hold no money back.

    Args:
        wishes: By LLM, dollars that its cells cost at most.
        budget_usd: To share; infinity shares nothing.
    """

    def __init__(self, wishes: Mapping[str, float], budget_usd: float) -> None:
        self._budget = budget_usd
        self._of = {llm: _Account(wish) for llm, wish in wishes.items()}

    def allow(self, llm: str, usd: float) -> bool:
        """Say whether an LLM may book a call of that much; True where nothing is known of it."""
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
        """Note that a call is made."""
        if one := self._of.get(llm):
            one.booked += usd

    def settle(self, llm: str, usd: float, spent: float) -> None:
        """Note what a call took of what was booked for it."""
        if one := self._of.get(llm):
            one.booked -= usd
            one.spent += spent
            one.settled += usd if spent else 0.0  # a failed call says nothing about the others

    def end(self, llm: str) -> None:
        """Note that an LLM asks no more."""
        if one := self._of.get(llm):
            one.ended = True

    def _need(self, llm: str) -> float:
        one = self._of[llm]
        if one.settled:
            return one.wish * one.spent / one.settled
        spent = sum(other.spent for other in self._of.values())
        settled = sum(other.settled for other in self._of.values())
        return one.wish * (spent / settled if settled else 1.0)


@dataclass(frozen=True)
class Rates:
    """Most that may begin in a minute, over all askers; None is no limit."""

    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None


@dataclass
class Tally:
    """What was done for one LLM so far.

    Attributes:
        done: Cells that ended: answered, taken from the cache, failed or left.
        cached: Answers that were there and cost nothing.
        failed: Calls that failed in the end.
        left: Cells that the budget left unasked.
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
        """Add what was done meanwhile."""
        self.done += other.done
        self.cached += other.cached
        self.failed += other.failed
        self.left += other.left
        self.usd += other.usd
        self.errors.update(other.errors)


class Pace:
    """Spreads units evenly over time: the bucket of a leaky-bucket meter, holding no burst.

    A unit may begin when those before it have had their share of the minute (GCRA, ITU-T I.371).
    With requests as units no minute sees more than the limit; with tokens the last request may
    reach over it.
    """

    def __init__(self, per_minute: float) -> None:
        self._seconds = 60.0 / per_minute
        self._free_at = float("-inf")

    def take(self, units: float, now: float) -> float:
        """Book units; returns the second from which they may be used."""
        begin = max(self._free_at, now)
        self._free_at = begin + units * self._seconds
        return begin

    def give_back(self, units: float) -> None:
        """Return units that were booked and not used (negative: used beyond what was booked)."""
        self._free_at -= units * self._seconds


class Ledger:
    """Rates, budget and progress of one run.

    Args:
        rates: By LLM.
        budget_usd: Most that answers may cost; None is no limit.
        wishes: By LLM, what its cells cost at most: the budget is shared by it (`Shares`). None
            gives it to whoever comes.
        clock: Seconds; for tests.
    """

    def __init__(
        self,
        rates: Mapping[str, Rates],
        budget_usd: float | None = None,
        wishes: Mapping[str, float] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._requests = {
            n: Pace(r.requests_per_minute) for n, r in rates.items() if r.requests_per_minute
        }
        self._tokens = {
            n: Pace(r.tokens_per_minute) for n, r in rates.items() if r.tokens_per_minute
        }
        self._left_usd = float("inf") if budget_usd is None else budget_usd
        self._booked_usd = 0.0
        self._shares = Shares(wishes or {}, self._left_usd)
        self._clock = clock
        self._tallies: dict[str, Tally] = {}

    def admit(self, llm: str, tokens: float, usd: float) -> float | None:
        """Book one call.

        Args:
            llm: Its name.
            tokens: Of prompt and answer, at most.
            usd: What it may cost at most.

        Returns:
            Seconds to wait before it, or None where the budget, or the LLM's share of it, does not
            hold it. A call that was booked must be settled.
        """
        if usd > self._left_usd or not self._shares.allow(llm, usd):
            return None
        self._shares.book(llm, usd)
        self._left_usd -= usd
        self._booked_usd += usd
        now = self._clock()
        begin = now
        if pace := self._requests.get(llm):
            begin = max(begin, pace.take(1, now))
        if pace := self._tokens.get(llm):
            begin = max(begin, pace.take(tokens, now))
        return begin - now

    def settle(self, llm: str, tokens: float, usd: float, used_tokens: float, spent: float) -> None:
        """Put what a call took in place of what was booked for it."""
        self._left_usd += usd - spent
        self._booked_usd -= usd
        self._shares.settle(llm, usd, spent)
        if pace := self._tokens.get(llm):
            pace.give_back(tokens - used_tokens)

    def waiting(self) -> bool:
        """Say whether calls are booked and not settled: a refused one may fit in later."""
        return self._booked_usd > 1e-12

    def end(self, llm: str) -> None:
        """Note that an LLM asks no more: what is left of its share is for the others."""
        self._shares.end(llm)

    def tell(self, llm: str, tally: Tally) -> None:
        """Add to an LLM's tally."""
        self._tallies.setdefault(llm, Tally()).add(tally)

    def tallies(self) -> dict[str, Any]:
        """Return the tallies by LLM."""
        return dict(self._tallies)
