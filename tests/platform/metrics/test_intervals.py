import numpy as np
import pytest

from waypost.metrics.intervals import Bootstrap, interval, nested


def test_draws_are_seeded():
    scores = np.random.default_rng(1).uniform(size=(30, 2))
    one = Bootstrap(30, 500, seed=3).means(scores)
    assert one.shape == (500, 2)
    assert np.array_equal(one, Bootstrap(30, 500, seed=3).means(scores))
    assert not np.array_equal(one, Bootstrap(30, 500, seed=4).means(scores))


def test_a_draw_is_of_the_same_queries_for_every_column_and_call():
    scores = np.random.default_rng(1).uniform(size=40)
    boot = Bootstrap(40, 300)
    assert boot.means(np.column_stack([scores, scores + 1]))[:, 1] == pytest.approx(
        boot.means(scores)[:, 0] + 1
    )
    assert np.array_equal(boot.means(scores, 100), boot.means(scores)[:100])


def test_draws_too_many_to_keep_are_the_same(monkeypatch):
    scores = np.random.default_rng(1).uniform(size=50)
    kept = Bootstrap(50, 200).means(scores)
    monkeypatch.setattr("waypost.metrics.intervals._KEEP_BYTES", 0)
    assert np.array_equal(Bootstrap(50, 200).means(scores), kept)


def test_the_interval_of_a_share_is_the_binomial_one():
    scores = np.r_[np.ones(60), np.zeros(140)]
    low, high = interval(Bootstrap(200, 10_000).means(scores)[:, 0])
    error = np.sqrt(0.3 * 0.7 / 200)
    assert (low, high) == pytest.approx((0.3 - 1.96 * error, 0.3 + 1.96 * error), abs=0.006)


def test_unknown_values_are_left_out_and_not_zero():
    drawn = Bootstrap(4, 200).means(np.column_stack([[1, 1, np.nan, 1], [np.nan] * 4]))
    known = drawn[:, 0][~np.isnan(drawn[:, 0])]
    assert np.all(known == 1)
    assert len(known) > 190
    assert np.isnan(drawn[:, 1]).all()


def test_one_query_has_an_interval_of_no_width():
    assert interval(Bootstrap(1, 50).means([0.4])[:, 0]) == pytest.approx((0.4, 0.4))


def test_an_interval_by_hand():
    assert interval(np.arange(101.0), level=0.9) == pytest.approx((5.0, 95.0))
    assert np.isnan(interval([0.1, np.nan])).all()


def test_draws_of_a_pool_weigh_a_query_alike_in_every_split():
    scores = np.random.default_rng(1).uniform(size=30)
    first, rest = np.arange(10), np.arange(10, 30)
    whole = Bootstrap(30, 300).means(scores)[:, 0]
    one, two = (Bootstrap(30, 300, rows=rows).means(scores[rows])[:, 0] for rows in (first, rest))
    weight = Bootstrap(30, 300).means(np.isin(np.arange(30), first))[:, 0]
    assert weight * one + (1 - weight) * two == pytest.approx(whole)


def test_nested_draws_resample_seeds_and_queries():
    # Two seeds without any spread of their own: a mean of two picks is 0, 1/2 or 1.
    drawn = nested([np.zeros(4000), np.ones(4000)])
    values, counts = np.unique(drawn, return_counts=True)
    assert values.tolist() == [0, 0.5, 1]
    assert counts / 4000 == pytest.approx([0.25, 0.5, 0.25], abs=0.03)
    # The same queries in each of two seeds are no more queries than in one.
    own = np.random.default_rng(0).normal(size=4000)
    assert np.array_equal(nested([own, own]), own)
    # Queries of their own in each are.
    other = np.random.default_rng(1).normal(size=4000)
    assert np.std(nested([own, other])) == pytest.approx(np.sqrt(0.75), abs=0.05)


def test_near_duplicates_are_drawn_together():
    scores = np.random.default_rng(1).uniform(size=30)
    alone = Bootstrap(30, 400, seed=3).means(scores)
    twice = Bootstrap.of_groups(np.repeat(np.arange(30), 2), 400, 3).means(np.repeat(scores, 2))
    assert twice == pytest.approx(alone)  # each query twice tells nothing new
    single = Bootstrap.of_groups(np.arange(30), 400, 3)
    assert np.array_equal(single.means(scores), alone)
    some = Bootstrap.of_groups(np.array([0, 0, 1]), 400)
    assert set(some.statistic(lambda w: w[:, 0] - w[:, 1])) == {0.0}
    assert set(some.statistic(lambda w: w[:, 1] + w[:, 2])) == {2.0}
    part = Bootstrap.of_groups(np.array([0, 0, 1]), 400, rows=np.array([2]))
    assert set(part.statistic(lambda w: w[:, 0])) == {0.0, 1.0, 2.0}
