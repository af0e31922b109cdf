"""Run a plan on recorded answers, all questions at once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from waypost.contracts.types import Floats
from waypost.tune.consensus.belief import MOST_CALLS
from waypost.tune.consensus.planning import NEW, NONE, Planner, Situations, follow


@dataclass(frozen=True, eq=False)
class Recorded:
    """Recorded answers of m LLMs to n questions.

    Attributes:
        groups: (n, m) group of each answer, -1 where it has no normal form.
        quality: (n, m) scores, NaN where there is no answer.
        usd: (n, m) dollars of each call.
        logits: (n, m) logits of out-of-sample predictions of the base router.
        options: (n,) number of possible answers.
        expected_usd: (n, m) predicted dollars.
    """

    groups: NDArray[np.integer]
    quality: Floats
    usd: Floats
    logits: Floats
    options: Floats
    expected_usd: Floats

    def take(self, rows: NDArray[np.intp]) -> Recorded:
        """Return some of the questions."""
        return Recorded(**{key: value[rows] for key, value in vars(self).items()})


@dataclass(frozen=True, eq=False)
class Results:
    """Score, dollars and number of calls of each question, (n,) each."""

    quality: Floats
    usd: Floats
    calls: NDArray[np.intp]


def simulate(
    planner: Planner,
    data: Recorded,
    weight: float,
    max_calls: int,
) -> Results:
    """Answer every question by the plan; without an answer it scores 0.

    Args:
        planner: The plan.
        data: Recorded answers.
        weight: Utility that a dollar costs.
        max_calls: Maximum calls of a question.
    """
    n = len(data.groups)
    leaders = np.full((n, MOST_CALLS), -1, np.intp)  # recorded group of each group, and who is
    answers = np.full((n, MOST_CALLS), -1, np.intp)  # the first of its LLMs
    usd, calls, quality = np.zeros(n), np.zeros(n, np.intp), np.zeros(n)
    price = weight * data.expected_usd
    measured = planner.among(~np.isnan(data.quality))
    now = Situations.start(planner.belief, data.logits, data.options, price, measured)
    active = np.arange(n)
    for turn in range(max_calls + 1):
        chances = now.chances[:, :-1]
        top = chances.argmax(axis=1)
        rows = np.arange(len(now))
        first = answers[active, top]
        score = np.where(first >= 0, data.quality[active, np.maximum(first, 0)], 0.0)
        values = planner.plan(now, np.full(len(now), max_calls - turn))
        best = values.argmax(axis=1)
        gain = values[rows, best] - now.stop
        goes_on = np.isfinite(gain) & ((gain > planner.least_gain) | (turn == 0))
        quality[active[~goes_on]] = score[~goes_on]
        going = np.flatnonzero(goes_on)
        if not len(going):
            break
        active, llm, now = active[going], best[going], now.take(going)
        usd[active] += data.usd[active, llm]
        calls[active] += 1
        said = data.groups[active, llm]
        same = (leaders[active] == said[:, None]) & (said >= 0)[:, None]
        fresh = (said >= 0) & ~same.any(axis=1)
        outcome = np.where(said < 0, NONE, np.where(fresh, NEW, same.argmax(axis=1)))
        leaders[active[fresh], now.count[fresh]] = said[fresh]
        answers[active[fresh], now.count[fresh]] = llm[fresh]
        now = follow(planner.belief, now, llm, outcome)
    return Results(quality, usd, calls)
