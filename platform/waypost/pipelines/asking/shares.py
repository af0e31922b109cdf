"""How LLMs share a budget: each gets through the same part of its cells."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


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
