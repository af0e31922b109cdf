"""What made-up users want of an answer, and how satisfied each answer of the data leaves them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from waypost.contracts.cost import CostModel
from waypost.contracts.families import family_of
from waypost.contracts.records import LLMInfo
from waypost.contracts.routing_data import RoutingData
from waypost.contracts.types import Floats

WANTS = ("right", "cheap", "short", "quick")
"""What users weigh: the score, dollars, output tokens, and seconds."""

TASTE = 0.15
"""Standard deviation of a user's taste for an LLM family, in units of utility (0 to 1)."""

INTEREST = 0.3
"""Concentration of a user's interests: small means few subjects."""

_LOW, _HIGH = 5, 95


@dataclass(frozen=True, eq=False)
class Users:
    """Made-up users and what they want.

    Attributes:
        user_ids: Their ids.
        weights: (n_users, n_wants), at least 0, each row sums to 1.
        wants: The wants of `WANTS` that the data can tell apart.
        families: Names of the LLM families.
        taste: (n_users, n_families), added to the utility of the family's answers.
        subjects: Names of the tasks.
        interests: (n_users, n_subjects), share of a user's sessions about each task.
    """

    user_ids: tuple[str, ...]
    weights: Floats
    wants: tuple[str, ...]
    families: tuple[str, ...]
    taste: Floats
    subjects: tuple[str, ...]
    interests: Floats

    def utility(self, satisfaction: Floats, llms: Sequence[str]) -> Floats:
        """Return each user's utility of each answer.

        Args:
            satisfaction: (n, n_llms, n_wants), in [0, 1].
            llms: The n_llms names.

        Returns:
            (n_users, n, n_llms).
        """
        of = [self.families.index(family_of(name)) for name in llms]
        return np.asarray(
            np.einsum("uk,njk->unj", self.weights, satisfaction) + self.taste[:, None, of]
        )


def draw_users(
    count: int,
    wants: tuple[str, ...],
    llms: Sequence[str],
    subjects: Sequence[str],
    draw: np.random.Generator,
) -> Users:
    """Draw users: weights Dirichlet(1), taste Gaussian, interests Dirichlet(`INTEREST`)."""
    families = tuple(sorted({family_of(name) for name in llms}))
    kinds = tuple(sorted(set(subjects)))
    return Users(
        user_ids=tuple(f"user-{i:04d}" for i in range(count)),
        weights=draw.dirichlet(np.ones(len(wants)), count),
        wants=wants,
        families=families,
        taste=draw.normal(0, TASTE, (count, len(families))),
        subjects=kinds,
        interests=draw.dirichlet(np.full(len(kinds), INTEREST), count),
    )


@dataclass(frozen=True, eq=False)
class Scale:
    """Turns outcomes into satisfaction: 1 at the low end of the data, 0 at the high end.

    Dollars, tokens and seconds count by their logarithm, as people compare prices by ratios; the
    ends are the 5th and 95th percentile of the training answers.

    Attributes:
        wants: The wants that the data can tell apart; ``right`` is always one.
        ends: (n_wants, 2), logarithms; of ``right`` unused.
    """

    wants: tuple[str, ...]
    ends: Floats

    @classmethod
    def of(cls, data: RoutingData) -> Scale:
        """Measure the ends on training data."""
        kept, ends = [], []
        for want, values in zip(WANTS, _amounts(data), strict=True):
            known = np.log(values[np.isfinite(values) & (values > 0)])
            low, high = np.percentile(known, (_LOW, _HIGH)) if len(known) else (0.0, 0.0)
            if want == "right" or high - low > 1e-9:
                kept.append(want)
                ends.append((low, high))
        return cls(tuple(kept), np.array(ends))

    def satisfaction(self, data: RoutingData) -> Floats:
        """Return (n, n_llms, n_wants) in [0, 1]; NaN where the answer was not measured."""
        given = dict(zip(WANTS, _amounts(data), strict=True))
        return self.of_amounts([given[want] for want in self.wants])

    def of_amounts(self, amounts: Sequence[Floats]) -> Floats:
        """Return the satisfaction of amounts in the order of `wants`; `right` is a score."""
        parts = []
        for want, (low, high), values in zip(self.wants, self.ends, amounts, strict=True):
            if want == "right":
                parts.append(values)
                continue
            place = (np.log(np.maximum(values, 1e-12)) - low) / (high - low)
            parts.append(1.0 - np.clip(place, 0.0, 1.0))
        return np.stack(parts, axis=-1)


def _amounts(data: RoutingData) -> list[Floats]:
    """Return score, dollars, output tokens and waiting, each (n, n_llms); NaN where unknown."""
    dollars = data.cost_usd
    if np.isnan(dollars).all():
        characters = np.array([len(text) for text in data.queries], float)
        dollars = CostModel.fit(data).predict(characters, input_tokens=None)
    waiting = data.latency_s
    if np.isnan(waiting).all():
        waiting = seconds(data.output_tokens, data.llms)
    return [data.quality, dollars, data.output_tokens, waiting]


def seconds(tokens: Floats, llms: Sequence[LLMInfo]) -> Floats:
    """Return a stand-in for waiting, (n, n_llms), in any unit: output tokens times size.

    An LLM writes a token in a time that grows with its size. One whose size is not public counts
    as the geometric mean of the others; where no tokens were recorded the size alone says it.
    """
    sizes = np.array([llm.size_b or np.nan for llm in llms])
    known = sizes[~np.isnan(sizes)]
    middle = float(np.exp(np.log(known).mean())) if len(known) else 1.0
    written: NDArray[np.float64] = np.where(np.isnan(tokens).all(), 1.0, tokens)
    return np.asarray(written * np.where(np.isnan(sizes), middle, sizes))
