"""Estimators of another policy's value: by hand, and on logs where the value is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from waypost.bench._logged_world import draw_log, made_up_world
from waypost.bench.ope import estimates, judged
from waypost.metrics.off_policy import Logged, evaluate_policy, mean_of_arms
from waypost.metrics.reward_model import cross_fitted


def logged(actions, logging, rewards, clusters=None) -> Logged:
    rewards = np.asarray(rewards, float).reshape(len(actions), -1)
    clusters = np.arange(len(actions)) if clusters is None else np.asarray(clusters)
    return Logged(np.asarray(actions), np.asarray(logging, float), rewards, clusters)


def values(found, estimator: str) -> list[float]:
    return [one.value for one in found.values[estimator]]


def test_every_estimator_by_hand():
    rows = logged([0, 1, 0], [[0.5, 0.5], [0.8, 0.2], [1.0, 0.0]], [1.0, 0.5, 0.25])
    policy = np.array([[1.0, 0.0], [0.0, 1.0], [0.5, 0.5]])
    model = np.array([[0.5, 0.1], [0.2, 0.3], [0.5, 0.7]])[:, :, None]
    found = evaluate_policy(policy, rows, model, draws=100)
    # weights 1 / .5, 1 / .2, .5 / 1
    assert values(found, "dm") == pytest.approx([(0.5 + 0.3 + 0.6) / 3])
    assert values(found, "ips") == pytest.approx([(2 * 1.0 + 5 * 0.5 + 0.5 * 0.25) / 3])
    assert values(found, "snips") == pytest.approx([(2 * 1.0 + 5 * 0.5 + 0.5 * 0.25) / 7.5])
    corrected = 2 * (1.0 - 0.5) + 5 * (0.5 - 0.3) + 0.5 * (0.25 - 0.5)
    assert values(found, "dr") == pytest.approx([(1.4 + corrected) / 3])
    assert found.mean_weight == pytest.approx(2.5)
    assert found.effective_rows == pytest.approx(7.5**2 / (4 + 25 + 0.25))
    assert found.largest_weight == pytest.approx(5 / 7.5)
    assert found.without_support == pytest.approx(0.5 / 3)
    assert found.agreement == pytest.approx(2.5 / 3)


@given(
    st.lists(
        st.tuples(st.integers(0, 2), st.floats(0, 1), st.integers(0, 4)), min_size=2, max_size=30
    )
)
def test_the_policy_that_acted_without_exploration_has_exactly_the_logged_mean(rows):
    actions, rewards, clusters = (np.array(part) for part in zip(*rows, strict=True))
    _, clusters = np.unique(clusters, return_inverse=True)
    policy = np.eye(3)[actions]
    data = logged(actions, policy, rewards, clusters)
    model = cross_fitted(np.zeros((len(rows), 3, 1)), actions, rewards, clusters)[:, :, None]
    found = evaluate_policy(policy, data, model, draws=100)
    for estimator in ("ips", "snips", *(["dr"] if clusters.max() else [])):
        (value,) = found.values[estimator]
        (mean,) = found.logged
        assert value.value == pytest.approx(rewards.mean(), abs=1e-12)
        assert (value.low, value.high) == pytest.approx((mean.low, mean.high), abs=1e-12)
    assert (found.mean_weight, found.agreement, found.without_support) == (1, 1, 0)
    assert not [line for line in found.warnings if "exploration" in line or "propensities" in line]


def test_the_true_value_is_in_the_intervals_and_doubly_robust_errs_least():
    world = made_up_world()
    told = [
        estimates(draw_log(world, rows=600, users=60, exploration=0.2, seed=seed), 200)[0]
        for seed in range(40)
    ]
    found = {
        name: judged([one[name] for one in told], world.value, [True] * 40) for name in told[0]
    }
    # 36 of 40 are expected at .90; 32 or fewer have a probability of .04
    for name in ("doubly robust", "self-normalised", "IPS"):
        assert found[name]["coverage"] > 32 / 40, name
        assert abs(found[name]["bias"]) < 4 * found[name]["rmse"] / np.sqrt(40), name
    assert found["doubly robust"]["rmse"] < 0.85 * found["IPS"]["rmse"]


def test_rows_of_one_user_widen_the_interval():
    log = draw_log(made_up_world(), rows=600, users=12, exploration=0.2, taste=0.5)
    whole, by_row = (estimates(one, 300)[0]["doubly robust"] for one in (log, log.by_row()))
    assert whole[0] == pytest.approx(by_row[0], abs=0.1)
    assert whole[2] - whole[1] > 1.5 * (by_row[2] - by_row[1])


def told_of(policy, data: Logged) -> str:
    model = np.full((*policy.shape, 1), 0.5)
    return "; ".join(evaluate_policy(policy, data, model, draws=200).warnings)


def test_what_cannot_be_trusted_is_told():
    draw = np.random.default_rng(0)
    n = 400
    first, second = np.tile([1.0, 0.0], (n, 1)), np.tile([0.0, 1.0], (n, 1))
    rewards = draw.uniform(size=n)
    never = logged(np.zeros(n, int), first, rewards)
    assert told_of(first, never) == ""
    assert "no exploration, and this policy chooses another LLM with probability 100%" in told_of(
        second, never
    )
    chosen = (draw.uniform(size=n) < 0.2).astype(int)
    explored = logged(chosen, np.tile([0.8, 0.2], (n, 1)), rewards)
    assert told_of(second, explored) == ""
    wrong = logged(chosen, np.tile([0.5, 0.5], (n, 1)), rewards)
    assert "mean weight is 0.39 instead of 1" in told_of(second, wrong)
    half = np.vstack([np.tile([0.8, 0.2], (n // 2, 1)), first[n // 2 :]])
    partly = logged(np.where(np.arange(n) < n // 2, chosen, 0), half, rewards)
    assert "with probability 50% it chooses an LLM that could not be logged" in told_of(
        second, partly
    )
    few = replace(explored, clusters=np.arange(n) % 5)
    assert "5 users are too few" in told_of(second, few)
    one = logged([1, *[0] * 60], [[0.99, 0.01]] * 61, rewards[:61])
    told = told_of(np.tile([0.0, 1.0], (61, 1)), one)
    assert "it rests on 1 effective rows" in told
    assert "one row has 100% of all weight" in told


def test_few_users_or_rare_weights_do_not_accuse_the_propensities():
    draw = np.random.default_rng(0)
    chosen = (draw.uniform(size=60) < 0.2).astype(int)
    of_one = logged(chosen, np.tile([0.8, 0.2], (60, 1)), draw.uniform(size=60), np.zeros(60, int))
    second = np.tile([0.0, 1.0], (60, 1))
    assert "1 user is too few" in told_of(second, of_one)
    # 60 rows in which a twentieth is drawn have no such row with a probability of .05
    never = logged(np.zeros(60, int), np.tile([0.95, 0.05], (60, 1)), draw.uniform(size=60))
    for rows in (of_one, never):
        assert "propensities" not in told_of(second, rows)


def test_a_row_is_predicted_by_models_that_saw_nothing_of_its_user():
    draw = np.random.default_rng(1)
    n = 60
    features = draw.normal(size=(n, 3, 2))
    actions, clusters = draw.integers(0, 3, n), np.arange(n) % 12
    rewards = draw.uniform(size=n)
    before = cross_fitted(features, actions, rewards, clusters)
    changed = np.where(clusters == 4, 1 - rewards, rewards)
    after = cross_fitted(features, actions, changed, clusters)
    assert np.array_equal(before[clusters == 4], after[clusters == 4])
    assert not np.array_equal(before[clusters != 4], after[clusters != 4])
    assert np.isnan(cross_fitted(features, actions, rewards, np.zeros(n, int))).all()


def test_the_reward_model_finds_a_planted_rule():
    draw = np.random.default_rng(2)
    n = 2000
    features = draw.uniform(size=(n, 3, 1))
    actions = draw.integers(0, 3, n)
    of_llm = np.array([0.1, 0.3, 0.2])
    truth = of_llm + 0.5 * features[:, :, 0]
    rewards = truth[np.arange(n), actions] + draw.normal(0, 0.05, n)
    told = cross_fitted(features, actions, rewards, np.arange(n))
    assert np.abs(told - truth).mean() < 0.02


def test_arms_are_compared_by_the_means_of_their_users():
    rewards = [0.2, 0.4, 0.8, 1.0, 0.6]
    rows = logged([0] * 5, [[1.0]] * 5, rewards, [0, 0, 1, 1, 2])
    means, differences = mean_of_arms(rows, np.array([0, 0, 1, 1, 1]), draws=200)
    assert [one[0].value for one in means] == pytest.approx([0.3, 0.8])
    assert [one[0].value for one in differences] == pytest.approx([0.0, 0.5])


def test_the_difference_of_arms_covers_the_truth_where_users_differ():
    draw = np.random.default_rng(3)
    inside = 0
    for _ in range(40):
        users = np.repeat(np.arange(60), 10)
        arm = (np.arange(60) % 2)[users]
        rewards = draw.normal(0, 1, 60)[users] + 0.5 * arm + draw.normal(0, 0.3, 600)
        rows = logged(np.zeros(600, int), np.ones((600, 1)), rewards, users)
        _, differences = mean_of_arms(rows, arm, draws=200)
        inside += differences[1][0].low <= 0.5 <= differences[1][0].high
    assert inside > 32  # rows taken as independent would be inside in about half of the draws
