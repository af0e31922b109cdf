"""Metrics of cascades, worked by hand."""

from __future__ import annotations

import numpy as np
import pytest

from waypost.metrics.behaviour import delta_ibc, escalation

SMALL, LARGE = (0.4, 1.0), (0.8, 5.0)


def test_half_the_gain_for_a_quarter_of_the_money_is_twice_the_slope():
    assert delta_ibc(0.6, 2.0, SMALL, LARGE) == pytest.approx(100.0)


def test_on_the_line_is_zero_and_below_is_negative():
    assert delta_ibc(0.6, 3.0, SMALL, LARGE) == pytest.approx(0.0)
    assert delta_ibc(0.5, 3.0, SMALL, LARGE) == pytest.approx(-50.0)
    assert delta_ibc(0.3, 2.0, SMALL, LARGE) == pytest.approx(-200.0)


def test_no_dearer_than_the_small_model_dominates_it_or_is_not_comparable():
    assert delta_ibc(0.4, 1.0, SMALL, LARGE) == "dominates"
    assert delta_ibc(0.4, sum([0.1] * 10), (0.4, 0.9999999999999999), LARGE) == "dominates"
    assert delta_ibc(0.39, 1.0, SMALL, LARGE) == "n/a"


@pytest.mark.parametrize("large", [(0.4, 5.0), (0.3, 5.0), (0.8, 1.0)])
def test_without_a_rising_line_there_is_nothing_to_compare_with(large):
    assert delta_ibc(0.9, 2.0, SMALL, large) == "n/a"


def test_who_goes_on_and_who_should_have():
    quality = np.array([[1, 1], [0, 1], [1, 0], [0, 0], [np.nan, 1], [1, 1]])
    first, last = np.array([0, 0, 0, 0, 0, -1]), np.array([0, 0, 1, 1, 1, 1])
    # Two of five keep the first answer, one of them wrong; of three that go on, one had been
    # right, one wrong, one was not measured. The last was asked of nobody in the data.
    assert escalation(quality, first, last) == {
        "escalated": 0.6, "kept_wrong": 0.5, "left_right": 0.5,
    }  # fmt: skip


def test_a_cascade_that_never_goes_on_leaves_nothing():
    found = escalation(np.array([[1.0, 0.0]]), np.array([0]), np.array([0]))
    assert (found["escalated"], found["kept_wrong"]) == (0, 0)
    assert np.isnan(found["left_right"])
