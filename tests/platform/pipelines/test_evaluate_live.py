"""Evaluation of routers in steps whose calls are made live: quality, cost, what is kept."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from click.testing import CliRunner

from support.cascade import recorded
from support.counting_upstream import counting_upstream
from support.live_rounds import write_plugin, write_pool, write_sums
from waypost.cli import command
from waypost.config import settings
from waypost.contracts.routing_data import write_routing_data
from waypost.contracts.tables import read_routing_table, split_path, write_routing_table
from waypost.pipelines.evaluation.kept_calls import KeptCalls
from waypost.testing.synthetic import ENCODER_ID

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_here", "plugin")]

N = 10
CALLS = 4 * N


@pytest.fixture
def plugin(tmp_path, monkeypatch):
    """The router ``rounds`` in the registry."""
    monkeypatch.setenv("WAYPOST_PLUGINS", str(write_plugin(tmp_path)))
    settings.cache_clear()


@pytest.fixture
def data(tmp_path) -> Path:
    return write_sums(tmp_path / "data", N)


def evaluate(data: Path, out: Path | str, *arguments: str):
    start = ["evaluate", "--data", str(data), "--out", str(out), "--encoder", ENCODER_ID]
    return CliRunner().invoke(command, [*start, *arguments])


def report_of(out: Path) -> dict[str, Any]:
    return json.loads((out / "report.json").read_text())


def repeatable(report: dict[str, Any]) -> dict[str, Any]:
    """Return a report without its command and without times that each run takes anew."""
    times = ("decision_ms_p50", "decision_ms_p99", "fit_s")
    rows = {
        name: {key: value for key, value in row.items() if key not in times}
        for name, row in report["routers"].items()
    }
    return {**report, "routers": rows, "command": ""}


def test_quality_cost_calls_and_seconds_by_hand(data, tmp_path):
    out = tmp_path / "R"
    with counting_upstream(delay_s=0.05) as upstream:
        pool = write_pool(tmp_path / "pool.yaml", upstream.url)
        done = evaluate(data, out, "rounds", "best_single", "--pool", str(pool))
        assert done.exit_code == 0, done.output
        assert len(upstream.calls) == CALLS
    report = report_of(out)
    row = report["routers"]["rounds"]
    # the merged answer is 7 for each question: right for one of ten
    assert row["quality"] == pytest.approx(0.1)
    # ten prompt and five generated tokens: three calls of cook, one of tiny
    usd = 3 * (10 * 10 + 5 * 20) / 1e6 + (10 * 1 + 5 * 1) / 1e6
    assert row["cost_usd_per_1k"] == pytest.approx(1000 * usd)
    assert row["calls"] == 4
    assert 3 * 0.05 <= row["answer_s"] <= row["answer_s_p95"] < 60
    assert report["live"] == {
        "rounds": {
            "calls": CALLS, "cost_usd": pytest.approx(N * usd), "failed": 0, "left": 0,
            "unanswered": 0, "not_scored": 0,
        }
    }  # fmt: skip
    # one cost weight is no curve
    assert [point[0] for point in row["curve"]] == [0]
    for key in ("aiq", "delta_aiq", "cost_save", "perf_gain", "hypervolume", "beats_singles"):
        assert row[key] is None, key
    single = report["routers"]["best_single"]
    assert (single["calls"], single["aiq"]) == (1, pytest.approx(0.1))
    assert single["answer_s"] in (1.0, 2.0)
    text = (out / "report.md").read_text()
    assert "## Calls recorded live" in text
    assert f"| rounds | {CALLS} |" in text
    log = pq.read_table(out / "decisions.parquet").to_pylist()
    own = [entry for entry in log if entry["router"] == "rounds"]
    assert {(entry["model_name"], entry["calls"]) for entry in own} == {(None, 4)}


def test_without_a_pool_the_kept_calls_give_the_same_report(data, tmp_path):
    out = tmp_path / "R"
    with counting_upstream() as upstream:
        pool = write_pool(tmp_path / "pool.yaml", upstream.url)
        assert evaluate(data, out, "rounds", "--pool", str(pool)).exit_code == 0
        made = len(upstream.calls)
        first = repeatable(report_of(out))
        again = evaluate(data, out, "rounds", "--pool", str(pool))
        assert again.exit_code == 0, again.output
        assert len(upstream.calls) == made
        assert repeatable(report_of(out)) == first
    replayed = evaluate(data, out, "rounds")
    assert replayed.exit_code == 0, replayed.output
    assert repeatable(report_of(out)) == first
    # what was called is told by name, not by address
    kept = (out / "calls").rglob("*")
    assert not any(pool.name in path.name or "http" in path.read_text() for path in kept
                   if path.is_file())  # fmt: skip
    path = split_path(data, "test")
    table = read_routing_table(path).drop_columns(["metric"])
    write_routing_table(path, {name: table[name].to_pylist() for name in table.column_names})
    unscored = evaluate(data, out, "rounds")
    assert unscored.exit_code == 1
    assert f"{N} answers cannot be scored" in unscored.stderr
    assert report_of(out)["live"]["rounds"]["not_scored"] == N


def test_other_weights_and_routers_share_calls(data, tmp_path):
    out = tmp_path / "R"
    with counting_upstream() as upstream:
        pool = write_pool(tmp_path / "pool.yaml", upstream.url)
        routers = ("rounds", "rounds:merger=tiny")
        done = evaluate(data, out, *routers, "--pool", str(pool), "--lambdas", "0,1")
        assert done.exit_code == 0, done.output
        # this router asks the same at each weight; another merger makes one more call a question
        assert len(upstream.calls) == CALLS + N
    rows = report_of(out)["routers"]
    assert all(len(row["curve"]) == 2 for row in rows.values())
    assert all(row["aiq"] is not None for row in rows.values())


def test_without_pool_and_calls_the_row_says_what_is_missing(data, tmp_path):
    done = evaluate(data, tmp_path / "R", "rounds", "best_single")
    assert done.exit_code == 1
    report = report_of(tmp_path / "R")
    assert list(report["routers"]) == ["best_single"]
    assert f"{N} of purpose 'plan', on {N} questions" in report["failed"]["rounds"]
    assert "--pool FILE" in report["failed"]["rounds"]


def test_a_budget_that_runs_out_counts_the_unanswered_and_goes_on(data, tmp_path):
    out = tmp_path / "R"
    with counting_upstream() as upstream:
        # plans and steps cost 0.00415; three merges of at most 512 tokens, 0.0105, may follow
        pool = write_pool(tmp_path / "pool.yaml", upstream.url, budget_usd=0.0152, concurrency=1)
        first = evaluate(data, out, "rounds", "--pool", str(pool))
        assert first.exit_code == 0, first.output
        live = report_of(out)["live"]["rounds"]
        assert live["left"] == live["unanswered"] > 0
        assert 0 < live["cost_usd"] <= 0.0152
        said = f"the budget ran out before {live['left']} calls: {live['unanswered']} of {N}"
        assert said in first.stderr
        before = len(upstream.calls)
        write_pool(pool, upstream.url)
        done = evaluate(data, out, "rounds", "--pool", str(pool))
        assert done.exit_code == 0, done.output
        live = report_of(out)["live"]["rounds"]
        assert (live["left"], live["unanswered"]) == (0, 0)
        made = Counter((call.model, call.text) for call in upstream.calls)
        assert before < len(upstream.calls) == CALLS
        assert set(made.values()) == {1}


def test_a_failed_call_is_a_failed_call_of_the_episode_and_is_made_again(data, tmp_path):
    out = tmp_path / "R"
    pool = tmp_path / "serve.yaml"
    entries = [
        {"name": "tiny", "engine": "echo", "config": {"fail_with": "500"}},
        {"name": "cook", "engine": "echo", "config": {"text": "It is 7"}},
    ]
    pool.write_text(yaml.safe_dump({"artifact": "none", "pool": entries}))
    done = evaluate(data, out, "rounds", "--pool", str(pool))
    assert done.exit_code == 0, done.output
    report = report_of(out)
    assert report["live"]["rounds"]["failed"] == N
    assert report["routers"]["rounds"]["quality"] == pytest.approx(0.1)
    # the pool has no prices: those of the data hold
    assert report["routers"]["rounds"]["cost_usd_per_1k"] > 0
    assert report["routers"]["rounds"]["answer_s"] is None
    first = repeatable(report)
    assert evaluate(data, out, "rounds").exit_code == 0
    assert repeatable(report_of(out)) == first
    entries[0]["config"] = {"text": "7"}
    pool.write_text(yaml.safe_dump({"artifact": "none", "pool": entries}))
    assert evaluate(data, out, "rounds", "--pool", str(pool)).exit_code == 0
    assert report_of(out)["live"]["rounds"]["failed"] == 0


def test_an_llm_that_the_pool_lacks_fails_the_row_before_any_call(data, tmp_path):
    with counting_upstream() as upstream:
        pool = write_pool(tmp_path / "pool.yaml", upstream.url)
        lacking = yaml.safe_load(pool.read_text())
        del lacking["llms"]["cook"]
        pool.write_text(yaml.safe_dump(lacking))
        done = evaluate(data, tmp_path / "R", "rounds", "--pool", str(pool))
        assert done.exit_code == 1
        assert "has no LLM cook, which the router calls; it has tiny" in done.stderr
        assert not upstream.calls


def test_verdicts_that_the_data_lacks_are_asked_live(tmp_path):
    data = tmp_path / "cascade"
    write_routing_data(data, recorded(200), "train")
    fresh = recorded(6, seed=1)
    fresh = replace(
        fresh,
        query_ids=tuple(f"t{i}" for i in range(6)),
        queries=tuple(f"fresh question {i * 104729}" for i in range(6)),
        verdicts=None, verify_input_tokens=None, verify_output_tokens=None,
    )  # fmt: skip
    write_routing_data(data, fresh, "test")
    path = split_path(data, "test")
    table = read_routing_table(path)
    columns = {name: table[name].to_pylist() for name in table.column_names}
    columns["response"] = [f"said by {name}" for name in columns["model_name"]]
    write_routing_table(path, columns)
    pool = tmp_path / "serve.yaml"
    entries = [
        {"name": "small", "engine": "echo", "config": {"text": "Yes"}},
        {"name": "large", "engine": "echo", "config": {"text": "unused"}},
    ]
    pool.write_text(yaml.safe_dump({"artifact": "none", "pool": entries}))
    bare = evaluate(data, tmp_path / "R", "automix", "--lambdas", "0.3")
    assert bare.exit_code == 1
    assert "has no verdicts" in bare.stderr
    assert "--pool FILE" in bare.stderr
    done = evaluate(data, tmp_path / "R", "automix", "--lambdas", "0.3", "--pool", str(pool))
    assert done.exit_code == 0, done.output
    report = report_of(tmp_path / "R")
    at = next(one for one in report["routers"]["automix"]["episodes"] if one["lambda"] == 0.3)
    assert at["calls"] == 5  # small's recorded answer, and four verdicts on it: yes
    assert report["live"]["automix"]["calls"] == 4 * 6
    curve = {lam: quality for lam, quality, _ in report["routers"]["automix"]["curve"]}
    assert curve[0.3] == pytest.approx(np.mean(fresh.quality[:, 0]))


def test_a_report_at_a_uri_keeps_its_calls(data, tmp_path):
    out = "memory://reports-of-live-calls/R"
    with counting_upstream() as upstream:
        pool = write_pool(tmp_path / "pool.yaml", upstream.url)
        assert evaluate(data, out, "rounds", "--pool", str(pool)).exit_code == 0
        again = evaluate(data, out, "rounds", "--pool", str(pool))
        assert again.exit_code == 0, again.output
        assert len(upstream.calls) == CALLS
    assert evaluate(data, out, "rounds").exit_code == 0


def test_resplit_counts_the_calls_of_its_splits(data, tmp_path):
    with counting_upstream() as upstream:
        pool = write_pool(tmp_path / "pool.yaml", upstream.url)
        done = evaluate(data, tmp_path / "R", "rounds", "--pool", str(pool), "--resplit", "0,1")
        assert done.exit_code == 0, done.output
        report = report_of(tmp_path / "R")
        assert report["routers"]["rounds"]["calls"] == 4
        n = int(report["n_queries"])
        assert report["live"]["rounds"]["calls"] == 2 * 4 * n
        assert len(set(map(id, upstream.calls))) <= 2 * 4 * n


def test_equal_sampled_calls_of_an_episode_are_different_calls(tmp_path):
    from waypost.contracts.steps import Call
    from waypost.pipelines.evaluation.pool import read_callable_pool

    pool = read_callable_pool(write_pool(tmp_path / "pool.yaml", "http://127.0.0.1:9/v1"))
    kept = KeptCalls(tmp_path / "calls", pool)

    def seeds(call: Call) -> list[int]:
        wanted = [kept.request(call, answers=False, max_tokens=8, repeat=n) for n in range(3)]
        return [one["seed"] for one in wanted if one is not None]

    assert len(set(seeds(Call("tiny", "yes or no?", 5, 0.7)))) == 3
    assert len(set(seeds(Call("tiny", "yes or no?", 5, 0.0)))) == 1
    assert seeds(Call("tiny", "yes or no?", 5, 0.7, seed=4)) == [4, 4, 4]
    plain = kept.request(Call("tiny", "?"), answers=False, max_tokens=8, repeat=0)
    stops = kept.request(
        Call("tiny", "?", stop=("b",), raw=True), answers=False, max_tokens=8, repeat=0
    )
    assert plain is not None
    assert stops is not None
    assert not {"stop", "raw"} & set(plain)
    assert (stops["stop"], stops["raw"]) == (["b"], True)
    assert stops["key"] != plain["key"]
    assert kept.request(Call("nobody", "?"), answers=True, max_tokens=8, repeat=0) is None
    shutil.rmtree(tmp_path / "calls", ignore_errors=True)


def test_a_router_r1_is_evaluated_live_with_its_stop_strings(data, tmp_path):
    artifact = tmp_path / "r1"
    words = ["--router", "router_r1", "--data", str(data), "--out", str(artifact)]
    trained = CliRunner().invoke(command, ["train", *words, "policy_llm=cook", "max_turns=1"])
    assert trained.exit_code == 0, trained.output
    out = tmp_path / "R"
    with counting_upstream() as upstream:
        upstream.text = "<think>a sum</think><answer>It is 7</answer> and more"
        pool = write_pool(tmp_path / "pool.yaml", upstream.url)
        done = evaluate(data, out, str(artifact), "--pool", str(pool))
        assert done.exit_code == 0, done.output
        assert Counter(call.model for call in upstream.calls) == {"cook": N}
        upstream.text = "<think>ask</think><search>tiny: a sum of two numbers?</search>"
        shutil.rmtree(out)
        upstream.calls.clear()
        assert evaluate(data, out, str(artifact), "--pool", str(pool)).exit_code == 0
        # two turns of cook, whose search tiny answers once for all, then the best single LLM
        assert Counter(call.model for call in upstream.calls)["tiny"] >= 1
    (row,) = [one for name, one in report_of(out)["routers"].items() if "r1" in name]
    assert row["calls"] == 4
