"""The belief about answers, and the search for the next call."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from support.answering import answered
from waypost.tune.consensus.belief import MOST_CALLS, logit
from waypost.tune.consensus.grouping import groups_of, possible_answers
from waypost.tune.consensus.learning import fit_belief, worth_of
from waypost.tune.consensus.planning import (
    NEW,
    NONE,
    Planner,
    Situations,
    _with_groups,
    follow,
    foresee,
)

CHEAP, TWIN, OTHER, STRONG = range(4)
ALL = np.ones(4, bool)


@pytest.fixture(scope="module")
def data():
    return answered(600)


@pytest.fixture(scope="module")
def belief(data):
    groups, options = groups_of(data, "x"), possible_answers(data.queries)
    return fit_belief(groups, data.quality, flat(len(data)), options, 0)


def flat(n):
    return logit(np.tile([0.72, 0.72, 0.75, 0.8], (n, 1)))


def after(belief, *answers, price=0.0, options=4.0):
    """Return the situation after (LLM, outcome) pairs."""
    shape = (1, 4)
    now = Situations.start(
        belief, flat(1), np.array([options]), np.full(shape, price), np.ones(shape, bool)
    )
    for llm, outcome in answers:
        now = follow(belief, now, np.array([llm]), np.array([outcome]))
    return now


def test_a_group_is_worth_the_mean_of_its_scores():
    found = worth_of(np.array([[0, 0, 1, -1]]), np.array([[1.0, 0.5, np.nan, 1.0]]))
    assert found.tolist() == [[0.75, 0.0, 0.0, 0.0]]


def test_one_answer_is_right_as_often_as_its_llm(belief, data):
    for llm in range(4):
        mean = data.quality[:, llm].mean()
        assert after(belief, (llm, NEW)).stop[0] == pytest.approx(mean, abs=0.04)


def test_agreement_of_twins_says_less_than_that_of_strangers(belief):
    alone = after(belief, (CHEAP, NEW)).stop[0]
    twins = after(belief, (CHEAP, NEW), (TWIN, 0)).stop[0]
    strangers = after(belief, (CHEAP, NEW), (OTHER, 0)).stop[0]
    assert twins == pytest.approx(alone, abs=0.06)
    assert strangers > twins + 0.08


def test_the_strong_llm_wins_a_disagreement(belief):
    chances = after(belief, (CHEAP, NEW), (STRONG, NEW)).chances[0]
    assert chances[1] > chances[0]
    assert chances.sum() == pytest.approx(1)


def test_what_comes_next_is_foreseen(belief, data):
    ahead = foresee(belief, after(belief, (CHEAP, NEW)))
    np.testing.assert_allclose(ahead.chance.sum(axis=2), 1, atol=1e-5)
    assert ahead.chance[0, TWIN, 0] > 0.9
    groups = groups_of(data, "x")
    same = (groups[:, CHEAP] == groups[:, OTHER]).mean()
    assert ahead.chance[0, OTHER, 0] == pytest.approx(same, abs=0.06)
    assert ahead.value[0, CHEAP] == -np.inf  # asked already


@pytest.mark.parametrize("options", [2.0, 4.0, 30.0])
def test_the_value_foreseen_is_that_of_the_state_that_follows(belief, options):
    now = after(belief, (CHEAP, NEW), (OTHER, NEW), options=options)
    ahead = foresee(belief, now)
    for outcome in (0, 1, NEW, NONE):
        if ahead.chance[0, STRONG, outcome] == 0:  # every option was given
            assert (options, outcome) == (2.0, NEW)
            continue
        then = follow(belief, now, np.array([STRONG]), np.array([outcome]))
        assert then.stop[0] == pytest.approx(ahead.stop[0, STRONG, outcome], abs=1e-4)
        group = {NEW: 2, NONE: -1}.get(outcome, outcome)
        best = int(then.chances[0, :-1].argmax())
        assert ahead.own[0, STRONG, outcome] == (best == group)


@pytest.mark.parametrize("seen", [(), ((CHEAP, NEW),), ((CHEAP, NEW), (OTHER, NEW))])
def test_on_average_an_answer_does_not_change_the_belief(belief, seen):
    now = after(belief, *seen, options=6.0)
    ahead = foresee(belief, now)
    count = int(now.count[0])
    outcomes = [*range(count), NEW, NONE]
    mean = np.zeros(MOST_CALLS + 1)
    for outcome in outcomes:
        then = follow(belief, now, np.array([STRONG]), np.array([outcome]))
        mean += ahead.chance[0, STRONG, outcome] * then.chances[0]
    np.testing.assert_allclose(mean[:count], now.chances[0, :count], atol=1e-5)


def test_a_call_is_worth_its_price_or_not(belief):
    now = after(belief, (CHEAP, NEW))
    values = Planner(belief, ALL).plan(now, np.array([3]))[0]
    assert values[STRONG] > now.stop[0] + 0.02
    assert values[TWIN] < values[OTHER]
    dear = after(belief, (CHEAP, NEW), price=0.5)
    assert (Planner(belief, ALL).plan(dear, np.array([3]))[0] < dear.stop[0]).all()
    assert np.isinf(Planner(belief, ALL).plan(now, np.array([0]))).all()


def test_a_deeper_search_never_values_a_call_less(belief):
    now = after(belief, (CHEAP, NEW), (OTHER, NEW), price=0.01)
    found = [Planner(belief, ALL, depth).plan(now, np.array([4]))[0] for depth in (1, 2, 3)]
    assert (found[1] >= found[0] - 1e-6).all()
    assert (found[2] >= found[1] - 1e-6).all()


def test_situations_are_valued_alone_as_together(belief):
    answers = ((CHEAP, NEW), (OTHER, NEW)), ((CHEAP, NEW), (OTHER, 0))
    parts = [after(belief, *one, price=0.02) for one in answers]
    parts[1] = replace(parts[1], weights=_with_groups(parts[1].weights, 2))
    columns = {key: [getattr(one, key) for one in parts] for key in vars(parts[0])}
    both = replace(parts[0], **{key: np.concatenate(value) for key, value in columns.items()})
    left = np.array([3, 2])
    values = Planner(belief, ALL).plan(both, left)
    for row, part in enumerate(parts):
        alone = Planner(belief, ALL).plan(part, left[[row]])[0]
        np.testing.assert_allclose(alone, values[row], atol=1e-6)


def test_an_artifact_holds_the_belief(belief):
    again = type(belief).from_arrays(belief.to_arrays())
    found = [foresee(one, after(one)).value.tolist() for one in (again, belief)]
    assert found[0] == found[1]


def test_possible_answers_are_the_options(data):
    assert possible_answers([data.queries[0], "How many?"]).tolist() == [4.0, 30.0]
