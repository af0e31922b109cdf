"""Measure a consensus router out of sample inside its fit, beside what it has to beat."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from waypost.contracts import policy
from waypost.contracts.cost import column_mean
from waypost.contracts.types import Floats
from waypost.tune.consensus.learning import fit_belief
from waypost.tune.consensus.planning import Planner
from waypost.tune.consensus.rules import follow_rule, measure_rules, useful_llms
from waypost.tune.consensus.simulating import Recorded, simulate

FOLDS = 3
_MOST_ASKED = 1500
"""Maximum questions of the report; the belief is learned from all."""

LAMBDAS = (0.0, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0)
"""Cost weights of the report."""


@dataclass(frozen=True)
class Settings:
    """How a belief is learned and used.

    Attributes:
        depth: See `Planner`.
        least_gain: See `Planner`.
        max_calls: Maximum calls of a question.
        seed: Seed of the first classes.
    """

    depth: int
    least_gain: float
    max_calls: int
    seed: int


def learn(data: Recorded, cost_ref: float, settings: Settings) -> Planner:
    """Return the search with a belief fitted on recorded answers, among useful LLMs.

    Args:
        data: Recorded answers, with out-of-sample predictions of the base router.
        cost_ref: See `policy.rank`.
        settings: How.
    """
    belief = fit_belief(data.groups, data.quality, data.logits, data.options, settings.seed)
    weights = policy.dollar_weights(np.array(LAMBDAS), cost_ref)
    rules = measure_rules(data.groups, data.quality)
    useful = useful_llms(rules, data.usd.mean(axis=0), weights)
    return Planner(belief, useful, settings.depth, least_gain=settings.least_gain)


def validate(
    recorded: Recorded,
    fold: NDArray[np.intp],
    cost_ref: float,
    settings: Settings,
) -> dict[str, Any]:
    """Return a JSON-able report: quality and dollars per 1,000 questions at several cost weights.

    The belief is fitted on the other folds; the base router's predictions are out of sample, too.

    Args:
        recorded: The training data, with out-of-sample predictions of the base router.
        fold: (n,) fold of each question; with one fold nothing is measured.
        cost_ref: See `policy.rank`.
        settings: How the belief is learned.
    """
    n, folds = len(fold), len(np.unique(fold))
    report = {"chosen": "expected gain", "why": "the only candidate", "questions": n}
    if folds < 2:
        nothing = {
            "folds": 0,
            "candidates": [],
            "by_lambda": [],
            "best_single": None,
            "oracle": None,
        }
        return {**report, **nothing}
    usd, score = recorded.usd, np.nan_to_num(recorded.quality)
    weights = policy.dollar_weights(np.array(LAMBDAS), cost_ref)
    quality, spent, calls = (np.zeros((len(LAMBDAS), n)) for _ in range(3))
    ruled, ruled_usd = np.zeros(n), np.zeros(n)
    best = int(np.argmax(column_mean(recorded.quality)))
    asked = np.arange(n) % (1 + (n - 1) // _MOST_ASKED) == 0
    for one in range(folds):
        rows, rest = np.flatnonzero((fold == one) & asked), np.flatnonzero(fold != one)
        planner = learn(recorded.take(rest), cost_ref, settings)
        for place, weight in enumerate(weights):
            done = simulate(planner, recorded.take(rows), float(weight), settings.max_calls)
            quality[place, rows], spent[place, rows] = done.quality, done.usd
            calls[place, rows] = done.calls
        rules = measure_rules(recorded.groups[rest], recorded.quality[rest])
        mean_usd = usd[rest].mean(axis=0)
        within = rules.usd(mean_usd) <= mean_usd[best] * (1 + 1e-9)
        rule = rules.llms[int(np.argmax(np.where(within, rules.quality, -np.inf)))]
        held = recorded.groups[rows], recorded.quality[rows], usd[rows]
        ruled[rows], ruled_usd[rows] = follow_rule(rule, *held)
    quality, spent, calls = quality[:, asked], spent[:, asked], calls[:, asked]
    ruled, ruled_usd, score, usd = ruled[asked], ruled_usd[asked], score[asked], usd[asked]
    single = score[:, best]
    return {
        **report,
        "questions": int(asked.sum()),
        "folds": folds,
        "best_single": _number(single.mean()),
        "oracle": _number(score.max(axis=1).mean()),
        "candidates": [
            _candidate("expected gain", quality[0], spent[0], single),
            _candidate("best agreement rule at the best single's cost", ruled, ruled_usd, single),
        ],
        "best_single_usd_per_1k": _number(1000 * usd[:, best].mean()),
        "by_lambda": [
            {
                "lambda": lam,
                "quality": _number(quality[place].mean()),
                "usd_per_1k": _number(1000 * spent[place].mean()),
                "calls": _number(calls[place].mean()),
            }
            for place, lam in enumerate(LAMBDAS)
        ],
    }


def _candidate(name: str, quality: Floats, spent: Floats, single: Floats) -> dict[str, Any]:
    gain = quality - single
    return {
        "candidate": name,
        "quality": _number(quality.mean()),
        "gain": _number(gain.mean()),
        "gain_se": _number(gain.std() / np.sqrt(len(gain))),
        "usd_per_1k": _number(1000 * spent.mean()),
    }


def _number(value: Any) -> float | None:
    return None if not np.isfinite(value) else round(float(value), 6)
