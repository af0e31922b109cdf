import math

import numpy as np
import pytest

from waypost.metrics.curves import Singles, best_within, cheapest_reaching, hull

COST = [5.0, 1.0, 3.0, 2.0, 4.0]
QUALITY = [0.7, 0.2, 0.5, 0.6, 0.7]


def corners(found, row=0):
    points = zip(found.cost[row].tolist(), found.quality[row].tolist(), strict=True)
    return list(dict.fromkeys(points))


def test_the_hull_keeps_what_mixing_cannot_reach():
    assert corners(hull(COST, QUALITY)) == [(1.0, 0.2), (2.0, 0.6), (4.0, 0.7)]


def test_points_on_a_line_are_no_corners():
    assert corners(hull([1, 2, 3], [0.25, 0.5, 0.75])) == [(1.0, 0.25), (3.0, 0.75)]


def test_of_equal_costs_the_better_counts():
    assert corners(hull([1, 1, 2], [0.1, 0.4, 0.4])) == [(1.0, 0.4)]


def test_a_point_with_nan_is_none():
    assert corners(hull([1, np.nan, 3], [0.1, 0.9, 0.3])) == [(1.0, 0.1), (3.0, 0.3)]
    assert np.isnan(hull([np.nan], [0.5]).cost).all()


def test_many_curves_at_once_are_each_as_alone():
    draw = np.random.default_rng(0)
    cost, quality = draw.uniform(1, 2, (50, 20)), draw.uniform(0, 1, (50, 20))
    quality[::7, 3] = np.nan
    together = hull(cost, quality)
    for row in range(50):
        assert corners(together, row) == corners(hull(cost[row], quality[row]))


@pytest.mark.parametrize("seed", range(5))
def test_the_hull_is_the_best_mix_of_two_points(seed):
    draw = np.random.default_rng(seed)
    cost, quality = draw.uniform(1, 2, 12), draw.uniform(0, 1, 12)
    at = float(np.quantile(cost, 0.6))
    mixes = [quality[i] for i in range(12) if cost[i] <= at]
    for i in range(12):
        for j in range(12):
            if cost[i] < at < cost[j]:
                share = (at - cost[i]) / (cost[j] - cost[i])
                mixes.append((1 - share) * quality[i] + share * quality[j])
    assert hull(cost, quality).at(at)[0] == pytest.approx(max(mixes))


def test_height_at_a_cost():
    found = hull(COST, QUALITY)
    assert found.at(1.5)[0] == pytest.approx(0.4)
    assert found.at(3)[0] == pytest.approx(0.65)
    assert found.at(9)[0] == pytest.approx(0.7)
    assert np.isnan(found.at(0.9)[0])


def test_area_by_hand():
    # 1 to 2: mean .4; 2 to 4: mean .65; 4 to 5: .7.
    found = hull(COST, QUALITY)
    assert found.area(1, 5)[0] == pytest.approx((0.4 + 2 * 0.65 + 0.7) / 4)
    assert found.area(3, 4)[0] == pytest.approx((0.65 + 0.7) / 2)
    assert found.area(6, 8)[0] == pytest.approx(0.7)
    assert np.isnan(found.area(0.5, 5)[0])
    assert np.isnan(found.area(5, 5)[0])


def test_area_over_log_cost_by_hand():
    # From (1, 0) to (e, e - 1) the height is x - 1; its mean over log x is e - 2.
    assert hull([1, math.e], [0, math.e - 1]).area(1, math.e, log=True)[0] == pytest.approx(
        math.e - 2
    )
    assert hull([1], [0.3]).area(1, 100, log=True)[0] == pytest.approx(0.3)
    assert np.isnan(hull([0, 1], [0.1, 0.3]).area(0, 1, log=True)[0])


def test_aiq_starts_at_the_cheapest_single_and_ends_at_the_dearest():
    singles = Singles(np.array([[1.0, 5.0, 2.0]]), np.array([[0.2, 0.6, 0.1]]))
    assert singles.aiq([3.0], [0.6])[0] == pytest.approx((2 * 0.4 + 2 * 0.6) / 4)
    # Zero router: from (1, .2) to (5, .6).
    assert singles.aiq(singles.cost, singles.quality)[0] == pytest.approx(0.4)
    # What is cheaper than every single LLM counts from the interval's start on.
    assert singles.aiq([0.5], [0.6])[0] == pytest.approx(0.6)


def test_aiq_without_costs_or_with_one_cost_is_unknown():
    nowhere = Singles(np.array([[np.nan, np.nan]]), np.array([[0.2, 0.6]]))
    assert np.isnan(nowhere.aiq([np.nan], [0.5])[0])
    alone = Singles(np.array([[2.0]]), np.array([[0.6]]))
    assert np.isnan(alone.aiq([2.0], [0.6])[0])


def test_matched_numbers():
    assert cheapest_reaching(COST, QUALITY, 0.6) == 2.0
    assert np.isnan(cheapest_reaching(COST, QUALITY, 0.71))
    assert best_within(COST, QUALITY, 3.0) == 0.6
    assert np.isnan(best_within(COST, QUALITY, 0.9))
