"""The parts of an episode's reward (format, outcome and cost) and the rules that combine them.

Each part is a pure function of plain values. Costs are in millionths of a US dollar: the cost
of one token at one dollar per million tokens.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, Protocol

import numpy as np

from waypost.contracts.errors import ConfigError, SchemaError
from waypost.scorers import score

Rule = Literal["reference", "paper"]

LOW_PERCENTILE, HIGH_PERCENTILE = 5.0, 95.0
WINDOW = 1000
DEGENERATE = 0.5
"""Cost reward when both percentiles of the scale are equal."""


@dataclass(frozen=True, slots=True)
class Call:
    """One query that reached a candidate.

    Attributes:
        candidate: Name in the pool.
        output_tokens: Tokens of the candidate's response.
        input_tokens: Tokens of its prompt.
    """

    candidate: str
    output_tokens: int
    input_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Price:
    """Price of a candidate, in USD per million tokens."""

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

    The paper counts the candidates' output tokens only.

    Args:
        calls: The calls of the episode.
        prices: Price of each candidate.
        include_input: Count the candidates' input tokens as well.
        policy_tokens: Tokens the policy generated.
        policy_price: USD per million policy tokens; 0 leaves them out of the cost.

    Raises:
        SchemaError: A candidate has no price.
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
    """A map from costs to rewards in [0, 1]; high is cheap."""

    def reward(self, cost: float) -> float:
        """Return the reward of a cost >= 0, in millionths of a dollar."""
        ...


@dataclass(frozen=True, slots=True)
class FixedScale:
    """A scale between two percentiles that are measured once and are equal on every worker.

    Attributes:
        low: 5th percentile of the square roots of warm-up costs.
        high: Their 95th percentile.
    """

    low: float
    high: float

    @classmethod
    def measure(cls, costs: Sequence[float]) -> FixedScale:
        """Return the scale of the percentiles (linear interpolation) of costs.

        Raises:
            SchemaError: There is no cost, or one is negative or not finite.
        """
        values = np.asarray(costs, dtype=np.float64)
        if values.size == 0 or not np.isfinite(values).all() or (values < 0).any():
            raise SchemaError("Router-R1 cost scale: expected at least one finite cost, none < 0")
        low, high = np.percentile(np.sqrt(values), [LOW_PERCENTILE, HIGH_PERCENTILE])
        return cls(float(low), float(high))

    def reward(self, cost: float) -> float:
        """Return 1 for a root cost <= ``low``, 0 for one >= ``high``, linear between them.

        Returns 0.5 if ``low`` equals ``high``.
        """
        if self.high <= self.low:
            return DEGENERATE
        scaled = (float(np.sqrt(cost)) - self.low) / (self.high - self.low)
        return 1.0 - min(max(scaled, 0.0), 1.0)

    def to_dict(self) -> dict[str, float]:
        """Return the JSON-able form, which is stored beside the policy."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> FixedScale:
        """Return the scale that `to_dict` wrote.

        Raises:
            SchemaError: A bound is missing or not a number, or not 0 <= low <= high.
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
    """The reference code's scale over the last ``size`` costs of this process; for parity only.

    Its rewards differ between workers and change over time. Use `FixedScale` for training.
    """

    def __init__(self, size: int = WINDOW) -> None:
        self.costs: deque[float] = deque(maxlen=size)

    def reward(self, cost: float) -> float:
        """Add a cost to the window and return its reward on the scale of the window."""
        self.costs.append(cost)
        return FixedScale.measure(self.costs).reward(cost)


def outcome_reward(
    answer: str | None,
    gold: str | Sequence[str],
    metric: str = "exact_match",
    choices: Sequence[Mapping[str, str]] | None = None,
    query: str | None = None,
) -> float:
    """Return the score of an answer, in [0, 1]; 0 without an answer.

    Args:
        answer: Text of the answer block.
        gold: Accepted answers.
        metric: Name of a scorer (`waypost.scorers`): exact match, F1, letter, number, ...
        choices: Options of a multiple-choice question.
        query: The question, which some scorers read.

    Raises:
        RegistryError: There is no such metric.
    """
    return 0.0 if answer is None else score(metric, answer, gold, choices, query=query)


def total_reward(
    well_formed: bool, outcome: float, cost: float, alpha: float, rule: Rule = "reference"
) -> float:
    """Return the reward of an episode: -1 if it is malformed, else outcome and cost combined.

    Args:
        well_formed: Whether no format rule is broken.
        outcome: In [0, 1].
        cost: Cost reward in [0, 1]; high is cheap.
        alpha: Weight of cost, in [0, 1).
        rule: ``reference``: outcome * ((1 - alpha) + alpha * cost), which is 0 for a wrong
            answer at any cost (the reference code has outcomes 0 and 1 only; F1 uses the same
            formula). ``paper``: (1 - alpha) * outcome + alpha * cost.

    Raises:
        ConfigError: ``alpha`` is outside [0, 1).
    """
    if not 0.0 <= alpha < 1.0:
        raise ConfigError(f"Router-R1 reward: alpha is {alpha:g}; expected 0 <= alpha < 1")
    if not well_formed:
        return -1.0
    if rule == "paper":
        return (1.0 - alpha) * outcome + alpha * cost
    return outcome * ((1.0 - alpha) + alpha * cost)
