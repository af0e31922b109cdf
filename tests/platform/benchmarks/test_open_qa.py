"""The sets of Router-R1: rows of the collection become questions alone, with all answers."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from click.testing import CliRunner

from waypost.benchmarks.base import RowError
from waypost.benchmarks.catalog import find_benchmark, list_benchmarks
from waypost.benchmarks.open_qa import OpenQA
from waypost.benchmarks.rows import load_questions
from waypost.cli import command
from waypost.contracts.questions import read_splits
from waypost.scorers import score

EVALUATED = {
    "nq": "test", "triviaqa": "test", "popqa": "test", "hotpotqa": "dev",
    "2wikimultihopqa": "dev", "musique": "dev", "bamboogle": "test",
}  # fmt: skip
SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("question", pa.string()),
        ("golden_answers", pa.list_(pa.string())),
        ("metadata", pa.struct([("type", pa.string())])),
    ]
)
# Our own row, in the columns and types of the collection's files.
ROW = {
    "id": "test_0",
    "question": " who sings the ferry song of Ann Lee",
    "golden_answers": ["The Ferrymen", "Ferrymen of Lee", "The Ferrymen", " "],
    "metadata": {"type": "bridge"},
}
TRUTH = ["The Ferrymen", "Ferrymen of Lee"]


def test_all_seven_sets_are_there():
    names = [entry.name for entry in list_benchmarks() if entry.kind == "built-in"]
    assert {name for name in names if isinstance(find_benchmark(name), OpenQA)} == {*EVALUATED}


@pytest.mark.parametrize("name", EVALUATED)
def test_a_row_becomes_the_question_alone(name, tmp_path):
    # The collection as it is downloaded: a folder for each set, a file for each split.
    (tmp_path / name).mkdir()
    for split in ("train", EVALUATED[name]):
        row = ROW | {"question": f"{ROW['question']} in {split}"}
        (tmp_path / name / f"{split}.jsonl").write_text(json.dumps(row) + "\n")
    pq.write_table(pa.Table.from_pylist([ROW], schema=SCHEMA), tmp_path / "other.parquet")
    benchmark = find_benchmark(name)
    source = benchmark.source
    assert (source.dataset, source.configs) == ("RUC-NLPIR/FlashRAG_datasets", (name,))
    for split in (None, "train"):
        (question,) = load_questions(benchmark, tmp_path, split=split).questions
        asked = f"who sings the ferry song of Ann Lee in {split or EVALUATED[name]}?"
        assert (question.query, question.ground_truth) == (asked, TRUTH)
        assert (question.task_name, question.metric) == (name, "exact_match")
    (question,) = load_questions(benchmark, tmp_path / "other.parquet").questions
    assert question.ground_truth == TRUTH


def test_only_the_answer_itself_is_right():
    question = find_benchmark("hotpotqa").read(ROW)
    said = ("ferrymen", "It is the Ferrymen.")
    assert [score(question.metric, text, question.ground_truth) for text in said] == [1.0, 0.0]


def test_a_question_mark_is_added_once():
    nq = find_benchmark("nq")
    asked = [nq.read(ROW | {"question": text}) for text in ("who? ", "who")]
    assert [one.query for one in asked] == ["who?", "who?"]


def test_an_instruction_is_part_of_the_question():
    popqa = find_benchmark("popqa")
    plain, asked = popqa.read(ROW), popqa.read(ROW, instruction="Answer in a few words.")
    assert asked.query == f"{plain.query}\nAnswer in a few words."
    assert asked.query_id != plain.query_id
    assert asked.ground_truth == plain.ground_truth


@pytest.mark.parametrize(
    ("change", "column", "problem"),
    [
        ({"golden_answers": ["", " "]}, "golden_answers", "is empty"),
        ({"golden_answers": "a"}, "golden_answers", "expected a valid list, found str"),
        ({"question": " "}, "", "its prompt is empty"),
    ],
)
def test_a_row_that_cannot_be_asked_says_why(change, column, problem):
    with pytest.raises(RowError) as caught:
        find_benchmark("musique").read(ROW | change)
    assert caught.value.column == column
    assert problem in caught.value.problem


def data_queries(folder, name, **keys):
    (folder / f"{name}.yaml").write_text(yaml.safe_dump({"out": name, **keys}))
    words = ["data", "queries", "--config", str(folder / f"{name}.yaml")]
    done = CliRunner().invoke(command, words)
    assert done.exit_code == 0, done.output
    return read_splits(folder / name)


def test_training_and_evaluation_questions_without_llms(tmp_path):
    names = ("apple", "boat", "cloud", "drum", "eagle", "flute", "goat", "hill", "iris", "jam")
    for number, (name, split) in enumerate(EVALUATED.items()):
        (tmp_path / name).mkdir()
        for home in {"train", split}:
            rows = [
                ROW | {"question": f"what is a {word} of kind {number} in the {home} of {name}"}
                for word in names
            ]
            text = "".join(json.dumps(row) + "\n" for row in rows)
            (tmp_path / name / f"{home}.jsonl").write_text(text)
    trained = {
        name: {"path": ".", "split": "train", "n": 7, "instruction": "In one word."}
        for name in ("nq", "hotpotqa")
    }
    train = data_queries(tmp_path, "train", benchmarks=trained, test_share=0)
    assert [one.task_name for one in train["train"]].count("nq") == 7
    assert len(train["train"]) == 14
    assert all(one.query.endswith("?\nIn one word.") for one in train["train"])
    every = {name: {"path": ".", "n": 5} for name in EVALUATED}
    test = data_queries(tmp_path, "test", benchmarks=every, test_share=1)
    assert {split: len(found) for split, found in test.items()} == {"test": 35}
    assert {one.task_name for one in test["test"]} == {*EVALUATED}


def test_a_run_that_asks_llms_needs_one(tmp_path):
    path = tmp_path / "data.yaml"
    path.write_text(yaml.safe_dump({"out": "out", "benchmarks": {"nq": {"n": 1}}}))
    for phase in ("run", "responses", "llm-embeddings", "verdicts"):
        done = CliRunner().invoke(command, ["data", phase, "--config", str(path)])
        assert done.exit_code == 2, done.output
        assert "data.yaml: llms: is empty; expected at least one LLM" in done.stderr
