import re

import numpy as np
import pytest

from waypost import load_router
from waypost.contracts.routing_data import write_routing_data
from waypost.contracts.splits import fold_of
from waypost.encoders import EncoderSpec
from waypost.pipelines.train import TrainConfig, doubts, train
from waypost.pipelines.validation import cross_validate, decide_on, summary
from waypost.registry import make_router
from waypost.testing.synthetic import ENCODER_ID, planted, shuffled
from waypost.testing.tables import outcomes


def test_folds_are_even_seeded_and_keep_equal_texts_together():
    texts = [f"text {i}" for i in range(10)] + ["Text  3", "TEXT 3"]
    folds = fold_of(texts, 5, seed=1)
    assert folds.tolist() == fold_of(texts, 5, seed=1).tolist()
    assert folds.tolist() != fold_of(texts, 5, seed=2).tolist()
    assert sorted(folds[:10].tolist()) == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    assert folds[10] == folds[11] == folds[3]


def test_the_choice_is_looked_up_by_hand():
    training = outcomes({"a": [0.9], "b": [0.1]})
    held_out = outcomes(
        {"b": [1.0, 0.5, 0.2], "a": [0.0, 0.7, None]}, cost_usd={"a": [0.01, 0.02, None]}
    )
    router = make_router("best_single").fit(training)  # always a
    found = decide_on(router, training, held_out).vectors
    assert found["quality"][:2].tolist() == [0.0, 0.7]
    assert np.isnan(found["quality"][2])
    assert found["oracle"].tolist() == [1.0, 0.7, 0.2]
    result = summary(found)
    assert result["queries"] == 2
    assert result["quality"] == result["best_single"] == pytest.approx(0.35)
    assert result["oracle"] == pytest.approx(0.85)
    assert result["cost_usd"] == pytest.approx(0.015)
    assert result["gain"] == result["gain_se"] == 0


def test_an_llm_that_the_held_out_data_lacks_is_not_measured():
    training = outcomes({"a": [0.9], "b": [0.1]})
    router = make_router("best_single").fit(training)
    assert summary(decide_on(router, training, outcomes({"b": [1.0]})).vectors) == {"queries": 0}


def test_cross_validation_finds_the_planted_rule_and_nothing_in_noise():
    def make():
        return make_router("knnrouter", {"k": 10})

    good = cross_validate(make, planted(100), folds=5, seed=0)
    assert good["queries"] == 100
    assert good["quality"] > 0.99
    assert good["gain"] > 8 * good["gain_se"]
    noise = cross_validate(make, shuffled(planted(100)), folds=5, seed=0)
    assert noise["gain"] < 3 * noise["gain_se"]


def test_too_few_questions_are_not_cross_validated():
    assert cross_validate(lambda: make_router("best_single"), planted(3), folds=5, seed=0) is None


def test_an_llm_measured_once_is_not_cross_validated():
    data = outcomes({"a": [0.5] * 6, "b": [0.5] + [None] * 5})
    assert cross_validate(lambda: make_router("best_single"), data, folds=3, seed=0) is None


def config(**more):
    return TrainConfig(**{"router": "knnrouter", "encoder": ENCODER_ID, **more})


def test_a_validation_split_is_used_where_there_is_one(tmp_path):
    write_routing_data(tmp_path / "data", planted(40))
    write_routing_data(tmp_path / "data", planted(30, seed=4), split="validation")
    result = train(config(), tmp_path / "data", tmp_path / "a")
    found = result.manifest.metrics["validation"]
    assert (found["method"], found["queries"]) == ("validation split", 30)
    assert result.manifest.metrics["training_queries"] == 40


def test_test_data_is_never_read(tmp_path):
    write_routing_data(tmp_path / "data", planted(40))
    (tmp_path / "data" / "routing_test.parquet").write_text("unreadable")
    train(config(), tmp_path / "data", tmp_path / "a")


def test_training_twice_gives_the_same_version(tmp_path):
    write_routing_data(tmp_path / "data", planted(40))
    one, two = (train(config(), tmp_path / "data", tmp_path / name) for name in "ab")
    assert one.manifest.version == two.manifest.version


def test_an_encoder_may_be_given_by_its_keys(tmp_path):
    write_routing_data(tmp_path / "data", planted(20))
    encoder = EncoderSpec(kind="hashing", dimension=32, structure=False)
    result = train(config(encoder=encoder), tmp_path / "data", tmp_path / "a")
    assert result.manifest.encoder.id == encoder.id


def test_a_router_without_embeddings_embeds_nothing(tmp_path):
    write_routing_data(tmp_path / "data", planted(20))
    train(config(router="best_single"), tmp_path / "data", tmp_path / "a")
    assert not list((tmp_path / "data").glob("query_embeddings*"))


def test_a_router_that_validates_itself_is_not_fitted_for_each_fold_again(tmp_path, monkeypatch):
    from waypost.tune.auto.router import AutoRouter

    fits = []
    whole = AutoRouter._fit

    def counted(self, data):
        fits.append(len(data))
        whole(self, data)

    monkeypatch.setattr(AutoRouter, "_fit", counted)
    write_routing_data(tmp_path / "data", planted(60))
    auto = config(router="auto", parameters={"members": ["knnrouter", "best_single"], "folds": 3})
    result = train(auto, tmp_path / "data", tmp_path / "a")
    assert fits == [60]
    metrics, report = result.manifest.metrics, result.router.report_
    assert result.manifest.kind == "ensemble"
    assert metrics["choice"] == {"chosen": report["chosen"], "why": report["why"]}
    found = metrics["validation"]
    assert found["method"] == "3-fold cross-validation inside the fit, used for its choice"
    row = next(row for row in report["candidates"] if row["candidate"] == report["chosen"])
    assert (found["quality"], found["gain"]) == (row["quality"], row["gain"])
    assert found["queries"] == 60
    assert found["gain"] > 0.3  # each topic's specialist is found
    loaded = load_router(tmp_path / "a")
    texts = planted(20, seed=5).queries
    assert loaded.route_batch(texts) == result.router.route_batch(texts)


def test_with_too_few_questions_it_says_that_nothing_was_compared(tmp_path):
    write_routing_data(tmp_path / "data", planted(20))
    result = train(config(router="auto"), tmp_path / "data", tmp_path / "a")
    assert result.manifest.metrics["validation"] is None
    assert result.manifest.metrics["choice"]["chosen"] == "knnrouter"


@pytest.mark.parametrize(
    ("data", "parameters", "told"),
    [
        (planted(60).select_llms(["cook"]), {}, "one LLM, cook: there is nothing to choose"),
        (planted(6), {}, "has 6 questions; some hundred are a start"),
        (planted(60), {"k": 100}, "k is 100, and the data has 60 questions"),
        (outcomes({"a": [0.5] * 60, "b": [0.5] * 58 + [None] * 2}), {}, "without a score .*: b 2"),
    ],
)
def test_what_makes_a_fit_doubtful_is_told(data, parameters, told):
    lines = doubts(make_router("knnrouter", parameters), data)
    assert len(lines) == 1
    assert re.search(told, lines[0])


def test_a_fit_on_enough_data_tells_nothing(tmp_path, caplog):
    assert doubts(make_router("knnrouter"), planted(60)) == []
    write_routing_data(tmp_path / "data", planted(6))
    train(config(folds=0), tmp_path / "data", tmp_path / "a")
    assert [r.getMessage() for r in caplog.records if r.levelname == "WARNING"] == [
        "the data has 6 questions; some hundred are a start"
    ]


def test_a_slow_fit_is_validated_on_fewer_folds(tmp_path, monkeypatch):
    write_routing_data(tmp_path / "data", planted(60))

    def method(**more):
        made = train(config(**more), tmp_path / "data", tmp_path / "a")
        return made.manifest.metrics["validation"]["method"]

    assert method().startswith("5-fold")
    monkeypatch.setattr("waypost.pipelines.train.SLOW_S", -1.0)
    assert method().startswith("3-fold")
    assert method(folds=4).startswith("4-fold")
