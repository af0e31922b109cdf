"""The third phase on Ray: rows, scores, costs, resume, rates, budget, faults of the input."""

from __future__ import annotations

import json
import os
import signal
from collections import Counter
from pathlib import Path

import psutil
import pyarrow.parquet as pq
import pytest
import yaml
from click.testing import CliRunner

from support.counting_upstream import counting_upstream
from waypost.cli import command
from waypost.config import settings
from waypost.contracts.errors import ConfigError, PipelineError
from waypost.contracts.routing_data import read_routing_data
from waypost.pipelines.data import responses
from waypost.pipelines.data.responses import run

pytestmark = [
    pytest.mark.ray,
    pytest.mark.usefixtures("ray_here"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


def question(number: int, **fields: object) -> dict[str, object]:
    return {
        "query_id": f"q{number}",
        "task_name": "sums",
        "query": f"What is {number} + 0?",
        "ground_truth": str(number),
        "metric": "number",
        "max_tokens": 8,
    } | fields


def write_run(
    folder: Path, llms: dict[str, dict[str, object]], n: int = 10, more=(), **settings: object
) -> Path:
    (folder / "data").mkdir(exist_ok=True)
    lines = [json.dumps(one) for one in ([question(i) for i in range(n)] + list(more))]
    (folder / "data" / "queries_train.jsonl").write_text("\n".join(lines) + "\n")
    config = folder / "data.yaml"
    data = {"out": "data", "encoder": {"kind": "hashing", "dimension": 32}, "llms": llms} | settings
    config.write_text(yaml.safe_dump(data, sort_keys=False))
    return config


def rows(folder: Path) -> list[dict[str, object]]:
    return pq.read_table(folder / "data" / "routing_train.parquet").to_pylist()


SEVEN = {"engine": "echo", "config": {"text": "The answer is 7"}, "input_price": 1.0}
PRICED = SEVEN | {"output_price": 2.0}


def endpoint(url: str, **more: object) -> dict[str, object]:
    return {"engine": "openai", "config": {"base_url": url, "model": "m"}, "concurrency": 8} | more


def test_every_model_answers_every_question_and_is_scored_and_priced(tmp_path):
    told = []
    config = write_run(tmp_path, {"org/seven": PRICED, "free": SEVEN})
    summary = run(config, watcher=lambda states, seconds: told.append(states))
    assert summary.complete
    found = rows(tmp_path)
    assert len(found) == 20
    assert sorted(row["query_id"] for row in found if row["performance"] == 1) == ["q7", "q7"]
    seven = next(row for row in found if row["model_name"] == "org/seven")
    cost = (seven["input_tokens"] * 1.0 + seven["output_tokens"] * 2.0) / 1e6
    assert seven["cost_usd"] == pytest.approx(cost)
    assert all(row["cost_usd"] is None for row in found if row["model_name"] == "free")
    run(config, ["llms.free.output_price=1.0"])  # the prices of llms.json, not those of the call
    assert all(row["cost_usd"] > 0 for row in rows(tmp_path))
    assert summary.llms["org/seven"].usd == pytest.approx(
        sum(row["cost_usd"] for row in found if row["model_name"] == "org/seven")
    )
    data = read_routing_data(tmp_path / "data")
    assert data.names == ("org/seven", "free")
    assert list((tmp_path / "data").glob("query_embeddings-*.safetensors"))
    assert sum(state.tally.done for state in told[-1]) == 20


def test_what_is_answered_is_not_asked_again_and_new_scorers_call_nobody(tmp_path, monkeypatch):
    with counting_upstream() as upstream:
        config = write_run(tmp_path, {"a": endpoint(upstream.url)})
        run(config)
        before = rows(tmp_path)
        assert len(upstream.calls) == 10
        assert run(config).llms["a"].done == 0
        monkeypatch.setattr(responses, "SCORER_VERSION", "next")
        assert run(config).llms["a"].cached == 10
        assert len(upstream.calls) == 10
        assert rows(tmp_path) == before
        run(config, ["temperature=0.5"])
        assert len(upstream.calls) == 20


def test_the_same_prompt_is_asked_once_for_all_its_questions(tmp_path):
    with counting_upstream() as upstream:
        same = [question(1, query_id="again"), question(1, query_id="other", ground_truth="7")]
        config = write_run(tmp_path, {"a": endpoint(upstream.url)}, n=3, more=same)
        assert run(config).complete
        assert len(upstream.calls) == 3
        assert {row["query_id"]: row["performance"] for row in rows(tmp_path)} == {
            "q0": 0, "q1": 0, "q2": 0, "again": 0, "other": 1,
        }  # fmt: skip


def test_a_failed_call_is_a_row_without_a_score_and_is_tried_again(tmp_path):
    config = write_run(tmp_path, {"a": SEVEN, "b": PRICED})
    summary = run(config, ['llms.b.config.fail_with="500"'])
    assert not summary.complete
    assert summary.unanswered == {"a": 0, "b": 10}
    assert summary.llms["b"].errors == Counter(EngineServerError=10)
    failed = [row for row in rows(tmp_path) if row["model_name"] == "b"]
    assert len(failed) == 10
    for row in failed:
        assert row["error"].startswith("EngineServerError: ")
        assert all(row[key] is None for key in ("performance", "response", "cost_usd"))
    shown = CliRunner().invoke(command, ["data", "responses", "--config", str(config)])
    assert shown.exit_code == 0, shown.output
    assert all(row["error"] is None for row in rows(tmp_path))
    assert len(rows(tmp_path)) == 20


def test_an_endpoint_is_asked_again_after_what_it_asks_to_wait(tmp_path):
    with counting_upstream(refuse_first=5, retry_after_s=0.3) as upstream:
        assert run(write_run(tmp_path, {"a": endpoint(upstream.url)})).complete
        assert len(upstream.calls) == 15
        again = [
            call
            for call in upstream.calls
            if Counter(c.text for c in upstream.calls)[call.text] > 1
        ]
        assert min(again[-1].begin - again[0].begin, 9) > 0.3


def test_an_llm_that_does_not_start_is_named_and_the_others_go_on(tmp_path):
    none = {"engine": "transformers", "config": {"model": str(tmp_path / "none")}, "cpus": 0}
    summary = run(write_run(tmp_path, {"bad": none, "good": SEVEN}))
    assert summary.unanswered == {"bad": 10, "good": 0}
    assert list(summary.reasons["bad"]) == ["WeightsError"]
    (reason,) = {row["error"] for row in rows(tmp_path) if row["model_name"] == "bad"}
    assert reason.startswith("WeightsError: ")
    with pytest.raises(PipelineError, match=r"no call was answered: bad: .*none"):
        run(write_run(tmp_path, {"bad": none}))


def test_answers_that_cannot_be_scored_keep_their_text(tmp_path):
    broken = question(1, query_id="code", metric="code", ground_truth="assert (", query="code?")
    text = "```python\ndef f():\n    return 7\n```"
    coder = PRICED | {"config": {"text": text}}
    summary = run(write_run(tmp_path, {"a": coder}, n=2, more=[broken]))
    assert summary.unanswered == {"a": 1}
    row = next(row for row in rows(tmp_path) if row["query_id"] == "code")
    assert row["error"].startswith("not scored: SchemaError")
    assert row["response"] == text
    assert row["performance"] is None


SHOUTING = """
from waypost.benchmarks.base import Benchmark, Fields, Source


class Shouting(Benchmark):
    source = Source("", "test", path=None)
    columns = {"text": str}
    max_tokens = 8

    def question(self, row):
        return Fields(row["text"], "capitals")


def score(response, ground_truth, choices, query):
    return sum(map(str.isupper, response)) / len(response)
"""


def test_a_custom_task_brings_its_own_metric(tmp_path, monkeypatch):
    plugin = tmp_path / "plugins" / "shouting"
    plugin.mkdir(parents=True)
    (plugin / "benchmark.py").write_text(SHOUTING)
    monkeypatch.setenv("WAYPOST_PLUGINS", str(tmp_path / "plugins"))
    settings.cache_clear()
    (tmp_path / "rows.jsonl").write_text('{"text": "ABcd"}\n{"text": "ABCD"}\n')
    chosen = {"shouting": {"path": "rows.jsonl"}}
    llms = {"a": {"engine": "echo", "config": {}}}
    config = write_run(tmp_path, llms, benchmarks=chosen, test_share=0.0)
    done = CliRunner().invoke(command, ["data", "run", "--config", str(config)])
    assert done.exit_code == 0, done.output
    assert {row["query"]: row["performance"] for row in rows(tmp_path)} == {"ABcd": 0.5, "ABCD": 1}


def test_a_budget_stops_cleanly_and_the_next_run_goes_on(tmp_path):
    with counting_upstream() as upstream:  # 10 tokens in, 5 out: 0.02 USD at these prices
        llm = endpoint(upstream.url, input_price=1000.0, output_price=2000.0)
        config = write_run(tmp_path, {"a": llm}, n=30, budget_usd=0.21)
        shown = CliRunner().invoke(
            command, ["data", "responses", "--config", str(config), "--json"]
        )
        assert shown.exit_code == 1, shown.output
        assert shown.stdout.startswith("{"), shown.output
        told = json.loads(shown.stdout)["llms"]["a"]
        assert told["usd"] <= 0.21
        assert told["usd"] == pytest.approx(0.02 * len(upstream.calls))
        assert told["left_by_budget"] == told["unanswered"] == 30 - len(upstream.calls)
        assert 8 <= len(upstream.calls) <= 10
        assert len(rows(tmp_path)) == len(upstream.calls)
        run(config, ["budget_usd=9"])
        assert len(upstream.calls) == len(rows(tmp_path)) == 30


def test_what_a_budget_buys_is_of_every_split_and_of_every_llm(tmp_path):
    with counting_upstream() as upstream:  # 0.02 and 0.2 USD a call; all calls are 17.6 USD
        cheap = endpoint(upstream.url, input_price=1e3, output_price=2e3)
        dear = endpoint(upstream.url, input_price=1e4, output_price=2e4)
        dear["config"] = {"base_url": upstream.url, "model": "other"}
        config = write_run(tmp_path, {"cheap": cheap, "dear": dear}, n=0, budget_usd=8.8)
        for split, numbers, cap in (("train", range(60), 16), ("test", range(60, 80), 8)):
            lines = [json.dumps(question(n, max_tokens=cap)) for n in numbers]
            (tmp_path / "data" / f"queries_{split}.jsonl").write_text("\n".join(lines) + "\n")
        summary = run(config)
    spent = sum(tally.usd for tally in summary.llms.values())
    assert 0.85 * 8.8 <= spent <= 8.8
    found = Counter(
        (row["model_name"], split)
        for split in ("train", "test")
        for row in pq.read_table(tmp_path / "data" / f"routing_{split}.parquet").to_pylist()
    )
    for llm in ("cheap", "dear"):
        answered = found[llm, "train"] + found[llm, "test"]
        assert 25 <= answered <= 55, found  # a half of 80
        assert 0.1 <= found[llm, "test"] / answered <= 0.45, found  # a quarter


def test_rates_hold_over_all_actors(tmp_path):
    with counting_upstream() as upstream:
        llm = endpoint(upstream.url, requests_per_minute=600, actors=2)
        assert run(write_run(tmp_path, {"a": llm}, n=20)).complete
    begins = sorted(call.begin for call in upstream.calls)
    assert begins[-1] - begins[0] > 1.7  # 19 gaps of 0.1 s
    assert all(b - a > 0.7 for a, b in zip(begins, begins[10:], strict=False))


def test_a_killed_asker_loses_what_it_had_in_flight_and_no_more(tmp_path):
    with counting_upstream(delay_s=0.05) as upstream:
        config = write_run(tmp_path, {"a": endpoint(upstream.url)}, n=300)
        killed: list[int] = []

        def kill(states, seconds) -> None:
            if len(upstream.calls) > 60 and not killed:
                mine = psutil.Process(os.getpid()).children(recursive=True)
                killed.extend(p.pid for p in mine if "CallWorker" in " ".join(p.cmdline()))
                for pid in killed:
                    os.kill(pid, signal.SIGKILL)

        assert run(config, watcher=kill).complete
    assert killed
    assert len(rows(tmp_path)) == len({row["query_id"] for row in rows(tmp_path)}) == 300
    assert len(upstream.calls) - 300 <= 8


def test_every_fault_of_config_and_questions_is_named(tmp_path):
    config = write_run(tmp_path, {"a": SEVEN}, budget_usd=1)
    with pytest.raises(ConfigError) as found:
        run(config, ["llms.b.engine=none", "llms.a.config.delay_s=-1"])
    message = str(found.value)
    assert "llms.b.engine: no engine is named 'none'" in message
    assert "llms.a.config" in message
    assert "needs input_price and output_price" in message
    keyed = ['llms.c={engine: openai, config: {base_url: "http://h/v1", model: m, service: x}}']
    with pytest.raises(ConfigError, match=r"llms\.c\.config\.service: no key for the service 'x'"):
        run(config, keyed)
    lines = [json.dumps(question(1)), "{", json.dumps(question(1)), json.dumps({"query": 1})]
    (tmp_path / "data" / "queries_train.jsonl").write_text("\n".join(lines))
    with pytest.raises(ConfigError) as found:
        run(write_run_config_only(config))
    assert [f":{n}" in str(found.value) for n in (2, 3, 4)] == [True] * 3
    wrong = json.dumps(question(1, metric="nummber"))
    (tmp_path / "data" / "queries_train.jsonl").write_text(wrong)
    with pytest.raises(ConfigError, match=r"no metric 'nummber'.*there are exact_match"):
        run(config)
    (tmp_path / "data" / "queries_train.jsonl").unlink()
    shown = CliRunner().invoke(command, ["data", "responses", "--config", str(config)])
    assert shown.exit_code == 2
    assert "run `waypost data queries` first" in shown.output


def write_run_config_only(config: Path) -> Path:
    data = yaml.safe_load(config.read_text())
    del data["budget_usd"]
    config.write_text(yaml.safe_dump(data))
    return config


def test_a_whole_run_ends_in_a_folder_that_train_takes(tmp_path):
    lines = "\n".join(json.dumps(question(n)) for n in range(40))
    (tmp_path / "mine.jsonl").write_text(lines)
    config = write_run(
        tmp_path, {"a": PRICED, "b": PRICED | {"config": {}}}, questions=["mine.jsonl"]
    )
    done = CliRunner().invoke(command, ["data", "run", "--config", str(config)])
    assert done.exit_code == 0, done.output
    train = ["train", "--router", "knnrouter", "--encoder", "hashing", "--folds", "0"]
    out = ["--data", str(tmp_path / "data"), "--out", str(tmp_path / "artifact")]
    done = CliRunner().invoke(command, [*train, *out])
    assert done.exit_code == 0, done.output
