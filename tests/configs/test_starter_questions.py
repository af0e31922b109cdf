"""The starter questions that the shipped routing data is made from."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from waypost.contracts.duplicates import duplicate_groups
from waypost.contracts.questions import read_questions
from waypost.scorers import METRICS, score
from waypost.scorers.text import gold_strings, tokens

ROOT = Path(__file__).parents[2]
FIELDS = ["query_id", "task_name", "query", "choices", "ground_truth", "metric", "max_tokens"]
LEAST = {
    "natural_qa": 75, "trivia_qa": 70, "mmlu": 75, "gpqa": 15, "commonsense_qa": 45,
    "openbook_qa": 35, "arc_challenge": 35, "gsm8k": 75, "math": 50, "mbpp": 40, "human_eval": 30,
}  # fmt: skip


FILE = ROOT / "serve_configs/starter/questions.jsonl"


def _questions() -> list[dict[str, Any]]:
    text = FILE.read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


QUESTIONS = _questions()
SOLUTIONS: dict[str, str] = json.loads(
    Path(__file__).with_name("starter_solutions.json").read_text(encoding="utf-8")
)


def _of(*metrics: str) -> list[dict[str, Any]]:
    return [question for question in QUESTIONS if question["metric"] in metrics]


def test_every_kind_of_benchmark_is_covered() -> None:
    counts = Counter(question["task_name"] for question in QUESTIONS)
    assert set(counts) == set(LEAST)
    assert all(counts[task] >= least for task, least in LEAST.items())
    assert len(read_questions(FILE)) == len(QUESTIONS) >= 520


def test_no_two_questions_are_nearly_the_same() -> None:
    assert len(set(duplicate_groups([one["query"] for one in QUESTIONS]))) == len(QUESTIONS)


def test_fields_are_complete_and_ids_and_texts_unique() -> None:
    assert all(list(question) == FIELDS for question in QUESTIONS)
    assert len({question["query_id"] for question in QUESTIONS}) == len(QUESTIONS)
    assert len({question["query"] for question in QUESTIONS}) == len(QUESTIONS)
    assert all(question["metric"] in METRICS for question in QUESTIONS)
    assert all(16 <= question["max_tokens"] <= 320 for question in QUESTIONS)


@pytest.mark.parametrize("question", _of("letter"), ids=lambda q: q["query_id"])
def test_options_stand_in_the_query_and_the_truth_is_one_of_them(question: dict[str, Any]) -> None:
    choices = question["choices"]
    assert [choice["label"] for choice in choices] == list("ABCDE")[: len(choices)]
    assert len({choice["text"] for choice in choices}) == len(choices)
    for choice in choices:
        assert f"\n{choice['label']}. {choice['text']}\n" in question["query"]
        # Whether answered by letter or by text, exactly the truth scores.
        expected = float(choice["label"] == question["ground_truth"])
        for said in (choice["label"], choice["text"], f"{choice['label']}. {choice['text']}"):
            assert score("letter", said, question["ground_truth"], choices) == expected


def test_right_letters_are_spread_over_the_options() -> None:
    truths = Counter(question["ground_truth"] for question in _of("letter"))
    assert max(truths[label] for label in "ABCD") < 0.35 * truths.total()


def test_each_truth_scores_one_when_given_as_the_answer() -> None:
    for question in _of("exact_match", "f1", "short_answer", "number", "math"):
        for gold in gold_strings(question["ground_truth"]):
            assert score(question["metric"], gold, question["ground_truth"]) == 1.0


def test_no_question_gives_its_answer_away_but_those_with_a_text_to_read() -> None:
    for question in _of("exact_match", "short_answer"):
        if "\n" in question["query"]:
            continue
        words = " ".join(tokens(question["query"]))
        for gold in question["ground_truth"]:
            assert f" {' '.join(tokens(gold))} " not in f" {words} ", question["query_id"]


def test_every_code_question_has_a_solution_and_no_other() -> None:
    assert set(SOLUTIONS) == {question["query_id"] for question in _of("code")}


@pytest.mark.parametrize("question", _of("code"), ids=lambda q: q["query_id"])
def test_reference_solution_passes_in_the_sandbox(question: dict[str, Any]) -> None:
    said = f"```python\n{SOLUTIONS[question['query_id']]}\n```"
    assert score("code", said, question["ground_truth"], query=question["query"]) == 1.0


def test_reference_solutions_leave_room_under_the_cap() -> None:
    # Code takes about three characters a token with these models' tokenizers.
    caps = {question["query_id"]: question["max_tokens"] for question in _of("code")}
    assert all(len(text) < 3 * caps[key] for key, text in SOLUTIONS.items())
