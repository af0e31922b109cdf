from dataclasses import replace

import numpy as np
import pytest

from waypost.contracts.errors import ConfigError, SchemaError
from waypost.contracts.routing_data import write_routing_data
from waypost.metrics.table import BY_KEY, METRICS
from waypost.pipelines.evaluation.run import EvaluateConfig, evaluate
from waypost.pipelines.train import TrainConfig, train
from waypost.testing.synthetic import ENCODER_ID, planted
from waypost.testing.tables import outcomes

USD = {"dear": [0.004] * 4, "cheap": [0.001] * 4}
TRAIN = {"dear": [1, 1, 1, 0], "cheap": [0, 0, 1, 1]}
TEST = {"dear": [1, 0, 1, 1], "cheap": [1, 1, 0, 0]}


def write(folder, scores, split, texts, **more):
    data = outcomes(scores, **more)
    tasks = tuple("xxyy"[: len(data)])
    ids = tuple(f"{split}-{i}" for i in range(len(data)))
    data = replace(data, queries=tuple(texts), task_names=tasks, query_ids=ids)
    write_routing_data(folder, data, split)


@pytest.fixture(scope="module")
def by_hand(tmp_path_factory):
    folder = tmp_path_factory.mktemp("by_hand")
    write(folder, TRAIN, "train", ["red apple", "green pear", "blue plum", "old fig"], cost_usd=USD)
    write(folder, TEST, "test", ["a stone", "one river", "two hills", "red apple!"], cost_usd=USD)
    return run(folder, "best_single", "cheapest_llm").report


def run(folder, *routers, **more):
    return evaluate(EvaluateConfig(routers=routers, encoder=ENCODER_ID, **more), folder)


def test_references_by_hand(by_hand):
    found = by_hand["reference"]
    numbers = {key: (one["quality"], one["cost_usd_per_1k"]) for key, one in found.items()}
    assert numbers == {
        "random": pytest.approx((0.625, 2.5)),
        "best_single": pytest.approx((0.75, 4)),  # dear has the higher training mean
        "cheapest": pytest.approx((0.5, 1)),
        "zero_router": pytest.approx((0.75, 4)),
        # In training dear is better on task x, cheap on y.
        "task_oracle": pytest.approx((0.25, 2.5)),
        "oracle": pytest.approx((1, 2.5)),
    }
    assert found["best_single"]["model_name"] == "dear"
    assert found["zero_router"]["aiq"] == pytest.approx(0.625)
    assert found["zero_router"]["hull"] == [pytest.approx([0.5, 1]), pytest.approx([0.75, 4])]
    # From (1, .5) to (2.5, 1), then flat to 4.
    assert found["oracle"]["aiq"] == pytest.approx((1.5 * 0.75 + 1.5 * 1) / 3)


def test_routers_by_hand(by_hand):
    found = by_hand["routers"]
    best, cheap = found["best_single"], found["cheapest_llm"]
    expected = {
        "quality": 0.75, "cost_usd_per_1k": 4, "delta_best_single": 0, "aiq": 0.625,
        "delta_aiq": 0, "cost_save": 0, "cost_save_95": 0, "perf_gain": 0, "gap_oracle": 0.25,
        "recovered_headroom": 0, "usage_entropy": 0, "collapse_index": 0.5, "wins": 0, "ties": 4,
        "losses": 0, "cost_rises": 0, "delta_ibc": 0, "macro_quality": 0.75, "not_measured": 0,
    }  # fmt: skip
    assert {key: best[key] for key in expected} == pytest.approx(expected)
    assert best["tasks"] == {"x": 0.5, "y": 1}
    assert best["usage"] == {"dear": 1, "cheap": 0}
    lambdas, qualities, costs = zip(*best["curve"], strict=True)
    assert lambdas[0] == 0
    assert (qualities[0], qualities[-1]) == (0.75, 0.5)
    assert (costs[0], costs[-1]) == pytest.approx((4, 1))
    assert best["non_inferior"] is True
    assert (best["dominates_cheapest"], cheap["dominates_cheapest"]) == (False, True)
    assert cheap["delta_best_single"] == pytest.approx(-0.25)
    assert (cheap["wins"], cheap["ties"], cheap["losses"]) == (1, 1, 2)
    assert cheap["recovered_headroom"] == pytest.approx(-1)
    assert np.isnan(cheap["cost_save"])  # never as good: not reached, not 0
    assert cheap["mcnemar_p"] == pytest.approx(1)
    assert cheap["non_inferior"] is False


def test_a_routers_row_holds_the_metrics_of_the_table_and_nothing_unnamed(by_hand):
    ends = {end for metric in METRICS for end in metric.interval or ()}
    assert len(BY_KEY) == len(METRICS)
    expected = {*BY_KEY, *ends, "unseen", "router", "version", "trained_on"}
    assert set(by_hand["routers"]["best_single"]) == expected
    assert all(metric.formula for metric in METRICS)


def test_a_metric_that_the_table_lacks_is_refused():
    with pytest.raises(ValueError, match="'speed' is not a metric"):
        EvaluateConfig(routers=("best_single",), metrics=("speed",))


def test_predictions_by_hand(by_hand):
    found = by_hand["routers"]["best_single"]  # predicts .75 of dear, .5 of cheap
    expected = {
        "brier": (0.75**2 + 3 * 0.25**2 + 4 * 0.5**2) / 8,
        "log_loss": -(np.log(0.25) + 3 * np.log(0.75) + 4 * np.log(0.5)) / 8,
        "auroc": 0.5,
        # One query ties, one is ordered the wrong way, two are right.
        "kendall_tau": 1 / 3,
        "ndcg": (1 / np.log2(3) + 2) / 3,
        "margin_area": 0.75,
        "margin_gain": 0,
        "cost_error": 0,
        "cost_too_low": 0,
        "picks_best": 0.75,
    }
    assert {key: found[key] for key in expected} == pytest.approx(expected)
    assert found["by_llm"]["dear"]["brier"] == pytest.approx((0.75**2 + 3 * 0.25**2) / 4)
    assert found["by_llm"]["cheap"]["auroc"] == 0.5
    # Always cheap: half of the way from dear's .75 to its .5, whoever falls back first.
    cheap = by_hand["routers"]["cheapest_llm"]
    assert (cheap["margin_area"], cheap["margin_gain"]) == pytest.approx((0.625, 0))
    assert cheap["margin_curve"][0] == pytest.approx([0, 0.75])
    assert cheap["margin_curve"][-1] == pytest.approx([1, 0.5])
    assert np.isnan(cheap["selective_area"])  # it has no confidence
    assert cheap["selective_curve"] == []


def test_matched_numbers_by_hand(by_hand):
    best, cheap = (by_hand["routers"][name] for name in ("best_single", "cheapest_llm"))
    within = {"10": np.nan, "25": 0.5, "50": 0.5, "75": 0.5, "100": 0.75}
    assert best["quality_at_cost"] == pytest.approx(within, nan_ok=True)
    assert (best["gain_best"], best["gain_random"]) == pytest.approx((0, 0.2))
    assert cheap["gain_best"] == pytest.approx(-1 / 3)
    assert best["hypervolume"] == 0  # cheap is below random, dear at the edge of the box
    assert by_hand["cost_ref_usd_per_1k"] == pytest.approx(4)
    assert by_hand["top"] == "best_single"
    assert (best["delta_top"], cheap["delta_top"]) == pytest.approx((0, -0.25))
    assert cheap["delta_top_low"] < -0.25 < cheap["delta_top_high"]


@pytest.mark.parametrize(
    ("sizes", "options", "expected"),
    [
        ({}, {}, ("low", "top", "training mean")),
        (
            {"mid": "3B"},
            {},
            ("low", "top", "training mean"),
        ),  # the only size is neither small nor large
        ({"mid": "3B", "top": "70B"}, {}, ("mid", "top", "size")),
        ({"mid": "3B", "low": "1B"}, {}, ("low", "top", "training mean")),
        ({}, {"weak": "mid"}, ("mid", "top", "option")),
        ({}, {"strong": "mid"}, ("low", "mid", "training mean")),
        ({}, {"weak": "top"}, None),
    ],
)
def test_without_prices_two_llms_are_chosen_by_what_is_known(tmp_path, sizes, options, expected):
    scores = {"mid": [1, 0, 1, 0], "top": [1, 1, 1, 0], "low": [0, 0, 1, 0]}
    for split in ("train", "test"):
        data = outcomes(scores)
        llms = tuple(llm.model_copy(update={"size": sizes.get(llm.name)}) for llm in data.llms)
        texts = tuple(f"{split} {word}" for word in ("stone", "river", "hill", "tree"))
        ids = tuple(f"{split}-{i}" for i in range(4))
        write_routing_data(tmp_path, replace(data, llms=llms, queries=texts, query_ids=ids), split)
    report = run(tmp_path, "best_single", **options).report
    found = report["two_models"]
    assert (found and (found["weak"], found["strong"], found["by"])) == expected


def test_an_llm_that_the_data_lack_is_no_end_of_a_pair(tmp_path):
    write(tmp_path, TRAIN, "train", ["red apple", "green pear", "blue plum", "old fig"])
    write(tmp_path, TEST, "test", ["a stone", "one river", "two hills", "red apple!"])
    with pytest.raises(ConfigError, match=r"weak.*'chaep' is no LLM of the data"):
        run(tmp_path, "best_single", weak="chaep")


def test_the_gap_of_two_llms_must_be_wide_enough_to_speak_of_its_parts(by_hand):
    assert by_hand["two_models"] == {"weak": "cheap", "strong": "dear", "by": "price"}
    row = by_hand["routers"]["best_single"]
    assert all(np.isnan(row[key]) for key in ("apgr", "apgr_low", "cpt_50"))


def test_a_constant_order_of_two_llms_is_the_straight_line(tmp_path):
    n = 20
    scores = {"dear": [1] * n, "cheap": [0] * 10 + [1] * 10}
    for split in ("train", "test"):
        data = outcomes(scores, cost_usd={"dear": [0.004] * n, "cheap": [0.001] * n})
        ids, texts = (tuple(f"{split} {what} {i}" for i in range(n)) for what in ("id", "text"))
        write_routing_data(tmp_path, replace(data, query_ids=ids, queries=texts), split)
    row = run(tmp_path, "best_single").report["routers"]["best_single"]
    assert (row["apgr"], row["apgr_low"], row["apgr_high"]) == pytest.approx((0.5, 0.5, 0.5))
    assert [row[f"cpt_{part}"] for part in (50, 80, 95)] == pytest.approx([0.5, 0.8, 0.95])


def test_what_stands_in_training_is_counted_and_left_out(by_hand):
    found = by_hand
    assert found["leaks"] == {"count": 1, "query_ids": ["test-3"]}
    assert found["routers"]["best_single"]["unseen"]["quality"] == pytest.approx(2 / 3)
    unseen = found["routers"]["cheapest_llm"]["unseen"]
    assert (unseen["quality"], unseen["delta_best_single"]) == pytest.approx((2 / 3, 0))


def test_data_without_costs_has_no_cost_and_no_zero(tmp_path):
    write(tmp_path, TRAIN, "train", ["red apple", "green pear", "blue plum", "old fig"])
    write(tmp_path, TEST, "test", ["a stone", "one river", "two hills", "my moon"])
    found = run(tmp_path, "best_single").report
    assert "share of calls" in found["cost_basis"]
    row = found["routers"]["best_single"]
    for key in ("cost_usd_per_1k", "aiq", "aiq_low", "cost_save", "list_price"):
        assert np.isnan(row[key]), key
    assert row["beats_singles"] is None
    assert row["quality"] == 0.75
    assert np.isnan(row["curve"][0][2])
    assert np.isnan(found["reference"]["cheapest"]["quality"])
    assert found["reference"]["oracle"]["quality"] == 1


def test_list_prices_and_token_counts_stand_in_for_costs(tmp_path):
    facts = {
        "dear": {"input_price": 8, "output_price": 8},
        "cheap": {"input_price": 2, "output_price": 2},
    }
    for scores, split, word in ((TRAIN, "train", "fig"), (TEST, "test", "moon")):
        data = outcomes(scores, facts=facts)
        data = replace(
            data,
            query_ids=tuple(f"{split}{i}" for i in range(4)),
            queries=tuple(f"{word} {i}" for i in range(4)),
            input_tokens=np.full((4, 2), 100.0),
        )
        write_routing_data(tmp_path, data, split)
    found = run(tmp_path, "best_single").report
    assert "prompt tokens" in found["cost_basis"]
    row = found["routers"]["best_single"]
    assert row["cost_usd_per_1k"] == pytest.approx(0.8)
    assert row["list_price"] == pytest.approx(8)
    assert row["curve_price"][-1][1:] == pytest.approx([0.5, 2])
    # A price of 5 lies halfway: no setting costs that, a mix does.
    assert row["quality_at_price"] == [
        pytest.approx([2, 0.5, 0.5]),
        pytest.approx([8, 0.75, 0.75]),
    ]


def test_choices_that_were_not_measured_are_left_out_and_counted(tmp_path):
    holes = {"dear": [1, None, 1, None], "cheap": [1, 1, 0, 0]}
    write(tmp_path, TRAIN, "train", ["red apple", "green pear", "blue plum", "old fig"])
    write(tmp_path, holes, "test", ["a stone", "one river", "two hills", "my moon"])
    row = run(tmp_path, "best_single").report["routers"]["best_single"]
    assert (row["quality"], row["not_measured"]) == (1, 2)


def test_one_query_and_one_llm(tmp_path):
    write(tmp_path, {"only": [1, 0]}, "train", ["red apple", "green pear"])
    write(tmp_path, {"only": [1]}, "test", ["a stone"])
    found = run(tmp_path, "best_single", "knnrouter", "randomrouter")
    assert found.report["failed"] == {}
    row = found.report["routers"]["knnrouter"]
    assert (row["quality"], row["quality_low"], row["quality_high"]) == (1, 1, 1)
    assert np.isnan(row["usage_entropy"])
    assert np.isnan(row["recovered_headroom"])


@pytest.fixture(scope="module")
def topics(tmp_path_factory):
    folder = tmp_path_factory.mktemp("topics")
    write_routing_data(folder, planted(80), "train")
    write_routing_data(folder, planted(40, seed=5), "test")
    write_routing_data(folder, planted(20, seed=6), "validation")
    return folder


def test_artifacts_and_names_stand_side_by_side(topics, tmp_path):
    train(TrainConfig(router="knnrouter", encoder=ENCODER_ID, folds=0), topics, tmp_path / "knn")
    done = run(topics, str(tmp_path / "knn"), "knnrouter", "knnrouter:k=3", "knnrouter")
    rows = done.report["routers"]
    assert list(rows) == ["knn", "knnrouter", "knnrouter:k=3", "knnrouter (2)"]
    assert rows["knn"]["fit_s"] > 0
    assert rows["knn"]["trained_on"] == rows["knnrouter"]["trained_on"]
    assert rows["knnrouter"]["fit_s"] > 0
    assert rows["knn"]["curve"] == rows["knnrouter"]["curve"]
    assert rows["knn"]["quality"] > 0.95 > done.report["reference"]["best_single"]["quality"]
    assert rows["knn"]["delta_low"] > 0.2
    assert rows["knn"]["aiq"] > done.report["reference"]["zero_router"]["aiq"]
    assert rows["knn"]["decision_ms_p50"] > 0
    assert 0 <= rows["knn"]["flip_rate"] < 0.5
    assert rows["knn"]["recovered_headroom"] > 0.9
    assert rows["knn"]["kendall_tau_low"] > 0.5
    assert rows["knn"]["auroc"] > 0.9
    assert rows["knn"]["apgr_low"] > 0.6
    assert rows["knn"]["cpt_50"] < 0.3
    assert rows["knn"]["margin_gain_low"] > 0
    assert rows["knn"]["selective_gain"] < rows["knn"]["margin_gain"]


def test_the_same_comparison_twice_is_the_same(topics):
    routers = ("knnrouter:k=5", "randomrouter")
    one, two = (run(topics, *routers, seed=3).report for _ in range(2))
    for name in one["routers"]:
        for key in ("quality_low", "delta_high", "aiq_low", "flip_rate", "curve"):
            assert one["routers"][name][key] == two["routers"][name][key]


def test_a_router_that_fails_does_not_end_the_others(topics, tmp_path):
    train(TrainConfig(router="best_single", folds=0), topics, tmp_path / "changed")
    weights = tmp_path / "changed" / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    found = run(topics, str(tmp_path / "changed"), "best_single").report
    assert list(found["routers"]) == ["best_single"]
    assert "changed after training" in found["failed"]["changed"]


def test_what_a_library_raises_is_named_without_its_message(topics, monkeypatch):
    def broken(self, data):
        raise ValueError("a user's text")

    from waypost.registry import router_class

    monkeypatch.setattr(router_class("knnrouter"), "_fit", broken)
    found = run(topics, "knnrouter", "best_single").report
    assert list(found["routers"]) == ["best_single"]
    assert found["failed"]["knnrouter"].startswith("ValueError at ")
    assert "a user's text" not in found["failed"]["knnrouter"]


def test_the_validation_split_and_given_weights(topics):
    found = run(topics, "best_single", split="validation", lambdas=(1.0, 0.1)).report
    assert (found["split"], found["n_queries"]) == ("validation", 20)
    assert [lam for lam, _, _ in found["routers"]["best_single"]["curve"]] == [0, 0.1, 1]


def test_every_wrong_argument_is_said_before_data_is_read(tmp_path):
    with pytest.raises(ConfigError) as caught:
        run(tmp_path, "nonsense", "knnrouter:k=0,speed=1")
    assert len(caught.value.faults) == 3


def test_splits_without_a_common_llm(tmp_path):
    write(tmp_path, {"a": [1, 0]}, "train", ["red apple", "green pear"])
    write(tmp_path, {"b": [1, 0], "a": [None, None]}, "test", ["a stone", "one river"])
    with pytest.raises(SchemaError, match="the training split has none of these"):
        run(tmp_path, "best_single")


def test_the_peers_reference_numbers(shared_data):
    found = run(shared_data / "routerbench_subset", "best_single").report
    reference = found["reference"]
    assert reference["zero_router"]["aiq"] == pytest.approx(0.8461, abs=1e-4)
    assert reference["oracle"]["aiq"] == pytest.approx(0.9595, abs=5e-4)
    assert reference["task_oracle"]["aiq"] == pytest.approx(0.8790, abs=5e-4)
    assert reference["best_single"]["quality"] == pytest.approx(0.8970, abs=1e-4)
    assert reference["best_single"]["cost_usd_per_1k"] == pytest.approx(5.980, abs=1e-3)
    assert reference["oracle"]["quality"] == pytest.approx(0.9609, abs=1e-4)
    assert found["leaks"]["count"] == 0


def test_on_the_data_only_a_multi_round_router_is_measured_by_its_single_round_choice(tmp_path):
    write_routing_data(tmp_path, planted(60), "train")
    write_routing_data(tmp_path, planted(20, seed=5), "test")
    rows = run(tmp_path, "knnmultiroundrouter", "knnrouter").report["routers"]
    several, one = rows["knnmultiroundrouter"], rows["knnrouter"]
    assert (several["quality"], several["calls"]) == (one["quality"], 1)
    assert several["curve"] == one["curve"]
