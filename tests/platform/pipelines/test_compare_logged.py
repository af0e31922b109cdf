"""``waypost evaluate --decisions``: routers compared on a log that the real parts wrote."""

from __future__ import annotations

import asyncio
import json
import math
import time
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from waypost.cli import command
from waypost.contracts.feedback import FeedbackEvent
from waypost.encoders import make_encoder
from waypost.feedback import Arm, DecisionLog, FeedbackStore, Outcome
from waypost.loading import load_router, save_router
from waypost.registry import make_router
from waypost.testing.synthetic import ENCODER_ID, planted

RATE = 0.3
ARMS = Arm("trial", "single", {"single": 0.5, "knn": 0.5})


def artifact(folder: Any, name: str) -> Any:
    data = planted()
    router: Any = make_router(name)
    router.fit(data)
    router.encoder = make_encoder(ENCODER_ID)
    save_router(router, folder, data)
    return load_router(folder)


async def write(folder: Any, outcomes: list[Outcome], score: Any, *, keep: bool = True) -> None:
    log = DecisionLog(str(folder / "log"), keep_queries=keep, exploration=RATE)
    store = FeedbackStore(folder / "feedback", keep_queries=keep, most=10_000, max_age_s=1e6)
    for part in (log, store):
        await part.start()
    for each in outcomes:
        log.add(each)
        store.remember(each)
    events = [
        FeedbackEvent(request_id=one.request_id, kind="rating", rating=score(one))
        for one in outcomes
        if one.request_id.startswith("rated")
    ]
    taken = await store.add(events)
    assert {one.status for one in taken} == {"kept"}
    for part in (log, store):
        await part.close()


def outcome(name: str, text: str, decision: Any, **more: Any) -> Outcome:
    cost = {"cook": 0.002, "prover": 0.004, "tiny": 0.0002}[decision.model]
    query = {"query": text, "user_id": f"user-{int(name.split('-')[1]) % 40}"}
    known = {"model": decision.model, "cost_usd": cost, "seconds": 0.1}
    return Outcome(name, time.time(), query, decision, **(known | more))


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Two artifacts; logs of ``best_single``, which explores, and of an experiment of both."""
    folder = tmp_path_factory.mktemp("logged")
    single = artifact(folder / "single", "best_single")
    knn = artifact(folder / "knn", "knnrouter")
    data = planted(300, seed=9)
    return folder, single, knn, data


def score_of(data: Any) -> Any:
    place = {text: i for i, text in enumerate(data.queries)}
    return lambda one: float(
        data.quality[place[one.query["query"]], data.names.index(one.decision.model)]
    )


@pytest.fixture(scope="module")
def log(world):
    folder, single, knn, data = world
    single.policy = replace(single.policy, exploration=RATE, seed=4)
    acted = single.route_batch(data.queries)
    beside = knn.route_batch(data.queries)
    outcomes = [
        outcome(f"rated-{i}", text, acted[i], shadows={"next": beside[i].to_dict()})
        for i, text in enumerate(data.queries)
    ]
    outcomes += [
        outcome("unrated-1", "nobody said a word", acted[0]),
        outcome("unanswered-1", "no answer", acted[0], model=None, cost_usd=None),
        outcome("pinned-1", "asked for", replace(acted[0], router="pinned")),
    ]
    asyncio.run(write(folder, outcomes, score_of(data)))
    truth = np.mean([data.quality[i, data.names.index(one.model)] for i, one in enumerate(beside)])
    served = np.mean([data.quality[i, data.names.index(one.model)] for i, one in enumerate(acted)])
    return folder, float(truth), float(served)


def evaluate(*arguments: Any) -> Any:
    return CliRunner().invoke(command, ["evaluate", *map(str, arguments)])


@pytest.fixture(scope="module")
def report(log):
    folder, *_ = log
    places = ["--decisions", folder / "log", "--feedback", folder / "feedback"]
    done = evaluate(folder / "knn", *places, "--out", folder / "report", "--lambdas", "0.1")
    assert done.exit_code == 0, done.output
    return done, json.loads((folder / "report" / "report.json").read_text())


def test_a_shadow_is_judged_by_what_the_acting_router_explored(log, report):
    _, truth, served = log
    _, found = report
    assert found["served"]["quality"]["value"] == pytest.approx(served)
    shadow = found["policies"]["next"]
    assert (shadow["kind"], shadow["rows"], shadow["clusters"]) == ("shadow", 300, 40)
    for estimator in ("ips", "snips", "dr"):
        value = shadow["estimates"][estimator]["quality"]
        assert value["low"] <= truth <= value["high"], estimator
    gain = shadow["difference"]["quality"]
    assert gain["low"] > 0.1
    assert gain["value"] == pytest.approx(
        shadow["estimates"]["dr"]["quality"]["value"] - served, abs=1e-9
    )
    assert shadow["without_support"] == 0
    assert abs(shadow["mean_weight"] - 1) < 0.4
    utility = found["served"]["quality"]["value"] - 0.1 * (
        found["served"]["cost_usd"]["value"] / found["cost_ref_usd"]
    )
    assert found["served"]["utility"]["value"] == pytest.approx(utility)


def test_an_artifact_that_decides_again_is_the_shadow_that_it_was(report):
    _, found = report
    shadow, again = found["policies"]["next"], found["policies"]["knn"]
    assert (shadow["kind"], again["kind"]) == ("shadow", "artifact")
    assert again["estimates"] == shadow["estimates"]
    acts = found["policies"]["best_single"]
    assert (acts["kind"], acts["without_support"]) == ("acts", 0)
    assert acts["agreement"] == pytest.approx(1 - RATE * 2 / 3, abs=0.08)


def test_the_report_says_what_was_left_out_and_how(report, log):
    done, found = report
    assert found["left_out"] == {
        "without feedback": 1, "without an answer": 1, "asked for an LLM by name": 1,
    }  # fmt: skip
    assert "best_single" in done.stdout
    text = (log[0] / "report" / "report.md").read_text()
    assert "`waypost evaluate " in text
    assert "| next | 300 |" in text
    assert "nan" not in text.lower()


def test_without_feedback_dollars_are_compared_alone(log):
    folder, *_ = log
    done = evaluate("--decisions", folder / "log", "--out", folder / "dollars", "--json")
    assert done.exit_code == 0, done.output
    found = json.loads((folder / "dollars" / "report.json").read_text())
    assert found["served"]["quality"]["value"] is None
    assert found["rows"] == 301
    assert found["policies"]["next"]["estimates"]["dr"]["cost_usd"]["value"] > 0


def test_dollars_are_not_compared_where_one_llm_has_no_price(world, tmp_path):
    _, single, _, data = world
    single.policy = replace(single.policy, exploration=RATE, seed=4)
    acted = [replace(one, lam=math.inf) for one in single.route_batch(data.queries)]
    unpriced = acted[0].ranking[-1]
    outcomes = [outcome(f"rated-{i}", data.queries[i], made) for i, made in enumerate(acted)]
    outcomes = [
        replace(one, cost_usd=None) if one.decision.model == unpriced else one for one in outcomes
    ]
    asyncio.run(write(tmp_path, outcomes, score_of(data), keep=False))
    places = ["--decisions", tmp_path / "log", "--feedback", tmp_path / "feedback"]
    done = evaluate(*places, "--out", tmp_path / "report")
    assert done.exit_code == 0, done.output
    assert f"the dollars of {unpriced} are unknown" in done.output
    found = json.loads((tmp_path / "report" / "report.json").read_text())
    # rows of the LLM without a price are not left out: that would be a choice by the action
    assert (found["rows"], found["left_out"], found["lambda"]) == (300, {}, 0.0)
    assert found["served"]["cost_usd"]["value"] is None
    assert found["served_warnings"] == []
    alone = evaluate(*places[:2], "--out", tmp_path / "dollars")
    assert alone.exit_code == 1
    assert "prices of all LLMs" in alone.output


def test_shares_that_changed_are_told(world, tmp_path):
    _, single, _, data = world
    acted = single.route_batch(data.queries[:60])
    later = replace(ARMS, shares={"single": 0.9, "knn": 0.1})
    outcomes = [
        outcome(f"rated-{i}", data.queries[i], made, arm=ARMS if i < 30 else later)
        for i, made in enumerate(acted)
    ]
    asyncio.run(write(tmp_path, outcomes, score_of(data), keep=False))
    places = ["--decisions", tmp_path / "log", "--feedback", tmp_path / "feedback"]
    done = evaluate(*places, "--out", tmp_path / "report")
    assert "the shares of experiment trial changed in the log" in done.output


def test_an_artifact_of_other_llms_is_told_those_of_the_log(log):
    folder, *_ = log
    places = ["--decisions", folder / "log", "--feedback", folder / "feedback"]
    done = evaluate("serve_configs/starter/artifact", *places, "--out", folder / "other")
    assert done.exit_code == 1
    assert "the log has the LLMs cook, prover, tiny: expected an artifact" in done.output


def test_arms_that_are_shadows_of_each_other_explore_for_both(world, tmp_path):
    _, single, knn, data = world
    single.policy = replace(single.policy, exploration=0.0)
    made = {"single": single.route_batch(data.queries), "knn": knn.route_batch(data.queries)}
    draw = np.random.default_rng(1)
    of_user = {user: ("single", "knn")[int(draw.integers(2))] for user in range(40)}
    outcomes = []
    for i, text in enumerate(data.queries):
        arm = of_user[i % 40]
        other = "knn" if arm == "single" else "single"
        beside = {other: made[other][i].to_dict()}
        trial = replace(ARMS, router=arm)
        outcomes.append(outcome(f"rated-{i}", text, made[arm][i], arm=trial, shadows=beside))
    asyncio.run(write(tmp_path, outcomes, score_of(data), keep=False))
    places = ["--decisions", tmp_path / "log", "--feedback", tmp_path / "feedback"]
    done = evaluate(*places, "--out", tmp_path / "report")
    assert done.exit_code == 0, done.output
    found = json.loads((tmp_path / "report" / "report.json").read_text())
    for name, decided in made.items():
        one = found["policies"][name]
        pairs = enumerate(decided)
        truth = np.mean([data.quality[i, data.names.index(d.model)] for i, d in pairs])
        value = one["estimates"]["dr"]["quality"]
        assert value["low"] <= truth <= value["high"]
        assert (one["rows"], one["without_support"], one["warnings"]) == (300, 0, [])
    arms = found["experiments"]["trial"]
    assert {name: arm["rows"] for name, arm in arms.items()} == {
        name: sum(one.arm.router == name for one in outcomes) for name in made
    }
    first, second = arms
    gain = arms[second]["difference"]["quality"]
    assert (
        gain["low"]
        < arms[second]["mean"]["quality"]["value"] - arms[first]["mean"]["quality"]["value"]
        < gain["high"]
    )
    # and what could not be decided again is told
    refused = evaluate(world[0] / "knn", *places, "--out", tmp_path / "again")
    assert refused.exit_code == 1
    assert "has no texts: set log_queries: true" in refused.output


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--out", "r"], "expected one of --data and --decisions"),
        (["--decisions", ".", "--data", ".", "--out", "r"], "expected one of"),
        (["--data", ".", "--feedback", ".", "--out", "r"], "--feedback goes with --decisions"),
        (["--decisions", ".", "--split", "test", "--out", "r"], "--split does not apply"),
        (["--decisions", ".", "--lambdas", "0,1", "--out", "r"], "expected one number"),
        (["--decisions", ".", "--out", "r"], "has no parquet file"),
        (["knnrouter", "--decisions", ".", "--out", "r"], "expected an artifact"),
    ],
)
def test_wrong_arguments_are_told(arguments, told, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(command, ["evaluate", *arguments])
    assert done.exit_code in (1, 2)
    assert told in done.output


def test_a_folder_of_other_parquet_files_is_told(tmp_path):
    from waypost.contracts.routing_data import write_routing_data

    write_routing_data(tmp_path / "data", planted(20), "train")
    done = evaluate("--decisions", tmp_path / "data", "--out", tmp_path / "r")
    assert done.exit_code == 1
    assert "expected a decision log" in done.output
