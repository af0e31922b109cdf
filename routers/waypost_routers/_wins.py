"""Labels of Hybrid LLM: whether an LLM does as well as the large one, and the implied quality.

A label is Pr[q_j >= q_large - t] over pairs of answers (arXiv 2404.14618).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from waypost.contracts.types import Floats
from waypost_routers._shared import Distinct

MARGINS = tuple(i / 20 for i in range(21))
"""Candidate margins t of the transformed labels."""

_TIE = 1e-6


@dataclass(frozen=True, eq=False)
class Wins:
    """Margins and mean score gaps of wins over the large LLM; every array is (n_llms,).

    Attributes:
        margin: t: q_j >= q_large - t is a win.
        won: Mean of q_j - q_large over wins.
        lost: Mean of q_j - q_large over losses.
    """

    margin: Floats
    won: Floats
    lost: Floats

    def in_order(self, order: NDArray[np.intp]) -> Wins:
        """Return the arrays with LLM ``order[k]`` at place k."""
        return Wins(self.margin[order], self.won[order], self.lost[order])

    def to_arrays(self) -> dict[str, Floats]:
        """Return the state as named arrays."""
        return dict(vars(self))

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Wins:
        """Rebuild the object from `to_arrays`."""
        return cls(arrays["margin"], arrays["won"], arrays["lost"])


@dataclass(frozen=True, eq=False)
class Sweep:
    """Share and quality of a pair at each threshold; every array is (n_thresholds,).

    Attributes:
        tau: Thresholds, ascending; the last is above 1.
        share: Share of the questions that go to the small LLM.
        quality: Mean score.
    """

    tau: Floats
    share: Floats
    quality: Floats


def choose_pair(
    names: Sequence[str], mean: Floats, usd: Floats, small: str | None, large: str | None
) -> tuple[str, str]:
    """Return the names of the small and the large LLM.

    Args:
        names: Names of all LLMs.
        mean: (n_llms,) mean scores.
        usd: (n_llms,) mean dollars of a call; NaN (unknown) counts as the most expensive.
        small: Requested name; None is the cheapest LLM other than the large one.
        large: Requested name; None is the best by mean score (ties: the cheapest, then by name).
    """
    dear = np.where(np.isnan(usd), np.inf, usd)
    by_name = range(len(names))
    if large is None:
        others = [j for j in by_name if names[j] != small] or [0]
        large = names[min(others, key=lambda j: (-round(float(mean[j]), 9), dear[j], names[j]))]
    if small is None:
        others = [j for j in by_name if names[j] != large] or [0]
        small = names[min(others, key=lambda j: (dear[j], -round(float(mean[j]), 9), names[j]))]
    return small, large


def learn_wins(
    quality: Floats, known: Distinct, large: int, kind: str
) -> tuple[Floats, Floats, Wins]:
    """Label each question with each LLM's share of wins.

    Args:
        quality: (n_data, n_llms) of the data, columns as in ``known``.
        known: The distinct questions.
        large: Column of the large LLM.
        kind: ``deterministic``, ``probabilistic`` or ``transformed``.

    Returns:
        Labels (n, n_llms) in [0, 1], with the scores of the large LLM in its own column; weights
        (n, n_llms), whose columns sum to 1, or to 0 if no question measured both; and the `Wins`.
        Without wins or losses the gap is that of the mean scores.
    """
    labels, weights = known.scores.copy(), known.weights.copy()
    n, m = labels.shape
    margin, won, lost = np.zeros(m), np.zeros(m), np.zeros(m)
    means = (known.scores * known.weights).sum(axis=0)
    for j in (j for j in range(m) if j != large):
        if kind == "deterministic":
            gaps = quality[:, j] - quality[:, large]
            pairs = Pairs(gaps, known.row_of, np.ones(len(gaps))).measured()
        else:
            pairs = all_pairs(quality[:, j], quality[:, large], known.row_of)
        margin[j] = widest(pairs, n) if kind == "transformed" else 0.0
        wins, total = pairs.won(margin[j]), np.bincount(pairs.question, pairs.weight, n)
        labels[:, j] = pairs.share(wins, n)
        weights[:, j] = total / max(total.sum(), 1e-12)
        apart = means[j] - means[large]
        won[j] = _mean(pairs.gap, pairs.weight * wins, apart)
        lost[j] = _mean(pairs.gap, pairs.weight * ~wins, apart)
    return labels, weights, Wins(margin, won, lost)


@dataclass(frozen=True, eq=False)
class Pairs:
    """Pairs of answers of two LLMs to one question; every array is (n_pairs,).

    Attributes:
        gap: Score of the first LLM minus that of the second.
        question: Index of the question.
        weight: A question's weights sum to the number of the first LLM's answers to it.
    """

    gap: Floats
    question: NDArray[np.intp]
    weight: Floats

    def measured(self) -> Pairs:
        """Return the pairs with both scores known."""
        there = ~np.isnan(self.gap)
        return Pairs(self.gap[there], self.question[there], self.weight[there])

    def won(self, margin: float) -> NDArray[np.bool_]:
        """Return whether the first LLM wins each pair with this margin, (n_pairs,)."""
        return self.gap >= -margin - _TIE

    def share(self, wins: NDArray[np.bool_], n_questions: int) -> Floats:
        """Return each question's share of wins, (n_questions,); 0 if it has no pair."""
        total = np.bincount(self.question, self.weight, n_questions)
        return np.bincount(self.question, self.weight * wins, n_questions) / np.where(
            total > 0, total, 1.0
        )


def all_pairs(first: Floats, second: Floats, row_of: NDArray[np.intp]) -> Pairs:
    """Pair each answer of the first LLM with every answer of the second to the same question.

    Args:
        first: (n_data,) scores, NaN where not measured.
        second: (n_data,) scores, NaN where not measured.
        row_of: (n_data,) index of each row's question.
    """
    a, b = np.flatnonzero(~np.isnan(first)), np.flatnonzero(~np.isnan(second))
    b = b[np.argsort(row_of[b], kind="stable")]
    start = np.searchsorted(row_of[b], row_of[a], "left")
    count = np.searchsorted(row_of[b], row_of[a], "right") - start
    left = np.repeat(a, count)
    within = np.arange(len(left)) - np.repeat(np.cumsum(count) - count, count)
    right = b[np.repeat(start, count) + within]
    weight = 1.0 / np.repeat(count, count)
    return Pairs(first[left] - second[right], row_of[left], weight)


def widest(pairs: Pairs, n_questions: int) -> float:
    """Return the margin whose labels differ most between questions; ties go to the smallest.

    The difference is the mean of |label_i - label_k| over all question pairs (section 3.3).
    """
    asked = np.unique(pairs.question)
    spreads = [_mean_difference(pairs.share(pairs.won(t), n_questions)[asked]) for t in MARGINS]
    return MARGINS[int(np.argmax(np.round(spreads, 9)))] if len(asked) else 0.0


def _mean_difference(values: Floats) -> float:
    n = len(values)
    ranks = 2 * np.arange(1, n + 1) - n - 1
    return float(2 * (ranks * np.sort(values)).sum() / max(n, 1) ** 2)


def _mean(values: Floats, weights: Floats, default: float) -> float:
    total = float(weights.sum())
    return float(weights @ values) / total if total > 0 else default


def quality_from_wins(probability: Floats, wins: Wins, large: int) -> Floats:
    """Return the expected quality of each LLM, (n, n_llms).

    Args:
        probability: (n, n_llms) win probabilities; in the column of the large LLM its own quality.
        wins: Mean score gaps of wins and losses.
        large: Column of the large LLM.
    """
    apart = probability * wins.won + (1 - probability) * wins.lost
    apart[:, large] = 0.0
    return np.asarray(probability[:, large, None] + apart)


def sweep_of(probability: Floats, scores: Floats) -> Sweep:
    """Return share and quality at every threshold.

    Args:
        probability: (n,) probability that the small LLM wins, n >= 1.
        scores: (n, 2) scores of the small and the large LLM.
    """
    tau = np.append(np.unique(probability), np.nextafter(1.0, 2.0))
    to_small = probability[:, None] >= tau
    earned = np.where(to_small, scores[:, :1], scores[:, 1:])
    return Sweep(tau, to_small.mean(axis=0), earned.mean(axis=0))
