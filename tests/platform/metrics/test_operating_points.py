"""Operating points: which lambda a share, a sum of dollars, a loss or a name stands for."""

from __future__ import annotations

import json

import numpy as np
import pytest

from waypost.contracts.errors import PolicyError
from waypost.metrics.operating_points import Curve, Point, curve_of, read_curve

POINTS = (
    Point(0.0, 0.80, 10e-3, 1.0),
    Point(0.1, 0.80, 8e-3, 0.7),
    Point(0.3, 0.78, 6e-3, 0.5),
    Point(1.0, 0.70, 3e-3, 0.2),
    Point(9.0, 0.60, 1e-3, 0.0),
)
CURVE = Curve("by hand", 100, "strong", 0.79, 10e-3, POINTS)


def test_a_share_gives_the_nearest_point():
    assert CURVE.with_share(0.55).lam == 0.3
    assert CURVE.with_share(1).lam == 0.0
    assert CURVE.with_share(0).lam == 9.0


def test_dollars_give_the_least_lambda_that_keeps_them():
    assert CURVE.within_usd(8e-3).lam == 0.1
    assert CURVE.within_usd(7e-3).lam == 0.3
    with pytest.raises(PolicyError, match=r"at most 0.5 USD per 1,000 .* cheapest choices cost 1"):
        CURVE.within_usd(0.5e-3)


def test_a_loss_is_against_the_strong_llm_alone():
    assert CURVE.within_loss(0).lam == 0.1
    assert CURVE.within_loss(0.01).lam == 0.3
    assert CURVE.within_loss(0.2).lam == 9.0
    worse = Curve("by hand", 100, "strong", 0.9, None, POINTS)
    with pytest.raises(PolicyError, match=r"loses 0.1000 against strong at lambda 0"):
        worse.within_loss(0.05)


def test_the_scale_stops_at_the_first_point_that_loses_too_much():
    dip = (POINTS[0], Point(0.1, 0.5, 8e-3, 0.7), Point(0.3, 0.8, 6e-3, 0.5))
    assert Curve("by hand", 100, "strong", 0.8, 1e-2, dip).within_loss(0.01).lam == 0.0


def test_names_recover_shares_of_the_gap_between_cost_alone_and_lambda_0():
    lambdas = {name: point.lam for name, point in CURVE.named().items()}
    # half of .2 is .70; four fifths are .76
    assert lambdas == {"cheap": 1.0, "balanced": 0.3, "best": 0.1}


def test_where_the_cheapest_is_no_worse_every_name_is_the_cheapest():
    flat = tuple(Point(p.lam, 0.8, p.cost_usd, p.strong_share) for p in POINTS)
    named = Curve("by hand", 100, "strong", 0.8, 1e-2, flat).named()
    assert {point.lam for point in named.values()} == {9.0}


def test_without_costs_dollars_choose_nothing():
    points = tuple(Point(p.lam, p.quality, None, p.strong_share) for p in POINTS)
    with pytest.raises(PolicyError, match="no costs"):
        Curve("by hand", 100, "strong", 0.8, None, points).within_usd(1.0)


def test_a_curve_is_kept_as_json():
    data = json.loads(json.dumps({"curve": CURVE.to_dict()}))
    assert read_curve(data) == CURVE
    assert read_curve({"curve": None}) is None
    assert read_curve({}) is None


def test_points_are_means_over_the_same_questions():
    nan = np.nan
    quality = np.array([[1.0, 0.0], [1.0, nan], [0.0, 0.5]])
    usd = np.array([[4.0, 1.0], [4.0, 1.0], [2.0, 1.0]])
    strong = np.array([[True, False], [True, False], [False, False]])
    single = np.array([1.0, 1.0, 0.0])
    curve = curve_of("by hand", "s", (0.0, 1.0), quality, usd, strong, single, 4 * np.ones(3))
    assert curve.queries == 2  # the second has no score at lambda 1
    assert curve.points == (Point(0.0, 0.5, 3.0, 0.5), Point(1.0, 0.25, 1.0, 0.0))
    assert (curve.strong_quality, curve.strong_cost_usd) == (0.5, 4.0)


def test_of_equal_points_the_ends_are_kept():
    n, lambdas = 2, (0.0, 0.1, 0.2, 0.3, 1.0)
    quality = np.repeat([[1.0, 1.0, 1.0, 1.0, 0.0]], n, axis=0)
    none = np.zeros((n, 5), bool)
    curve = curve_of("by hand", "s", lambdas, quality, quality, none, np.ones(n), np.ones(n))
    assert [point.lam for point in curve.points] == [0.0, 0.3, 1.0]


def test_one_lambda_or_no_score_is_no_curve():
    one, flags = np.ones((2, 1)), np.ones((2, 1), bool)
    assert curve_of("by hand", "s", (0.0,), one, one, flags, one[:, 0], one[:, 0]) is None
    two, nan = np.full((2, 2), np.nan), np.full(2, np.nan)
    assert curve_of("by hand", "s", (0.0, 1.0), two, two, two == 0, nan, nan) is None
