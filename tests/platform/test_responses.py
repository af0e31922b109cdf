"""Asking every LLM every question: rows, scores, costs, resume, faults of the input."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml
from click.testing import CliRunner

from waypost.cli import command
from waypost.contracts.errors import ConfigError
from waypost.contracts.routing_data import read_routing_data
from waypost.pipelines.responses import Question, run, split_of


def question(number: int, **fields: object) -> dict[str, object]:
    return {
        "query_id": f"q{number}",
        "task_name": "sums",
        "query": f"What is {number} + 0?",
        "ground_truth": str(number),
        "metric": "number",
        "max_tokens": 8,
    } | fields


def write_run(folder: Path, n_questions: int = 10, **llms: dict[str, object]) -> Path:
    lines = [json.dumps(question(n)) for n in range(n_questions)]
    (folder / "questions.jsonl").write_text("\n".join(lines) + "\n")
    config = folder / "data.yaml"
    data = {"queries": "questions.jsonl", "out": "data", "llms": llms}
    config.write_text(yaml.safe_dump(data, sort_keys=False))
    return config


def rows(folder: Path, split: str = "train") -> list[dict[str, object]]:
    return pq.read_table(folder / f"routing_{split}.parquet").to_pylist()


SEVEN = {"engine": "echo", "config": {"text": "The answer is 7"}, "input_price": 1.0}


def test_every_model_answers_every_question_and_is_scored_and_priced(tmp_path):
    config = write_run(tmp_path, seven=SEVEN | {"output_price": 2.0}, free=SEVEN)
    out = run(config)
    found = rows(out) + rows(out, "test")
    assert len(found) == 20
    right = [row["query_id"] for row in found if row["performance"] == 1]
    assert sorted(right) == ["q7", "q7"]
    seven = next(row for row in found if row["model_name"] == "seven")
    assert seven["cost_usd"] == pytest.approx(
        (seven["input_tokens"] * 1.0 + seven["output_tokens"] * 2.0) / 1e6
    )
    assert all(row["cost_usd"] is None for row in found if row["model_name"] == "free")
    assert read_routing_data(out).names == ("seven", "free")


def test_what_is_answered_is_not_asked_again(tmp_path):
    config = write_run(tmp_path, 4, seven=SEVEN)
    run(config)
    cells = tmp_path / "data" / ".cells" / "seven.jsonl"
    kept = cells.read_text().splitlines()[:3]
    cells.write_text("\n".join([*kept, kept[0][:20]]))  # as a killed run leaves it
    asked: list[int] = []
    run(config, progress=lambda name, done, total: asked.append(done))
    assert asked == [4]


def test_a_changed_cap_is_another_cell(tmp_path):
    config = write_run(tmp_path, 2, seven=SEVEN)
    run(config)
    lines = [json.dumps(question(0)), json.dumps(question(1, max_tokens=9))]
    (tmp_path / "questions.jsonl").write_text("\n".join(lines))
    asked: list[int] = []
    run(config, progress=lambda name, done, total: asked.append(done))
    assert len(asked) == 1


def test_a_failed_call_is_a_row_without_a_score_and_is_tried_again(tmp_path):
    failing = {"engine": "echo", "config": {"text": "7", "fail_with": "500"}}
    config = write_run(tmp_path, 3, seven=SEVEN, broken=failing)
    out = run(config)
    broken = [row for row in rows(out) if row["model_name"] == "broken"]
    assert all(row["performance"] is None and row["response"] is None for row in broken)
    assert all(row["error"].startswith("EngineServerError") for row in broken)
    mended = yaml.safe_load(config.read_text())
    del mended["llms"]["broken"]["config"]["fail_with"]
    config.write_text(yaml.safe_dump(mended))
    run(config)
    assert all(row["error"] is None for row in rows(out) + rows(out, "test"))


def test_the_split_holds_the_same_share_of_every_task_and_moves_little():
    def questions(n: int) -> list[Question]:
        return [Question(**question(i, task_name=f"task{i % 3}")) for i in range(n)]

    before, after = split_of(questions(30), 0.2, 0), split_of(questions(31), 0.2, 0)
    assert sorted(before.values()) == ["test"] * 6 + ["train"] * 24
    assert sum(before[key] != after[key] for key in before) <= 2


def test_every_fault_of_the_questions_is_named(tmp_path):
    config = write_run(tmp_path, 1, seven=SEVEN)
    bad = [question(0), question(0), question(1, max_tokens=0), question(2, colour="red")]
    lines = [*map(json.dumps, bad), "not json"]
    (tmp_path / "questions.jsonl").write_text("\n".join(lines))
    with pytest.raises(ConfigError) as caught:
        run(config)
    told = str(caught.value)
    assert len(caught.value.faults) == 4
    for words in ("2: query_id q0 stands twice", "3: max_tokens", "4: colour", ":5"):
        assert words in told


def test_the_command_writes_the_folder_and_names_faults_of_the_file(tmp_path):
    config = write_run(tmp_path, 2, seven=SEVEN)
    done = CliRunner().invoke(command, ["data", "responses", "--config", str(config)])
    assert done.exit_code == 0, done.output
    assert "wrote" in done.output
    wrong = CliRunner().invoke(
        command, ["data", "responses", "--config", str(config), "sed=1", "test_share=2"]
    )
    assert wrong.exit_code == 2
    assert "sed: unknown key" in wrong.output
    assert "test_share" in wrong.output
