"""What a row of a decision log says of the policies that made it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from waypost.contracts.policy import explore
from waypost.pipelines.evaluation.logged import Made, distribution, greedy, logging_of

NAMES = ("a", "b", "c", "d")


@given(st.integers(1, 4), st.floats(0, 1), st.integers(0, 1000), st.permutations(range(4)))
def test_a_logged_choice_tells_the_whole_policy(n, rate, seed, order):
    best_first = np.array([[*order[:n], *[-1] * (4 - n)]])
    made, propensity, _ = explore(best_first, NAMES, ["text"], rate, seed)
    ranking = [NAMES[j] for j in made[0] if j >= 0]
    best = NAMES[order[0]]
    expected = {NAMES[j]: rate / n + (1 - rate) * (NAMES[j] == best) for j in order[:n]}
    found = distribution(ranking, propensity[0])
    assert found == pytest.approx(expected, abs=1e-5)
    assert sum(found.values()) == pytest.approx(1)
    if rate < 0.99:
        assert greedy(ranking, propensity[0]) == best


def made(router: str, ranking: str, share: float | None, propensity: float = 1.0) -> Made:
    return Made(router, "1", list(ranking), propensity, [], [], share, True)


def test_arms_that_are_shadows_make_the_whole_probability_known():
    arms = [made("x", "ab", 0.75), made("y", "ba", 0.25)]
    assert logging_of(arms) == pytest.approx({"a": 0.75, "b": 0.25})
    exploring = [replace(arms[0], propensity=0.9), arms[1]]
    assert logging_of(exploring) == pytest.approx({"a": 0.675, "b": 0.325})
    agree = [made("x", "ab", 0.75), made("y", "ab", 0.25)]
    assert logging_of(agree) == pytest.approx({"a": 1.0, "b": 0.0})


def test_where_an_arm_is_unknown_the_arm_that_acted_counts_alone():
    assert logging_of([made("x", "ab", 0.75)]) == pytest.approx({"a": 1.0, "b": 0.0})
    beside = [made("x", "ab", 0.5), made("shadow", "ba", None)]
    assert logging_of(beside) == pytest.approx({"a": 1.0, "b": 0.0})
    assert logging_of([made("x", "ab", None), made("y", "ba", None)]) == {"a": 1.0, "b": 0.0}
