import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from waypost.contracts.errors import BudgetError, EmptyPoolError, PolicyError, SchemaError
from waypost.contracts.policy import EPSILON, PolicySettings, explore, rank

NAMES = ("a", "b", "c", "d", "e", "f")
scores = st.integers(0, 20).map(lambda n: n / 20) | st.floats(0, 1)
dollars = st.integers(0, 20).map(lambda n: n / 1000) | st.floats(0, 10)
lambdas = st.floats(0, 1e6) | st.sampled_from([0.0, 1.0, math.inf])


@st.composite
def pools(draw, min_size=1, unknown_costs=False):
    n = draw(st.integers(min_size, len(NAMES)))
    cost = dollars | st.just(math.nan) if unknown_costs else dollars
    quality = draw(st.lists(scores, min_size=n, max_size=n))
    costs = draw(st.lists(cost, min_size=n, max_size=n))
    return np.array(quality), np.array(costs), NAMES[:n]


def order_of(quality, cost, names, **options):
    return [int(j) for j in rank(quality, cost, names, **options)[0] if j >= 0]


# -- properties -----------------------------------------------------------------------------


@given(pools(), st.lists(lambdas, min_size=2, max_size=6), st.floats(1e-3, 10))
def test_lambda_up_never_raises_the_cost_of_the_choice(pool, lams, cost_ref):
    quality, cost, names = pool
    chosen = [order_of(quality, cost, names, lam=lam, cost_ref=cost_ref)[0] for lam in sorted(lams)]
    costs = [cost[j] for j in chosen]
    assert costs == sorted(costs, reverse=True)


@given(pools(min_size=2), st.integers(-3, 3), st.floats(0, 5), st.floats(0, 5))
def test_lambda_up_never_raises_the_cost_among_near_ties(pool, steps, one, two):
    quality, cost, names = pool
    quality = 0.5 + (quality * 10).round() * EPSILON / 4 + steps * EPSILON
    low, high = sorted((one, two))
    first = order_of(quality, cost, names, lam=low * EPSILON)[0]
    second = order_of(quality, cost, names, lam=high * EPSILON)[0]
    assert cost[second] <= cost[first]


@given(pools(unknown_costs=True), lambdas, st.randoms())
def test_permuting_the_pool_permutes_the_order_and_nothing_else(pool, lam, random):
    quality, cost, names = pool
    columns = list(range(len(names)))
    random.shuffle(columns)
    before = [names[j] for j in order_of(quality, cost, names, lam=lam)]
    shuffled = [names[j] for j in columns]
    after = order_of(quality[columns], cost[columns], shuffled, lam=lam)
    assert [shuffled[j] for j in after] == before


@given(pools(min_size=2, unknown_costs=True), lambdas)
def test_ranking_without_its_first_is_the_ranking_of_the_rest(pool, lam):
    quality, cost, names = pool
    # An unknown cost counts as the highest known one of the row, allowed or not, so leaving
    # a model out changes no other model's cost.
    order = order_of(quality, cost, names, lam=lam)
    allowed = np.ones(len(names), bool)
    allowed[order[0]] = False
    assert order_of(quality, cost, names, lam=lam, allowed=allowed) == order[1:]


@given(pools(), lambdas)
def test_infinite_lambda_takes_the_cheapest_and_zero_the_best(pool, lam):
    quality, cost, names = pool
    assert cost[order_of(quality, cost, names, lam=math.inf)[0]] == cost.min()
    best = order_of(quality, cost, names, lam=0)[0]
    assert quality[best] >= quality.max() - EPSILON


@given(pools(unknown_costs=True), st.data())
def test_the_choice_is_always_allowed(pool, data):
    quality, cost, names = pool
    allowed = np.array(data.draw(st.lists(st.booleans(), min_size=len(names), max_size=len(names))))
    assume(allowed.any())
    order = order_of(quality, cost, names, allowed=allowed)
    assert sorted(order) == np.flatnonzero(allowed).tolist()


@given(pools(unknown_costs=True), dollars)
def test_no_choice_is_over_the_budget(pool, limit):
    quality, cost, names = pool
    if not (cost <= limit).any():
        with pytest.raises(BudgetError):
            rank(quality, cost, names, max_cost_usd=limit)
        return
    order = order_of(quality, cost, names, max_cost_usd=limit)
    assert sorted(order) == np.flatnonzero(cost <= limit).tolist()


@given(pools(min_size=2), lambdas)
def test_a_query_is_ranked_the_same_alone_and_in_a_batch(pool, lam):
    quality, cost, names = pool
    batch = rank(np.stack([quality, quality[::-1]]), np.stack([cost, cost[::-1]]), names, lam=lam)
    assert batch[0].tolist() == order_of(quality, cost, names, lam=lam)
    assert batch[1].tolist() == order_of(quality[::-1], cost[::-1], names, lam=lam)


# -- by hand --------------------------------------------------------------------------------


def test_utility_by_hand():
    # cost_ref 0.01, lambda 0.5: 0.9 - .5 = .4;  0.7 - .1 = .6;  0.5 - .01 = .49
    order = order_of([0.9, 0.7, 0.5], [0.01, 0.002, 0.0002], "abc", lam=0.5, cost_ref=0.01)
    assert order == [1, 2, 0]


def test_each_query_has_its_own_lambda():
    order = rank([[0.9, 0.7]] * 2, [[1.0, 0.1]] * 2, "ab", lam=[0.0, 1.0])
    assert order.tolist() == [[0, 1], [1, 0]]


def test_ties_go_to_the_cheaper_then_to_the_lower_name():
    assert order_of([0.5, 0.5, 0.5], [2.0, 1.0, 1.0], "xzy") == [2, 1, 0]


def test_near_ties_within_epsilon_count_as_ties():
    assert order_of([0.5 + EPSILON / 2, 0.5], [2.0, 1.0], "ab") == [1, 0]
    assert order_of([0.5 + EPSILON * 2, 0.5], [2.0, 1.0], "ab") == [0, 1]


def test_a_chain_of_near_ties_is_judged_from_the_best_left():
    # c ties with b and b with a, but c does not tie with a: b is cheapest of {a, b}, then a
    # stands alone before c.
    quality = [0.5 + 1.6 * EPSILON, 0.5 + 0.8 * EPSILON, 0.5]
    assert order_of(quality, [3.0, 2.0, 1.0], "abc") == [1, 0, 2]


def test_an_unknown_cost_counts_as_the_highest_known():
    quality, cost = [0.6, 0.5, 0.4], [math.nan, 1.0, 3.0]
    assert order_of(quality, cost, "abc", lam=1, cost_ref=10) == [1, 0, 2]  # .3, .4, .1


def test_all_costs_unknown_leaves_quality_alone():
    assert order_of([0.4, 0.6], [math.nan] * 2, "ab", lam=5, cost_ref=math.nan) == [1, 0]


def test_an_unknown_cost_fits_no_budget():
    assert order_of([0.9, 0.1], [math.nan, 1.0], "ab", max_cost_usd=2.0) == [1]


def test_a_nan_budget_is_no_limit():
    order = rank([[0.9, 0.1]] * 2, [[5.0, 1.0]] * 2, "ab", max_cost_usd=[math.nan, 2.0])
    assert order.tolist() == [[0, 1], [1, -1]]


def test_budget_error_says_what_the_cheapest_would_cost():
    with pytest.raises(BudgetError, match=r"cheapest is predicted at 0\.002 USD"):
        rank([0.9, 0.1], [0.01, 0.002], "ab", max_cost_usd=0.001)


def test_a_huge_lambda_orders_by_cost():
    assert order_of([0.9, 0.1], [1.0, 0.0], "ab", lam=1e308, cost_ref=1e-3) == [1, 0]


def test_one_model_is_its_own_ranking():
    assert order_of([0.0], [math.nan], "a", lam=7) == [0]


def test_an_empty_pool_is_a_typed_error():
    with pytest.raises(EmptyPoolError, match="pool is empty"):
        rank(np.empty((1, 0)), np.empty((1, 0)), ())
    with pytest.raises(EmptyPoolError, match="none of the allowed"):
        rank([0.5, 0.5], [1, 1], "ab", allowed=[False, False])


def test_shapes_and_values_are_checked():
    with pytest.raises(SchemaError, match="differ"):
        rank([0.5, 0.5], [1.0], "ab")
    with pytest.raises(SchemaError, match="finite"):
        rank([0.5, math.nan], [1.0, 1.0], "ab")
    with pytest.raises(PolicyError, match="lambda"):
        rank([0.5, 0.4], [1.0, 1.0], "ab", lam=-1)
    with pytest.raises(PolicyError, match="lambda"):
        rank([0.5, 0.4], [1.0, 1.0], "ab", lam=math.nan)


@pytest.mark.parametrize(
    "wrong", [{"lam": -1}, {"lam": math.nan}, {"exploration": 1.5}, {"max_cost_usd": -1}]
)
def test_settings_are_checked(wrong):
    with pytest.raises(PolicyError, match="policy"):
        PolicySettings(**wrong)


# -- exploration ----------------------------------------------------------------------------

KEYS = [f"key {i}" for i in range(4000)]


def explored(rate, seed=0, row=(2, 0, 1, -1)):
    order = np.array([row] * len(KEYS), dtype=np.intp)
    return explore(order, "abcd", KEYS, rate, seed)


def test_no_rate_changes_nothing():
    order, propensity, drawn = explored(0)
    assert (order == [2, 0, 1, -1]).all()
    assert (propensity == 1).all()
    assert not drawn.any()


@pytest.mark.parametrize("rate", [0.3, 1.0])
def test_propensities_sum_to_one_and_match_the_frequencies(rate):
    order, propensity, _ = explored(rate)
    stated = {int(first): float(p) for first, p in zip(order[:, 0], propensity, strict=True)}
    assert stated == pytest.approx({2: 1 - rate + rate / 3, 0: rate / 3, 1: rate / 3})
    assert sum(stated.values()) == pytest.approx(1)
    counts = Counter(order[:, 0].tolist())
    for model, p in stated.items():
        assert abs(counts[model] / 4000 - p) < 4 * math.sqrt(p * (1 - p) / 4000)


def test_the_drawn_model_is_put_before_the_others():
    order, _, drawn = explored(1.0)
    assert drawn.all()
    for row in order[:50]:
        rest = [j for j in (2, 0, 1) if j != row[0]]
        assert row.tolist() == [row[0], *rest, -1]


def test_a_draw_depends_on_seed_and_key_only():
    order, *_ = explored(0.5)
    again, *_ = explore(np.array([[2, 0, 1, -1]]), "abcd", [KEYS[7]], 0.5, 0)
    assert again[0].tolist() == order[7].tolist()
    assert (explored(0.5, seed=1)[0] != order).any()


def test_a_draw_does_not_depend_on_the_order_of_the_pool():
    one, *_ = explore(np.array([[0, 1, 2]] * 50), "abc", KEYS[:50], 1.0, 0)
    two, *_ = explore(np.array([[2, 1, 0]] * 50), "cba", KEYS[:50], 1.0, 0)
    assert ["abc"[j] for j in one[:, 0]] == ["cba"[j] for j in two[:, 0]]


def test_a_key_that_is_no_valid_unicode_draws_too():
    explore(np.array([[0, 1]]), "ab", ["\ud800"], 1.0, 0)
