"""`waypost calibrate`, and the points that `waypost train` prints."""

from __future__ import annotations

import json

import numpy as np
import pytest
from click.testing import CliRunner

from waypost.cli import command
from waypost.contracts.routing_data import write_routing_data
from waypost.loading import manifest_of
from waypost.metrics.operating_points import read_curve
from waypost.testing.synthetic import ENCODER_ID, planted


def waypost(*words):
    return CliRunner().invoke(command, [str(word) for word in words])


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    write_routing_data(folder, planted(80))
    write_routing_data(folder, planted(40, seed=3), split="test")
    return folder


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory):
    out = tmp_path_factory.mktemp("trained") / "knn"
    words = ("train", "--router", "knnrouter", "--encoder", ENCODER_ID, "--data", data)
    return out, waypost(*words, "--out", out, "k=10")


def test_train_prints_quality_and_cost_at_three_lambdas(trained):
    _out, done = trained
    assert done.exit_code == 0, done.output
    lines = [line.split() for line in done.stdout.splitlines() if line.startswith("auto-")]
    assert [line[0] for line in lines] == ["auto-best", "auto-balanced", "auto-cheap"]
    usd = [float(line[3]) for line in lines]
    assert usd == sorted(usd, reverse=True)
    assert usd[0] > usd[2]


def test_the_curve_is_that_of_the_held_out_questions(trained):
    metrics = manifest_of(trained[0]).metrics
    curve = read_curve(metrics)
    assert curve.queries == metrics["validation"]["queries"] == 80
    assert curve.points[0].quality == pytest.approx(metrics["validation"]["quality"])
    assert curve.points[0].cost_usd == pytest.approx(metrics["validation"]["cost_usd"], rel=1e-4)
    assert curve.strong_quality == pytest.approx(metrics["validation"]["best_single"])
    assert "curve" not in metrics["validation"]
    costs = [point.cost_usd for point in curve.points]
    assert costs[-1] == min(costs)


def test_a_share_of_the_strong_llm(trained):
    done = waypost("calibrate", "--artifact", trained[0], "--strong-share", ".2", "--json")
    found = json.loads(done.stdout)
    curve = read_curve(manifest_of(trained[0]).metrics)
    off = [abs(point.strong_share - 0.2) for point in curve.points]
    assert abs(found["strong_share"] - 0.2) == min(off)
    assert found["strong"] == curve.strong
    assert set(found["named"]) == {"auto-cheap", "auto-balanced", "auto-best"}


def test_dollars_and_the_lambda_that_it_prints_keep_the_promise(trained, data):
    curve = read_curve(manifest_of(trained[0]).metrics)
    middle = 1e3 * np.mean([curve.points[0].cost_usd, curve.points[-1].cost_usd])
    done = waypost("calibrate", "--artifact", trained[0], "--usd-per-1k", middle)
    assert done.exit_code == 0, done.output
    lam = done.stdout.splitlines()[0].removeprefix("lambda ")
    point = next(point for point in curve.points if f"{point.lam:g}" == lam)
    assert 1e3 * point.cost_usd <= middle
    assert f'"auto:{lam}"' in done.stdout


def test_with_data_it_measures_there(trained, data):
    words = ("--artifact", trained[0], "--quality-loss", "0", "--json", "--data", data)
    found = json.loads(waypost("calibrate", *words).stdout)
    assert (found["method"], found["queries"]) == ("the test split of the data", 40)
    assert found["quality"] >= found["strong_quality"]
    found = json.loads(waypost("calibrate", *words, "--split", "train").stdout)
    assert (found["method"], found["queries"]) == ("the train split of the data", 80)


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        ([], 2, "give one of --strong-share, --usd-per-1k, --quality-loss"),
        (["--strong-share", ".5", "--quality-loss", "0"], 2, "give one of"),
        (["--strong-share", "50"], 2, "0<=x<=1"),
        (["--usd-per-1k", "0"], 1, "the cheapest choices cost"),
        (["--strong-share", ".5", "--split", "test"], 2, "--split needs --data"),
    ],
)
def test_what_cannot_be_is_told(trained, words, code, told):
    done = waypost("calibrate", "--artifact", trained[0], *words)
    assert done.exit_code == code
    assert told in done.stderr


def test_a_missing_split_is_told(trained, data):
    words = ("--artifact", trained[0], "--strong-share", ".5", "--data", data)
    done = waypost("calibrate", *words, "--split", "validation")
    assert (done.exit_code, "it has train, test" in done.stderr) == (2, True)


def test_an_artifact_without_a_curve_asks_for_data(data, tmp_path):
    words = ("--router", "knnrouter", "--encoder", ENCODER_ID, "--folds", "0")
    waypost("train", *words, "--data", data, "--out", tmp_path / "a")
    done = waypost("calibrate", "--artifact", tmp_path / "a", "--strong-share", ".5")
    assert done.exit_code == 2
    assert "give --data DIR" in done.stderr


def test_auto_keeps_the_curve_of_its_own_cross_validation(data, tmp_path):
    words = ("train", "--router", "auto", "--encoder", ENCODER_ID, "--data", data)
    parameters = "members=[knnrouter, best_single]"
    done = waypost(*words, "--out", tmp_path / "a", parameters, "folds=3")
    assert done.exit_code == 0, done.output
    manifest = manifest_of(tmp_path / "a")
    curve = read_curve(manifest.metrics)
    assert curve.points[0].quality == pytest.approx(manifest.metrics["validation"]["quality"])
    assert "curve" not in manifest.state["report_"]
    assert "auto-cheap" in done.stdout
