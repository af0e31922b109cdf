import numpy as np
import pytest

from waypost.contracts.errors import ConfigError
from waypost.contracts.routing_data import write_routing_data
from waypost.pipelines.evaluation.resplit import evaluate_resplit, mean_report
from waypost.pipelines.evaluation.run import EvaluateConfig
from waypost.pipelines.train import TrainConfig, train
from waypost.testing.synthetic import ENCODER_ID, planted


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    write_routing_data(folder, planted(60), "train")
    write_routing_data(folder, planted(40, seed=5), "test")
    return folder


def run(folder, *routers, seeds=(0, 1, 2)):
    return evaluate_resplit(
        EvaluateConfig(routers=routers, encoder=ENCODER_ID, resplit=seeds, lambdas=(0, 0.1, 1)),
        folder,
    )


def test_numbers_are_means_over_the_seeds(folder):
    report, by_seed = run(folder, "knnrouter", "best_single")
    assert report["seed"] == [0, 1, 2]
    assert list(by_seed) == [0, 1, 2]
    rows = [one.report["routers"]["knnrouter"] for one in by_seed.values()]
    mean = report["routers"]["knnrouter"]
    for key in ("quality", "cost_usd_per_1k", "delta_best_single", "aiq", "ece"):
        assert mean[key] == pytest.approx(np.mean([row[key] for row in rows])), key
    assert mean["curve"][2] == pytest.approx(np.mean([row["curve"][2] for row in rows], axis=0))
    assert mean["seeds"]["quality"] == [row["quality"] for row in rows]
    assert mean["sd"]["quality"] == pytest.approx(np.std([r["quality"] for r in rows], ddof=1))
    assert mean["quality_low"] <= mean["quality"] <= mean["quality_high"]
    # Over seeds and queries: no wider than the widest of the seeds, which overlap.
    assert mean["delta_low"] > 0
    assert mean["non_inferior"] is True
    assert mean["kendall_tau_low"] <= mean["kendall_tau"] <= mean["kendall_tau_high"]
    assert report["top"] == "knnrouter"
    assert report["routers"]["best_single"]["delta_top"] == pytest.approx(
        report["reference"]["best_single"]["quality"] - mean["quality"]
    )
    assert report["routers"]["best_single"]["delta_top_high"] < 0
    reference = report["reference"]["best_single"]
    assert reference["quality_low"] < reference["quality"] < reference["quality_high"]


def test_a_seed_keeps_a_fifth_of_the_pool_back_and_nothing_leaks(folder):
    report, by_seed = run(folder, "best_single", seeds=(7, 8))
    for one in by_seed.values():
        assert (one.report["n_train"], one.report["n_queries"]) == (80, 20)
        assert one.report["leaks"]["count"] == 0
        assert one.report["tasks"] == {"algebra": 10, "cooking": 10}
    kept = [set(one.comparison.test.query_ids) for one in by_seed.values()]
    assert kept[0] != kept[1]
    assert report["data_digest"] not in {one.report["data_digest"] for one in by_seed.values()}


def test_a_router_that_fails_on_one_seed_is_not_averaged(folder, monkeypatch):
    from waypost.registry import router_class

    cls = router_class("randomrouter")

    def failing(self, data):
        if self.seed == 1:
            raise ValueError

    monkeypatch.setattr(cls, "_fit", failing)
    report, _ = run(folder, "randomrouter", "best_single", seeds=(0, 1))
    assert list(report["routers"]) == ["best_single"]
    assert report["failed"]["randomrouter"].startswith("seed 1: ValueError at ")


def test_an_artifact_has_seen_its_split(folder, tmp_path):
    train(TrainConfig(router="best_single", folds=0), folder, tmp_path / "a")
    with pytest.raises(ConfigError, match="is an artifact; --resplit fits, so name routers"):
        run(folder, str(tmp_path / "a"))


def test_means_by_hand():
    one = {"n": 2, "q": 0.5, "x": None, "ok": True, "model": "a", "tasks": {"t": 1.0, "u": 0.0}}
    two = {"n": 4, "q": 0.7, "x": 1.0, "ok": False, "model": "b", "tasks": {"t": 0.0}}
    curve = {"curve": [[0, 0.5, np.nan]]}
    assert mean_report([one, two]) == {
        "n": 3, "q": pytest.approx(0.6), "x": None, "ok": None, "model": "a, b",
        "tasks": {"t": 0.5, "u": 0.0},
    }  # fmt: skip
    found = mean_report([curve, curve])["curve"][0]
    assert found[:2] == [0, 0.5]
    assert np.isnan(found[2])
    pair = {"weak": "a", "strong": "b"}  # one LLM is both on one seed
    assert mean_report([{"two_models": pair}, {"two_models": None}]) == {"two_models": None}
    assert mean_report([{"hull": [1.0]}, {"hull": [1.0, 2.0]}]) == {"hull": None}
