"""The bench of personal routers: its ways by hand, and a small run."""

import numpy as np
import pytest

from waypost.bench import personal
from waypost.bench._people import Vectors, baselines, judge, logistic, scores
from waypost.bench.harness import Tell
from waypost.contracts.routing_data import write_routing_data
from waypost.pipelines.data.users import make_world
from waypost.testing.synthetic import planted


@pytest.fixture(scope="module")
def world():
    return make_world(planted(100), planted(60, seed=1), users=40, targets=10, seed=0)


def true_outcomes(world):
    """Return the real outcomes in the form of predicted ones: score, log dollars, tokens, size."""
    found = {}
    for split, data in world.data.items():
        sizes = np.log([llm.size_b for llm in data.llms])
        amounts = (np.log(data.cost_usd), np.log(data.output_tokens), sizes)
        logs = [np.broadcast_to(part, data.quality.shape) for part in amounts]
        found[split] = np.stack([data.quality, *logs], axis=-1)
    return found


def test_a_logistic_ridge_by_hand():
    # one event, one number: the slope (1 - p) balances the pull 2 * w
    w = logistic(np.array([[1.0]]), np.array([1.0]), np.zeros(1), 2.0)[0]
    assert 1 - 1 / (1 + np.exp(-w)) == pytest.approx(2 * w)
    prior = np.array([0.7])
    assert logistic(np.empty((0, 1)), np.empty(0), prior, 1.0) == pytest.approx(prior)


def test_the_true_utility_has_no_regret_and_hidden_wants_give_it(world):
    said = world.said["test"]
    rows = np.flatnonzero(said.target)
    user, query = said.user[rows], said.query[rows]
    best = judge(world, "test", world.utility["test"][user, query])
    assert best["regret"] == 0
    assert best["auc"] == pytest.approx(0.9, abs=0.06)
    worst = judge(world, "test", -world.utility["test"][user, query])
    assert worst["auc"] == pytest.approx(1 - best["auc"])
    assert worst["utility"] < best["utility"]
    known = personal.wanted(world, true_outcomes(world)["test"])
    assert known == pytest.approx(world.utility["test"])


def test_equal_scores_are_right_half_of_the_time(world):
    n = int(world.said["test"].target.sum())
    found = judge(world, "test", np.zeros((n, 3)))
    assert (found["accuracy"], found["auc"]) == (0.5, 0.5)


def test_events_help_ridge_regressions(world):
    vectors = Vectors.make(true_outcomes(world))
    others = baselines(world, vectors)
    assert set(others.chosen) == {
        "per-user ridge", "per-user ridge towards the mean user", "nearest users",
    }  # fmt: skip
    for name in ("per-user ridge", "per-user ridge towards the mean user"):
        none, many = (
            judge(world, "test", scores(world, vectors, others.ways[name], "test", k))
            for k in (0, 20)
        )
        assert many["auc"] > none["auc"] + 0.02, name


def test_a_small_run_has_every_row_and_aim(tmp_path):
    for split, n in (("train", 80), ("test", 40)):
        write_routing_data(tmp_path / "data", planted(n, seed=n), split)
    options = personal.Options(
        data=tmp_path / "data", seeds=1, users=20, steps=20, encoder="hashing+d64+t512",
        plot=tmp_path / "utility.png",
    )  # fmt: skip
    result = personal.run(options, Tell())
    ways = [row[0] for row in result.tables[0].rows]
    assert ways[:3] == ["no personalisation", "oracle weights", "oracle"]
    assert ways[-2:] == ["gmtrouter", "personalizedrouter"]
    for way, row in result.figures["rows"].items():
        of_oracle = result.figures["rows"]["oracle"][0]["utility"][0]
        assert all(row[k]["utility"][0] <= of_oracle + 1e-9 for k in row), way
    assert [aim.reached is not None for aim in result.aims] == [True] * 10
    assert (tmp_path / "utility.png").stat().st_size > 5000


def test_intervals_over_seeds():
    def row(value):
        return {"way": {k: dict.fromkeys(personal.SHOWN, value) for k in personal.EVENTS}}

    mean, low, high = personal.summed([row(0.1), row(0.3)])["way"][5]["auc"]
    assert (mean, high - mean) == pytest.approx((0.2, 12.706 * 0.1))
    assert low == pytest.approx(mean - 12.706 * 0.1)
    assert np.isnan(personal.summed([row(0.1)])["way"][0]["auc"][1])
