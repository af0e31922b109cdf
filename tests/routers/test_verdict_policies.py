"""Families of verdict policies, against values computed by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from waypost_routers._cascade.chains import FAMILIES, Evidence, greedy

# Two verdicts; by number of supporting ones 3, 3 and 4 rows.

ROWS = Evidence(
    count=np.array([0, 0, 0, 1, 1, 1, 2, 2, 2, 2]),
    own=np.array([0, 0, 0, 0, 0, 1, 1, 1, 1, 0], float),
    next=np.array([0, 0, 0, 1, 1, 1, 1, 1, 0, 1], float),
    price=np.full(10, 0.25),
    verdicts=2,
)


def test_the_net_of_each_number_of_verdicts():
    # 0: nothing gained for 3 * .25; 1: two gained for .75; 2: +1 - 1 for 1.
    np.testing.assert_allclose(ROWS.by_count(ROWS.net), [-0.75, 1.25, -1.0])


@pytest.mark.parametrize(
    ("family", "actions"),
    [
        ("threshold", [1, 1, 0]),  # -.75 + 1.25 = .5 is the best sum from 0 on
        ("double_threshold", [0, 1, 0]),  # 1.25 alone
        ("self_consistency", [1, 1, 0]),  # at most half
        ("greedy", [0, 1, 0]),
        # Classes: hopeless 3 rows, net -.25; needy 3, net .75; good 4, net -1/4 - .25 = -.5.
        # Their counts, one added: [4 1 1]/6, [1 3 2]/6, [1 2 4]/7.
        # 0: .3*4/6*-.25 + .3*1/6*.75 + .4*1/7*-.5 = -.0411; 1: -.0125 + .1125 - .0571 = .0429;
        # 2: -.0125 + .075 - .1143 = -.0518.
        ("pomdp", [0, 1, 0]),
    ],
)
def test_families_by_hand(family, actions):
    assert FAMILIES[family](ROWS).tolist() == actions


def test_greedy_shrinks_a_number_seldom_seen_towards_the_mean_of_all():
    rows = Evidence(
        count=np.array([0, 1, 1, 1, 1]),
        own=np.array([1.0, 0, 0, 0, 0]),
        next=np.array([0.9, 1, 1, 1, 1]),
        price=np.zeros(5),
        verdicts=1,
    )
    # mean net .78; the one row with 0 verdicts has net -.1: (-.1 + 4 * .78) / 5 > 0
    assert greedy(rows).tolist() == [1, 1]
    assert greedy(rows, kappa=0.1).tolist() == [0, 1]


@pytest.mark.parametrize("family", ["threshold", "double_threshold", "greedy", "pomdp"])
def test_where_passing_on_only_costs_nothing_is_passed_on(family):
    rows = replace(ROWS, price=np.full(10, 2.0))
    assert FAMILIES[family](rows).tolist() == [0, 0, 0]
