import numpy as np
import pytest

from waypost.metrics.behaviour import (
    collapse_index,
    cost_rises,
    picks_best,
    solver_recall,
    usage_entropy,
    usage_shares,
)


def test_shares_leave_out_what_is_no_llm_of_the_data():
    assert usage_shares(np.array([0, 0, 2, -1]), 3) == pytest.approx([2 / 3, 0, 1 / 3])
    assert np.isnan(usage_shares(np.array([-1]), 2)).all()


def test_entropy_by_hand():
    assert usage_entropy(np.array([0.5, 0.5, 0, 0])) == pytest.approx(0.5)
    assert usage_entropy(np.array([0.25] * 4)) == pytest.approx(1)
    assert usage_entropy(np.array([1.0, 0])) == 0
    assert np.isnan(usage_entropy(np.array([1.0])))


def test_collapse_is_the_largest_share_above_the_oracles():
    assert collapse_index(np.array([0.9, 0.1]), np.array([0.4, 0.6])) == pytest.approx(0.3)


def test_rises_of_cost_are_counted():
    assert cost_rises(np.array([3, 2, 2, 2.5, 1])) == 1
    assert cost_rises(np.array([3.0, 3.0, 1.0])) == 0


def test_recall_by_how_many_solve_a_question():
    quality = np.array([[1, 0, 0], [0, 0.5, 0.9], [1, 1, 1], [0, 0, 0], [0, 1, np.nan]])
    found = solver_recall(quality, np.array([0, 0, 2, 1, 2]))
    assert found["1"] == {"queries": 1, "recall": 1.0}  # the last choice was not measured
    assert found["2"] == {"queries": 1, "recall": 0.0}
    assert found["3-5"] == {"queries": 1, "recall": 1.0}
    assert found["6+"]["queries"] == 0
    assert np.isnan(found["6+"]["recall"])


def test_a_choice_among_equals_is_one_of_the_best():
    quality = np.array([[1, 1, 0], [0.4, 0.9, np.nan], [0, 0, 0], [1, 0, 0], [1, np.nan, 0]])
    # Right, wrong, right (all equal), not of the data, not measured.
    assert picks_best(quality, np.array([1, 0, 2, -1, 1])) == pytest.approx(2 / 3)
    assert np.isnan(picks_best(quality, np.full(5, -1)))
