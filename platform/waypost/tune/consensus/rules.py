"""Agreement rules: ask two LLMs, take their answer if they agree, else that of a third.

Agreement-based cascading (ABC, arXiv 2407.02348) with a tier of two LLMs and a tier of one. A
single LLM is the rule that asks no other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from waypost.contracts.types import Floats


@dataclass(frozen=True, eq=False)
class Rules:
    """All rules of m LLMs, measured on recorded answers.

    Attributes:
        llms: (r, 3) columns of the two LLMs asked first and of the one asked if they differ; three
            equal columns are a single LLM.
        quality: (r,) mean score.
        differ: (r,) share of the questions on which the first two differ; 0 for a single LLM.
    """

    llms: NDArray[np.intp]
    quality: Floats
    differ: Floats

    def usd(self, cost: Floats) -> Floats:
        """Return the expected dollars of each rule, (r,), from those of a call, (m,)."""
        first, second, last = (cost[self.llms[:, place]] for place in range(3))
        return np.where(self.single, first, first + second + self.differ * last)

    @property
    def single(self) -> NDArray[np.bool_]:
        """Whether a rule is a single LLM, (r,)."""
        return np.asarray(self.llms[:, 0] == self.llms[:, 1])

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Return the state as named arrays."""
        return dict(vars(self))

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Rules:
        """Rebuild it from `to_arrays`."""
        return cls(**arrays)


def measure_rules(groups: NDArray[np.integer], quality: Floats) -> Rules:
    """Measure every rule on recorded answers; a missing answer scores 0.

    Args:
        groups: (n, m) group of each answer, -1 where it has no normal form.
        quality: (n, m) scores, NaN where not measured.
    """
    n, m = groups.shape
    score = np.nan_to_num(quality)
    llms = [np.repeat(np.arange(m)[:, None], 3, axis=1)]
    means, differ = [score.mean(axis=0)], [np.zeros(m)]
    for one, other in combinations(range(m), 2):
        agree = (groups[:, one] == groups[:, other]) & (groups[:, one] >= 0)
        last = np.array([j for j in range(m) if j not in (one, other)], np.intp)
        taken = float((agree * np.maximum(score[:, one], score[:, other])).sum())
        means.append((taken + (~agree).astype(np.float64) @ score[:, last]) / n)
        differ.append(np.full(len(last), 1 - agree.mean()))
        llms.append(np.column_stack([np.full((len(last), 2), (one, other)), last]))
    return Rules(
        np.concatenate(llms).astype(np.intp), np.concatenate(means), np.concatenate(differ)
    )


def follow_rule(
    rule: NDArray[np.intp], groups: NDArray[np.integer], quality: Floats, usd: Floats
) -> tuple[Floats, Floats]:
    """Return score and dollars of each question under one rule, (n,) each."""
    one, other, last = rule.tolist()
    score = np.nan_to_num(quality)
    if one == other:
        return score[:, one], usd[:, one]
    agree = (groups[:, one] == groups[:, other]) & (groups[:, one] >= 0)
    spent = usd[:, one] + usd[:, other] + np.where(agree, 0.0, usd[:, last])
    return np.where(agree, np.maximum(score[:, one], score[:, other]), score[:, last]), spent


_BEST = 3


def useful_llms(rules: Rules, cost: Floats, weights: Floats) -> NDArray[np.bool_]:
    """Return whether an LLM is part of one of the best rules at some price of a dollar, (m,).

    Args:
        rules: Measured rules.
        cost: (m,) mean dollars of a call.
        weights: Utilities that a dollar costs.
    """
    found = np.zeros(len(cost), bool)
    for weight in weights:
        utility = rules.quality - weight * np.nan_to_num(rules.usd(cost))
        found[rules.llms[np.argsort(-utility, kind="stable")[:_BEST]]] = True
    return found
