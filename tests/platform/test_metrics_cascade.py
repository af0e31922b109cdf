"""Metrics of cascades, worked by hand."""

from __future__ import annotations

import pytest

from waypost.metrics.cascade import delta_ibc

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
