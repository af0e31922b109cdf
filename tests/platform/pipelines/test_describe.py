import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from waypost.cli import command
from waypost.contracts.errors import SchemaError
from waypost.contracts.questions import Question, queries_path, write_questions
from waypost.contracts.records import LLMInfo
from waypost.contracts.tables import split_path, write_llms, write_routing_table
from waypost.encoders import make_encoder
from waypost.pipelines.data.describe import describe
from waypost.pipelines.data.embeddings import keep_embeddings
from waypost.testing.synthetic import ENCODER_ID

TEXTS = {
    "q0": "How many apples fall from the old tree?",
    "q1": "how many apples fall from the old tree",
    "q2": "Name the capital of Peru.",
    "q3": "Which metal is liquid at room temperature?",
    "q4": "How many apples fall, from the old tree!",
}
FIELDS = ("query_id", "task_name", "model_name", "performance", "cost_usd", "latency_s", "error")
LATE = "EngineTimeoutError: no answer in 30 s"
TRAIN = [
    ("q0", "x", "a", 1.0, 0.01, 1.0, None),
    ("q0", "x", "b", 1.0, 0.02, 7.0, None),
    ("q1", "x", "a", 0.0, 0.03, 2.0, None),
    ("q1", "x", "b", 0.0, 0.02, 7.0, None),
    ("q2", "y", "a", 1.0, None, 3.0, None),
    ("q2", "y", "b", None, None, None, LATE),
    ("q3", "y", "a", None, None, 4.0, None),
]
TEST = [("q4", "y", "a", 0.5, None, 5.0, None), ("q4", "y", "b", 1.0, None, None, None)]


def write_split(folder, split, rows):
    columns = {name: [row[i] for row in rows] for i, name in enumerate(FIELDS)}
    columns["query"] = [TEXTS.get(row[0], row[0]) for row in rows]
    columns["response"] = [None if row[3] is None else "said" for row in rows]
    columns["scorer_version"] = ["2" if row[0] == "q4" else "1" for row in rows]
    write_routing_table(split_path(folder, split), columns)


@pytest.fixture
def folder(tmp_path):
    write_split(tmp_path, "train", TRAIN)
    write_split(tmp_path, "test", TEST)
    llms = [LLMInfo(name="a", size="7B", input_price=0.1, output_price=0.2, context_length=4096)]
    write_llms(tmp_path / "llms.json", [*llms, LLMInfo(name="b"), LLMInfo(name="c")])
    asked = {"task_name": "y", "ground_truth": "1", "metric": "number", "max_tokens": 9}
    questions = [Question(query_id=key, query=f"text of {key}", **asked) for key in ("q4", "q9")]
    write_questions(queries_path(tmp_path, "test"), questions)
    return tmp_path


def test_splits_tasks_duplicates_and_leaks(folder):
    found = describe(folder)
    assert found["splits"] == {
        "train": {"rows": 7, "questions": 4, "near_duplicates": 1},
        "test": {"rows": 2, "questions": 1, "near_duplicates": 0},
    }
    assert found["unasked"] == {"test": 1}
    assert found["tasks"] == {"x": {"train": 2, "test": 0}, "y": {"train": 2, "test": 1}}
    assert found["leaks"] == [{"of": "test", "in": "train", "questions": 1}]


def test_an_llm_has_facts_scores_gaps_and_costs(folder):
    found = describe(folder)["llms"]
    assert found["a"] == {
        "size": "7B",
        "input_price": 0.1,
        "output_price": 0.2,
        "context_length": 4096,
        "mean": 0.625,
        "measured": 4,
        "missing": 1,
        "failed": {},
        "unscored": 1,
        "cost_usd": pytest.approx(0.04),
        "cost_usd_per_call": pytest.approx(0.02),
        "unknown_costs": 3,
        "input_tokens": None,
        "output_tokens": None,
        "latency_s": {"p50": 3.0, "p95": pytest.approx(4.8)},
    }
    b = found["b"]
    assert b["mean"] == pytest.approx(2 / 3)
    assert (b["measured"], b["missing"], b["unscored"], b["unknown_costs"]) == (3, 2, 0, 1)
    assert b["failed"] == {"EngineTimeoutError": 1}
    assert (found["c"]["mean"], found["c"]["missing"]) == (None, 6)


def test_every_cell_is_counted_once(folder):
    found = describe(folder)
    assert found["calls"] == {
        "rows": 9,
        "measured": 7,
        "missing": 9,
        "failed": {"EngineTimeoutError": 1},
        "unscored": 1,
        "with_response": 7,
        "with_verdicts": 0,
        "scorer_versions": {"1": 5, "2": 2},
    }
    assert 7 + 9 + 1 + 1 == 3 * 6
    assert found["costs"] == {
        "basis": "recorded dollars",
        "usd": pytest.approx(0.08),
        "unknown": 4,
    }


def test_scores_ties_and_headroom(folder):
    found = describe(folder)
    assert found["scores"]["x"]["b"] == {"mean": 0.5, "measured": 2}
    assert found["scores"]["y"]["a"] == {"mean": 0.75, "measured": 2}
    assert found["scores"]["y"]["c"] == {"mean": None, "measured": 0}
    third = pytest.approx(1 / 3)
    assert found["ties"]["train"] == {
        "questions": 2,
        "several_best": 1.0,
        "all_equal": 1.0,
        "none_scores": 0.5,
    }
    assert (found["ties"]["all"]["questions"], found["ties"]["all"]["none_scores"]) == (3, third)
    assert found["headroom"]["test"] == {
        "best": "b",
        "questions": 1,
        "best_mean": 1.0,
        "oracle_mean": 1.0,
        "headroom": 0.0,
    }
    assert found["headroom"]["train"]["best"] == "a"


def test_embeddings_say_how_much_they_cover(folder):
    keep_embeddings([TEXTS["q0"], TEXTS["q4"], "of no table"], make_encoder(ENCODER_ID), folder)
    found = describe(folder)["embeddings"]
    assert found == {
        "queries": [{"encoder": ENCODER_ID, "dimension": 64, "texts": 5, "embedded": 2}],
        "llms": [],
    }


def test_an_unreadable_file_of_embeddings_is_named(folder):
    (folder / "query_embeddings-x.safetensors").write_bytes(b"not tensors at all")
    with pytest.raises(SchemaError, match=r"query_embeddings-x\.safetensors: not readable"):
        describe(folder)


def test_one_id_in_two_splits_is_two_questions(folder):
    write_split(folder, "validation", TRAIN[:2])
    found = describe(folder)
    assert found["splits"]["validation"]["questions"] == 1
    assert [leak["questions"] for leak in found["leaks"]] == [1, 1, 1]
    assert found["llms"]["a"]["measured"] == 5


def test_a_split_that_nobody_was_asked_yet_counts_as_missing(folder):
    split_path(folder, "test").unlink()
    found = describe(folder)
    assert list(found["splits"]) == ["train"]
    assert found["unasked"] == {"test": 2}
    assert [one["missing"] for one in found["llms"].values()] == [2, 3, 6]
    assert "questions without a row of any LLM: test 2" in show(folder).output


def test_nothing_measured_is_described_too(folder):
    split_path(folder, "test").unlink()
    write_split(folder, "train", [row for row in TRAIN if row[3] is None])
    found = describe(folder)
    assert found["headroom"] == {"train": None, "all": None}
    assert found["ties"]["all"]["several_best"] is None
    assert found["costs"]["usd"] is None
    assert show(folder).exit_code == 0


def show(folder, *options):
    return CliRunner().invoke(command, ["data", "describe", str(folder), *options])


def row_of(output, start):
    return next(line.split() for line in output.splitlines() if line.startswith(start))


def test_the_command_prints_what_it_found(folder):
    done = show(folder)
    assert done.exit_code == 0, done.output
    lines = done.output.splitlines()
    assert lines[1].startswith("5 questions, 3 LLMs, 9 rows; 7 with the answer's text")
    assert lines[1].endswith("scorer version 1, 2")
    assert "test questions with a near-duplicate in train: 1" in lines
    assert row_of(done.output, "near-duplicates inside")[2:] == ["1", "0"]
    told = [" ".join(line.split()) for line in lines]
    assert "1 a 7B 0.1 0.2 4,096 0.625 4" in told
    assert "2 b 2 1 0 EngineTimeoutError 1" in told
    assert "1 a n/a n/a 0.04 20 3 3.00 4.80" in told
    assert "y 3 0.750 (2) 1.000 (1) n/a (0)" in told
    assert "$0.08 in all, from recorded dollars" in lines
    assert json.loads(show(folder, "--json").output) == describe(folder)


def test_many_llms_are_numbered_and_shared_out_over_tables(tmp_path):
    names = [f"some-language-model-{i}" for i in range(50)]
    rows = [(key, "x", name, 1.0, None, 1.0, None) for key in ("q0", "q2") for name in names]
    write_split(tmp_path, "train", rows)
    write_llms(tmp_path / "llms.json", [LLMInfo(name=name) for name in names])
    lines = show(tmp_path).output.splitlines()
    heads = [line.split()[2:] for line in lines if line.startswith("task  n ")]
    assert [len(head) for head in heads] == [25, 25]
    assert [head for part in heads for head in part] == [str(number) for number in range(1, 51)]
    assert max(map(len, lines)) <= 200


@pytest.mark.parametrize(
    ("there", "told"),
    [
        ((), "no routing-data folder; one holds llms.json and routing_train.parquet"),
        (("queries_train.jsonl",), "holds questions and no answers yet; run `waypost data"),
    ],
)
def test_a_folder_without_routing_data_is_refused(tmp_path, there, told):
    for name in there:
        (tmp_path / name).write_text("")
    done = show(tmp_path)
    assert done.exit_code == 1
    assert f"error: {tmp_path}: {told}" in done.output


def test_a_model_that_nobody_knows_is_named(folder):
    write_llms(folder / "llms.json", [LLMInfo(name="a")])
    done = show(folder)
    assert done.exit_code == 1
    assert "routing_train.parquet: model_name b is not in" in done.output


def test_the_starter_data_has_no_gap_and_no_leak(root: Path):
    found = describe(root / "serve_configs/starter/data")
    calls, questions = found["calls"], sum(one["questions"] for one in found["splits"].values())
    assert calls["measured"] == calls["rows"] == questions * len(found["llms"])
    assert (calls["missing"], calls["failed"], calls["unscored"]) == (0, {}, 0)
    assert found["leaks"] == [{"of": "test", "in": "train", "questions": 0}]
    assert len(found["scores"]) == 11


def test_data_without_answers_and_prices(shared_data):
    found = describe(shared_data / "routerbench_subset")
    assert found["headroom"]["test"]["best"] == "gpt-4-1106-preview"
    assert found["headroom"]["test"]["best_mean"] == pytest.approx(0.897, abs=5e-4)
    assert found["calls"]["with_response"] == 0
    assert found["costs"]["basis"] == "recorded dollars"
