"""What trials are worth, which is taken, and what a sweep leaves; trials run here, without Ray."""

from __future__ import annotations

import copy
import json
from dataclasses import replace

import numpy as np
import pyarrow.parquet as parquet
import pytest

from waypost.config import parse
from waypost.contracts.artifact import read_manifest
from waypost.contracts.errors import ConfigError, SchemaError
from waypost.contracts.routing_data import write_routing_data
from waypost.loading import load_router
from waypost.registry import router_class
from waypost.testing.synthetic import planted
from waypost.tune import ray_tune, sweep
from waypost.tune.config import (
    Metric,
    TuneConfig,
    check_against,
    check_sweep,
    defaults_of,
    read_sweep,
)
from waypost.tune.folds import CrossValidation, MetricEvaluator
from waypost.tune.journal import Task, TrialRow
from waypost.tune.plots import draw_importance
from waypost.tune.report import importance
from waypost.tune.select import choose, corrected_gain, finalists
from waypost.tune.space import SearchSpace
from waypost.tune.sweep import run_sweep
from waypost.tune.sweeps import read_many, run_many
from waypost.tune.trial import measure, measure_here

KNN = {
    "router": "knnrouter",
    "space": {
        "k": {"type": "choice", "values": [1, 3, 9, 25]},
        "weights": {"type": "choice", "values": ["uniform", "softmax"]},
        "tau": {"type": "loguniform", "low": 0.02, "high": 0.4, "when": {"weights": "softmax"}},
    },
    "budget": {"trials": 6},
    "encoder": "hashing",
    "folds": 3,
}


def sweep_of(**more) -> TuneConfig:
    return check_sweep({**KNN, **more}, "sweep.yaml")


def evaluator_of(metric: dict, blocks=(0, 0, 1, 1), usd=None) -> MetricEvaluator:
    quality = np.array([[1.0, 0.0], [1.0, 1.0], [0.0, 1.0], [1.0, 1.0]])
    return MetricEvaluator(
        metric=parse(Metric, metric),
        lambdas=(0.0,),
        block=np.array(blocks),
        quality=quality,
        usd=np.array([[1.0, 3.0]] * 4) if usd is None else usd,
        cost_ref=3.0,
        best=0,
    )


def test_the_pseudo_values_of_a_mean_are_the_means_of_the_blocks():
    quality, cost = np.array([[1.0], [0.5], [0.0], [0.25]]), np.array([[3.0], [3.0], [1.0], [1.0]])
    score, blocks = evaluator_of({"name": "quality"}).evaluate(quality, cost)
    assert score == pytest.approx(1.75 / 4)
    assert blocks == pytest.approx([0.75, 0.125])
    score, blocks = evaluator_of({"name": "cost"}).evaluate(quality, cost)
    assert (score, list(blocks)) == (2.0, [3.0, 1.0])
    score, _ = evaluator_of({"name": "utility", "lambda": 0.5}).evaluate(quality, cost)
    assert score == pytest.approx(1.75 / 4 - 0.5 * 2 / 3)


def test_what_was_not_measured_is_left_out():
    quality = np.array([[1.0], [np.nan], [0.0], [0.0]])
    score, blocks = evaluator_of({"name": "quality"}).evaluate(quality, np.ones((4, 1)))
    assert score == pytest.approx(1 / 3)
    assert blocks == pytest.approx([2 / 3 - 0, 2 / 3 - 1])  # J theta - (J - 1) theta_j


def test_the_area_under_a_curve_and_the_cost_at_matched_quality():
    # Two settings: always the cheap LLM (0.75 for 1 USD), always the dear one (0.75 for 3 USD),
    # and between them the right choice everywhere for 1.5 USD on average.
    quality = np.array([[1, 1, 0.0], [1, 1, 1], [0, 1, 1], [1, 1, 1.0]])
    cost = np.array([[1, 1, 3.0], [1, 1, 3], [1, 3, 3], [1, 1, 3.0]])
    score, blocks = evaluator_of({"name": "aiq"}).evaluate(quality, cost)
    # from 1 to 1.5 USD it rises from 0.75 to 1, and stays there up to 3 USD
    assert score == pytest.approx((0.5 * 0.875 + 1.5 * 1.0) / 2)
    assert len(blocks) == 2
    half = {"name": "cost_at_quality", "share": 7 / 6}  # 0.875, half way up
    assert evaluator_of(half).evaluate(quality, cost)[0] == pytest.approx(1.25)
    never = {"name": "cost_at_quality", "share": 1.5}
    assert np.isnan(evaluator_of(never).evaluate(quality, cost)[0])


def test_a_metric_of_costs_needs_costs():
    data = planted(40)
    nothing = np.full_like(data.quality, np.nan)
    blind = replace(data, cost_usd=nothing, input_tokens=nothing, output_tokens=nothing)
    with pytest.raises(SchemaError, match="metric aiq: 100 % of the training split's calls"):
        MetricEvaluator.of(blind, parse(Metric, {"name": "aiq"}), 0)
    assert MetricEvaluator.of(blind, parse(Metric, {}), 0).lambdas == (0.0,)
    assert len(MetricEvaluator.of(data, parse(Metric, {"name": "aiq"}), 0).lambdas) > 50


def test_near_duplicates_share_fold_and_block():
    data = planted(30)
    twice = replace(data, queries=tuple(data.queries[i - i % 2].upper() for i in range(30)))
    problem = CrossValidation.of(sweep_of(), twice, ())
    assert (problem.folds[:, ::2] == problem.folds[:, 1::2]).all()
    assert (problem.evaluator.block[::2] == problem.evaluator.block[1::2]).all()
    assert not np.array_equal(problem.folds[0], problem.folds[1])  # another deal


def test_too_few_questions_for_the_folds_are_said():
    with pytest.raises(SchemaError, match="too few for 50 folds"):
        CrossValidation.of(sweep_of(folds=50), planted(12), ())


def test_a_setting_is_measured_and_one_that_fails_is_a_row_with_its_reason():
    data = planted(60)
    problem = copy.deepcopy(CrossValidation.of(sweep_of(), data, ()))  # as Ray: without its folds
    row = measure(problem, Task(1, "a", {"k": 3}, {"k": 3}))
    assert row.status == "done"
    assert 0.9 < row.score <= 1  # the specialists, but for a question or two
    assert np.mean(row.blocks) == pytest.approx(row.score, abs=0.01)
    wrong = measure(problem, Task(2, "b", {"k": -1}, {"k": -1}))
    assert (wrong.status, wrong.score) == ("failed", None)
    assert "k: is -1" in wrong.error
    best_single = measure(replace(problem, router="best_single"), Task(3, "c", {}, {}))
    assert best_single.score < 0.7


def rows_of(*blocks, deal=0, sign=1.0) -> list[TrialRow]:
    return [
        TrialRow(n, f"k{n}", {}, deal, "done", float(np.mean(b)), 1.0, blocks=[float(x) for x in b])
        for n, b in enumerate(blocks)
    ]


def test_a_clear_winner_is_taken():
    base = np.tile([0.4, 0.6], 25)
    rows = rows_of(base, base + 0.1, base - 0.1)
    choice = choose(rows, [], 1.0, 0)
    assert choice.row.number == 1
    assert choice.gain == pytest.approx(0.1)
    assert choice.gain_se == pytest.approx(0, abs=1e-9)
    assert choice.chosen_gain == pytest.approx(0.1)
    cheap = choose(rows, [], -1.0, 0)
    assert (cheap.row.number, cheap.gain) == (2, pytest.approx(0.1))


def test_a_gain_within_one_standard_error_keeps_the_default():
    base = np.full(50, 0.5)
    noisy = base + np.where(np.arange(50) < 26, 0.2, -0.2)  # mean 0.008, standard error 0.029
    choice = choose(rows_of(base, noisy), [], 1.0, 0)
    assert choice.keeps_default
    assert choice.best.number == 1
    assert "within one standard error" in choice.why


def test_the_best_of_much_noise_is_not_taken():
    draw = np.random.default_rng(0)
    best = taken = 0
    for seed in range(20):
        rows = rows_of(*(0.5 + 0.1 * draw.standard_normal((60, 50))))
        taken += not choose(rows, [], 1.0, seed).keeps_default
        best += max(row.score for row in rows) > rows[0].score
    assert best == 20
    assert taken <= 8


def test_finalists_are_compared_over_all_deals():
    base = np.tile([0.4, 0.6], 25)
    rows = rows_of(base, base + 0.1, base + 0.08)
    again = rows_of(base, base - 0.1, base + 0.08, deal=1)
    assert [row.number for row in finalists(rows, 1.0, 2)] == [0, 1, 2]
    choice = choose(rows, again, 1.0, 0)
    assert choice.row.number == 2
    assert choice.score == pytest.approx(0.58)
    assert [one["trial"] for one in choice.finalists] == [1, 2, 0]


def test_the_choice_without_a_default_and_without_any_trial():
    rows = rows_of(np.full(4, 0.5), np.full(4, 0.6))
    failed = TrialRow(0, "k0", {}, 0, "failed", None, 0.1, error="no weights")
    choice = choose([failed, rows[1]], [], 1.0, 0)
    assert (choice.row.number, choice.gain) == (1, None)
    with pytest.raises(SchemaError, match="none of 1 trials could be measured; the first: no wei"):
        choose([failed], [], 1.0, 0)
    stopped = replace(rows[1], status="stopped", score=0.9)
    assert choose([rows[0], stopped], [], 1.0, 0).row.number == 0


def test_the_corrected_gain_by_hand():
    # Two blocks: of the draws that leave one out, half choose on block 0 and half on block 1.
    rows = rows_of([0.0, 0.0], [1.0, -0.5])
    # chosen on block 0: trial 1, which loses 0.5 on block 1; on block 1: the default, which is 0
    assert corrected_gain(rows, rows[0], 1.0, 0) == pytest.approx(-0.25, abs=0.02)


def test_importance_finds_the_parameter_that_matters(tmp_path):
    config = sweep_of()
    space = SearchSpace(config, defaults_of(config))
    draw = np.random.default_rng(0)
    rows = []
    for number in range(30):
        setting = {"k": int(draw.choice([1, 3, 9, 25])), "weights": "uniform"}
        if draw.random() < 0.5:
            setting |= {"weights": "softmax", "tau": float(draw.uniform(0.02, 0.4))}
        score = 0.01 * setting["k"] + 0.001 * draw.random()
        rows.append(TrialRow(number, str(number), setting, 0, "done", score, 1.0))
    shares = importance(rows, space, 0)
    assert sum(shares.values()) == pytest.approx(1)
    assert shares["k"] > 0.9
    assert importance(rows[:5], space, 0) is None
    assert draw_importance(shares, tmp_path / "importance.png")
    assert (tmp_path / "importance.png").read_bytes().startswith(b"\x89PNG")
    assert not draw_importance(None, tmp_path / "importance.png")
    assert not (tmp_path / "importance.png").exists()


def test_every_fault_of_a_file_is_named_at_once(tmp_path):
    path = tmp_path / "s.yaml"
    path.write_text(
        "router: knnrouter\ncolor: red\nmode: up\nscheduler: asha\nfixed: {speed: 1}\n"
        "space:\n  k: {type: randint, low: 0, high: 9}\n  tau: {type: magic}\n"
        "budget: {trials: 0}\n"
    )
    with pytest.raises(ConfigError) as caught:
        read_sweep(path)
    said = str(caught.value)
    for part in (
        "color: unknown key",
        "mode: expected 'max' or 'min', found 'up'",
        "scheduler: asha stops trials early, and knnrouter does not train by epochs",
        "fixed: speed: unknown parameter",
        "space: k: is 0",
        "magic",
        "budget.trials",
    ):
        assert part in said


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"router": "nosuch"}, "nosuch"),
        ({"router": "best_single", "space": {"x": {"type": "choice", "values": [1]}}}, "unknown"),
        ({"encoder": "nosuch"}, "nosuch"),
        ({"router": "mlprouter", "scheduler": "pbt",
          "space": {"hidden": {"type": "choice", "values": [8]}}}, "can change in training"),
    ],
)  # fmt: skip
def test_what_cannot_be_tuned_is_said(changed, said):
    with pytest.raises(ConfigError, match=said):
        sweep_of(**changed)


def test_all_sweeps_are_read_from_one_file(root):
    configs = read_many(root / "tune_configs" / "all.yaml", ["budget.trials=3"])
    single = {path.stem for path in (root / "tune_configs").glob("*.yaml")} - {"all"}
    assert sorted(config.router for config in configs) == sorted(single)
    slow = [bool(router_class(config.router).needs_weights) for config in configs]
    assert slow == sorted(slow)
    assert any(slow)
    assert {config.budget.trials for config in configs} == {3}
    assert all(config.budget.time_s for config in configs)  # of its own file
    for config in configs:
        check_against(config, router_class(config.router).parameter_constraints, config.router)


def test_every_fault_of_all_files_is_named(tmp_path):
    (tmp_path / "a.yaml").write_text("router: knnrouter\nbudget: {trials: 1}\nspace: {}\n")
    (tmp_path / "b.yaml").write_text(json.dumps({**KNN, "folds": 1}))
    (tmp_path / "all.yaml").write_text("sweeps: [a.yaml, b.yaml, c.yaml]\n")
    with pytest.raises(ConfigError) as caught:
        read_many(tmp_path / "all.yaml")
    said = str(caught.value)
    assert "a.yaml: space" in said
    assert "b.yaml: folds" in said
    assert "c.yaml: no such file" in said


# -- the whole, without Ray ---------------------------------------------------------------------


@pytest.fixture
def data(tmp_path):
    folder = tmp_path / "data"
    write_routing_data(folder, planted(60))
    write_routing_data(folder, planted(30, seed=1), "test")
    return folder


@pytest.fixture
def here(monkeypatch):
    """Trials run in this process: what Ray does is asked in the ray tier."""
    from contextlib import nullcontext

    begun = []

    def session(**settings):
        begun.append(settings)
        return nullcontext(None)

    monkeypatch.setattr(sweep, "ray_session", session)
    monkeypatch.setattr("waypost.tune.sweeps.ray_session", session)
    monkeypatch.setattr(ray_tune, "workers_of", lambda resources: 2)
    monkeypatch.setattr(ray_tune, "trial_runner", lambda *settings: measure_here)
    monkeypatch.setattr(
        ray_tune, "measure_packed", lambda p, queue, *settings: measure_here(p, queue)
    )
    return begun


def test_a_sweep_leaves_artifact_report_table_plots_and_events(data, tmp_path, here):
    out = tmp_path / "R"
    report = run_sweep(sweep_of(), data, out, command="waypost tune ...")
    assert report["trials"] == {"tried": 6, "done": 6, "stopped": 0, "failed": 0}
    assert report == json.loads((out / "report.json").read_text())
    table = parquet.read_table(out / "trials.parquet")
    assert table["trial"].to_pylist()[0] == 0
    assert set(table["deal"].to_pylist()) == {0, 1}
    assert "parameter.tau" in table.column_names
    manifest = read_manifest(out / "best")
    assert manifest.metrics["tuning"]["trials"] == 6
    assert manifest.metrics["tuning"]["cross_validated"] == report["taken"]["score"]
    assert load_router(out / "best").route_single("garlic butter oven").model in report["llms"]
    assert report["test"]["queries"] == 30
    assert report["test"]["trials"] == 6
    for name in ("progress.png", "parallel.png"):
        assert (out / name).read_bytes().startswith(b"\x89PNG")
    assert not (out / "importance.png").exists()  # too few trials to tell
    text = (out / "report.md").read_text()
    assert "6 trials: 6 measured" in text
    assert "waypost tune ..." in text
    events = sorted((out / "tensorboard").glob("trial-*/events*"))
    assert len(events) == 6
    assert b"_hparams_/session_start_info" in events[1].read_bytes()
    assert not (out / "ray").exists()
    # the same again measures nothing and starts no Ray
    written = (out / "trials.jsonl").read_bytes()
    begun = len(here)
    assert run_sweep(sweep_of(), data, out)["taken"] == report["taken"]
    assert (out / "trials.jsonl").read_bytes() == written
    assert len(here) == begun
    # more trials go on from there, another seed is another sweep
    more = run_sweep(sweep_of(budget={"trials": 8}), data, out)
    assert more["trials"]["tried"] == 8
    assert (out / "trials.jsonl").read_bytes().startswith(written)
    with pytest.raises(ConfigError, match="seed: holds a sweep with 0, this one has 1"):
        run_sweep(sweep_of(seed=1), data, out)
    fresh = run_sweep(sweep_of(seed=1), data, out, fresh=True)
    assert fresh["trials"]["tried"] == 6


def test_a_folder_of_something_else_is_left_alone(data, tmp_path, here):
    (tmp_path / "R").mkdir()
    (tmp_path / "R" / "thesis.txt").write_text("mine")
    with pytest.raises(ConfigError, match="has other files than those of a sweep"):
        run_sweep(sweep_of(), data, tmp_path / "R", fresh=True)
    assert (tmp_path / "R" / "thesis.txt").read_text() == "mine"


def test_several_sweeps_have_one_report_and_one_that_fails_does_not_end_them(data, tmp_path, here):
    linear = {
        "router": "linearrouter",
        "space": {"penalty": {"type": "loguniform", "low": 0.1, "high": 10}},
        "budget": {"trials": 2},
        "encoder": "hashing",
        "folds": 3,
    }
    automix = {
        "router": "automix",
        "space": {"family": {"type": "choice", "values": ["threshold"]}},
        "budget": {"trials": 1},
        "encoder": "hashing",
        "folds": 3,
    }
    configs = [check_sweep(one, "x") for one in ({**KNN, "budget": {"trials": 2}}, linear, automix)]
    report = run_many(configs, data, tmp_path / "R")
    assert set(report["sweeps"]) == {"knnrouter", "linearrouter"}
    assert set(report["failed"]) == {"automix"}
    assert read_manifest(tmp_path / "R" / "best").router == report["best"]
    text = (tmp_path / "R" / "report.md").read_text()
    assert "[knnrouter](knnrouter/report.md)" in text
    assert report["failed"]["automix"][:30] in text
