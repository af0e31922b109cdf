"""What an episode earns: form, outcome and cost, and how they combine.

Each part is a pure function of plain values. Costs are in millionths of a US dollar: one
token at one dollar per million tokens.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, Protocol

import numpy as np

from waypost.contracts.errors import ConfigError, SchemaError
from waypost.scorers.text import exact_match, token_f1

Outcome = Literal["exact_match", "f1"]
Rule = Literal["reference", "paper"]

LOW_PERCENTILE, HIGH_PERCENTILE = 5.0, 95.0
WINDOW = 1000
DEGENERATE = 0.5
"""The cost reward while all costs seen are equal."""


@dataclass(frozen=True, slots=True)
class Call:
    """One delegation that reached a candidate.

    Attributes:
        candidate: Name in the pool.
        output_tokens: Tokens the candidate wrote.
        input_tokens: Tokens it was sent.
    """

    candidate: str
    output_tokens: int
    input_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Price:
    """USD per million tokens."""

    output: float
    input: float = 0.0


def delegation_cost(
    calls: Iterable[Call],
    prices: Mapping[str, Price],
    *,
    include_input: bool = False,
    policy_tokens: int = 0,
    policy_price: float = 0.0,
) -> float:
    """Return the cost of an episode, in millionths of a dollar.

    The paper counts the candidates' output tokens alone.

    Args:
        calls: The delegations made.
        prices: Price of each candidate.
        include_input: Count what the candidates were sent as well.
        policy_tokens: Tokens the policy wrote; they count where ``policy_price`` is above 0.
        policy_price: USD per million of them.

    Raises:
        SchemaError: where a candidate has no price.
    """
    total = policy_tokens * policy_price
    for call in calls:
        if call.candidate not in prices:
            raise SchemaError(f"Router-R1 reward: no price for {call.candidate!r}")
        price = prices[call.candidate]
        total += call.output_tokens * price.output
        if include_input:
            total += call.input_tokens * price.input
    return total


class CostScale(Protocol):
    """Turns a cost into a reward in [0, 1]; high is cheap."""

    def reward(self, cost: float) -> float:
        """Return the reward of a cost in millionths of a dollar, 0 or more."""
        ...


@dataclass(frozen=True, slots=True)
class FixedScale:
    """Scales by two percentiles measured once: the same on every worker, kept as data.

    Attributes:
        low: 5th percentile of the square roots of warm-up costs.
        high: 95th percentile.
    """

    low: float
    high: float

    @classmethod
    def measure(cls, costs: Sequence[float]) -> FixedScale:
        """Take the percentiles (linear interpolation) of costs.

        Raises:
            SchemaError: where there is no cost, or one is negative or not finite.
        """
        values = np.asarray(costs, dtype=np.float64)
        if values.size == 0 or not np.isfinite(values).all() or (values < 0).any():
            raise SchemaError("Router-R1 cost scale: expected at least one finite cost, none < 0")
        low, high = np.percentile(np.sqrt(values), [LOW_PERCENTILE, HIGH_PERCENTILE])
        return cls(float(low), float(high))

    def reward(self, cost: float) -> float:
        """Return 1 for a cost at or below ``low``, 0 at or above ``high``, 0.5 where they meet."""
        if self.high <= self.low:
            return DEGENERATE
        scaled = (float(np.sqrt(cost)) - self.low) / (self.high - self.low)
        return 1.0 - min(max(scaled, 0.0), 1.0)

    def to_dict(self) -> dict[str, float]:
        """Return the plain form that is stored beside the policy."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> FixedScale:
        """Read what `to_dict` made.

        Raises:
            SchemaError: where a bound is missing, is no number, or they are in disorder.
        """
        wanted = "Router-R1 cost scale: expected finite numbers 0 <= low <= high"
        try:
            scale = cls(float(data["low"]), float(data["high"]))
        except (KeyError, TypeError, ValueError):
            raise SchemaError(wanted) from None
        if not 0.0 <= scale.low <= scale.high < float("inf"):
            raise SchemaError(wanted)
        return scale


class SlidingScale:
    """The reference's scale, over the last costs this process has seen; for parity only.

    Workers that see other episodes scale otherwise, and the same cost earns something else
    later: use `FixedScale` to train.
    """

    def __init__(self, size: int = WINDOW) -> None:
        self.costs: deque[float] = deque(maxlen=size)

    def reward(self, cost: float) -> float:
        """Add a cost to the window, then scale it by the window."""
        self.costs.append(cost)
        return FixedScale.measure(self.costs).reward(cost)


def outcome_reward(answer: str | None, gold: str | Sequence[str], kind: Outcome) -> float:
    """Return exact match or the best F1 of an answer, in [0, 1]; no answer earns 0."""
    if answer is None:
        return 0.0
    return exact_match(answer, gold) if kind == "exact_match" else token_f1(answer, gold)


def total_reward(
    well_formed: bool, outcome: float, cost: float, alpha: float, rule: Rule = "reference"
) -> float:
    """Combine the parts, form first: a malformed episode earns -1 and nothing else.

    Args:
        well_formed: True where no rule of form is broken.
        outcome: In [0, 1].
        cost: Cost reward in [0, 1]; high is cheap.
        alpha: Weight of cost, in [0, 1).
        rule: ``reference``: outcome * ((1 - alpha) + alpha * cost), so a wrong answer earns
            nothing however cheap (the reference code's rule, which knows outcomes 0 and 1,
            carried on to F1). ``paper``: (1 - alpha) * outcome + alpha * cost.

    Raises:
        ConfigError: where alpha is outside [0, 1).
    """
    if not 0.0 <= alpha < 1.0:
        raise ConfigError(f"Router-R1 reward: alpha is {alpha:g}; expected 0 <= alpha < 1")
    if not well_formed:
        return -1.0
    if rule == "paper":
        return (1.0 - alpha) * outcome + alpha * cost
    return outcome * ((1.0 - alpha) + alpha * cost)
