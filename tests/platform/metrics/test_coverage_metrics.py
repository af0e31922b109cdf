import numpy as np
import pytest

from waypost.metrics.intervals import Bootstrap
from waypost.metrics.predictions import Coverage

GAIN = np.array([1.0, 0.0, -1.0, 1.0])
VALUE = np.array([0.9, 0.6, 0.1, 0.8])


def test_by_hand():
    found = Coverage.of(GAIN, VALUE)
    assert list(found.rows) == [0, 3, 1, 2]
    coverage, gain = found.curve()
    assert coverage == pytest.approx([0, 0.25, 0.5, 0.75, 1])
    assert gain == pytest.approx([0, 0.25, 0.5, 0.5, 0.25])
    assert found.means() == (pytest.approx([np.trapezoid(gain, coverage)]), [0.25])
    assert found.at([0.125, 0.6]) == pytest.approx([0.125, 0.5])


def test_equals_enter_together_as_at_random():
    constant = Coverage.of(GAIN, np.zeros(4))
    assert constant.curve()[0] == pytest.approx([0, 1])
    assert constant.means() == ([0.125], [0.25])
    two = Coverage.of(GAIN, np.array([1.0, 1, 0, 0]))
    # Up to (.5, .25) and flat from there.
    assert two.means() == (pytest.approx([0.5 * 0.125 + 0.5 * 0.25]), [0.25])


def test_queries_without_gain_are_left_out_and_without_value_are_last():
    found = Coverage.of(np.array([1.0, np.nan, 2.0]), np.array([np.nan, 0.5, 0.5]))
    assert list(found.rows) == [2, 0]
    nothing = Coverage.of(np.full(2, np.nan), np.zeros(2))
    assert np.isnan(nothing.means()).all()


def test_a_query_drawn_twice_counts_as_two():
    weights = np.array([[2.0, 0, 1, 1], [1, 1, 1, 1]])
    order = Coverage.of(GAIN, VALUE)
    rows = [0, 0, 2, 3]
    again = Coverage.of(GAIN[rows], VALUE[rows])
    for drawn, twice, once in zip(order.means(weights), again.means(), order.means(), strict=True):
        assert drawn == pytest.approx([*twice, *once])


def test_the_least_coverage_that_reaches_a_gain():
    found = Coverage.of(GAIN, VALUE)
    assert found.first_reaching(0.375) == pytest.approx(0.375)
    assert found.first_reaching(0) == 0
    assert np.isnan(found.first_reaching(0.6))


def test_draws_of_a_number_that_is_no_mean():
    boot = Bootstrap(4, 50, seed=2)
    order = Coverage.of(GAIN, VALUE)
    area, mean = (lambda w, i=i: order.means(w)[i] for i in range(2))
    assert boot.statistic(mean) == pytest.approx(boot.means(GAIN)[:, 0])
    assert np.array_equal(boot.statistic(area, 20), boot.statistic(area)[:20])
