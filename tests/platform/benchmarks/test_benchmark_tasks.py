"""Benchmarks with their own prompt: rows in the hub's schema become exactly these questions."""

import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from waypost.benchmarks.base import RowError
from waypost.benchmarks.catalog import find_benchmark, list_benchmarks
from waypost.benchmarks.open_qa import OpenQA
from waypost.benchmarks.options import shuffled
from waypost.benchmarks.rows import load_questions
from waypost.benchmarks.tasks.maths import last_box
from waypost.scorers import METRICS, score

LABELLED = pa.struct([("text", pa.list_(pa.string())), ("label", pa.list_(pa.string()))])
NEGATED = pa.struct([("label", pa.list_(pa.string())), ("text", pa.list_(pa.string()))])
LETTER = "Reply with just the letter of the right option."

# Our own rows, in the columns and types that the hub's files have (as datasets writes them).
ROWS = {
    "natural_qa": (
        {"question": pa.string(), "answer": pa.list_(pa.string())},
        {"question": "who wrote the ferry song", "answer": ["Ann Lee", "A. Lee", "Ann Lee"]},
        "who wrote the ferry song\nAnswer in a few words.",
        ["Ann Lee", "A. Lee"],
    ),
    "trivia_qa": (
        {
            "question": pa.string(),
            "question_id": pa.string(),
            "question_source": pa.string(),
            "entity_pages": pa.struct([("doc_source", pa.list_(pa.string()))]),
            "search_results": pa.struct([("rank", pa.list_(pa.int32()))]),
            "answer": pa.struct(
                [
                    ("aliases", pa.list_(pa.string())),
                    ("normalized_aliases", pa.list_(pa.string())),
                    ("matched_wiki_entity_name", pa.string()),
                    ("normalized_matched_wiki_entity_name", pa.string()),
                    ("normalized_value", pa.string()),
                    ("type", pa.string()),
                    ("value", pa.string()),
                ]
            ),
        },
        {
            "question": "Which whale is white? ",
            "question_id": "tc_1",
            "question_source": "http://example.org",
            "entity_pages": {"doc_source": []},
            "search_results": {"rank": []},
            "answer": {
                "aliases": ["Moby-Dick", "The White Whale"],
                "normalized_aliases": ["moby dick", "white whale"],
                "matched_wiki_entity_name": "",
                "normalized_matched_wiki_entity_name": "",
                "normalized_value": "moby dick",
                "type": "WikipediaEntity",
                "value": "Moby Dick",
            },
        },
        "Which whale is white?\nAnswer in a few words.",
        ["Moby Dick", "Moby-Dick", "The White Whale", "white whale"],
    ),
    "mmlu": (
        {
            "question": pa.string(),
            "subject": pa.string(),
            "choices": pa.list_(pa.string()),
            "answer": pa.int64(),
        },
        {
            "question": "Two and two is",
            "subject": "elementary_mathematics",
            "choices": ["3", "4", "5", "22"],
            "answer": 1,
        },
        f"Two and two is\nA. 3\nB. 4\nC. 5\nD. 22\n{LETTER}",
        "B",
    ),
    "commonsense_qa": (
        {
            "id": pa.string(),
            "question": pa.string(),
            "question_concept": pa.string(),
            "choices": NEGATED,
            "answerKey": pa.string(),
        },
        {
            "id": "1f",
            "question": "Where is milk kept cold?",
            "question_concept": "milk",
            "choices": {"label": list("ABCDE"), "text": ["oven", "bag", "fridge", "bed", "shoe"]},
            "answerKey": "C",
        },
        f"Where is milk kept cold?\nA. oven\nB. bag\nC. fridge\nD. bed\nE. shoe\n{LETTER}",
        "C",
    ),
    "openbook_qa": (
        {
            "id": pa.string(),
            "question_stem": pa.string(),
            "choices": LABELLED,
            "answerKey": pa.string(),
        },
        {
            "id": "7-9",
            "question_stem": "A spoon in hot soup",
            "choices": {"text": ["melts", "warms", "floats", "sings"], "label": list("ABCD")},
            "answerKey": "B",
        },
        f"A spoon in hot soup\nA. melts\nB. warms\nC. floats\nD. sings\n{LETTER}",
        "B",
    ),
    "arc_challenge": (
        {"id": pa.string(), "question": pa.string(), "choices": LABELLED, "answerKey": pa.string()},
        {
            "id": "NYSEDREGENTS_1",
            "question": "Which tool measures heat?",
            "choices": {"text": ["ruler", "clock", "thermometer"], "label": ["1", "2", "3"]},
            "answerKey": "3",
        },
        f"Which tool measures heat?\nA. ruler\nB. clock\nC. thermometer\n{LETTER}",
        "C",
    ),
    "gsm8k": (
        {"question": pa.string(), "answer": pa.string()},
        {"question": "Ann has 700 twice. How many?", "answer": "<<700*2=1400>>\n#### 1,400"},
        "Ann has 700 twice. How many?\nWork it out step by step, then end with a line that gives "
        "only the final number, as in: The answer is N.",
        "1400",
    ),
    "math": (
        {
            "problem": pa.string(),
            "level": pa.string(),
            "type": pa.string(),
            "solution": pa.string(),
        },
        {
            "problem": "Halve $x$.",
            "level": "Level 1",
            "type": "Algebra",
            "solution": r"First \boxed{1}; then $\boxed{\frac{x}{2}}$.",
        },
        "Halve $x$.\nReason step by step, and put the final answer in \\boxed{}.",
        r"\frac{x}{2}",
    ),
    "mbpp": (
        {
            "source_file": pa.string(),
            "task_id": pa.int32(),
            "prompt": pa.string(),
            "code": pa.string(),
            "test_imports": pa.list_(pa.string()),
            "test_list": pa.list_(pa.string()),
        },
        {
            "source_file": "Benchmark Questions.ipynb",
            "task_id": 2,
            "prompt": "Write a function to double a number.",
            "code": "def double(x):\n    return 2 * x",
            "test_imports": ["import math"],
            "test_list": ["assert double(2) == 4", "assert math.isclose(double(.5), 1)"],
        },
        "Write a Python function. Write a function to double a number.\nIt must pass these tests:\n"
        "assert double(2) == 4\nassert math.isclose(double(.5), 1)\nReturn only the code.",
        "import math\nassert double(2) == 4\nassert math.isclose(double(.5), 1)",
    ),
    "human_eval": (
        {
            "task_id": pa.string(),
            "prompt": pa.string(),
            "canonical_solution": pa.string(),
            "test": pa.string(),
            "entry_point": pa.string(),
        },
        {
            "task_id": "HumanEval/0",
            "prompt": 'def double(x):\n    """Return twice x."""\n',
            "canonical_solution": "    return 2 * x\n",
            "test": "\n\nMETADATA = {}\n\n\ndef check(candidate):\n    assert candidate(2) == 4\n",
            "entry_point": "double",
        },
        "Complete this Python function. Return the whole function, code only.\n\n"
        'def double(x):\n    """Return twice x."""\n',
        "METADATA = {}\n\n\ndef check(candidate):\n    assert candidate(2) == 4\n\ncheck(double)",
    ),
}
GPQA = {
    "Record ID": "rec1",
    "Question": "Which is heaviest?\n",
    "Correct Answer": " lead\n",
    "Incorrect Answer 1": "iron",
    "Incorrect Answer 2": "zinc",
    "Incorrect Answer 3": "tin",
}


def write(path: Path, schema, row) -> Path:
    if path.suffix == ".parquet":
        table = pa.Table.from_pylist([row], schema=pa.schema(list(schema.items())))
        pq.write_table(table, path)
    elif path.suffix == ".gz":
        path.write_bytes(gzip.compress(f"{json.dumps(row)}\n".encode()))
    else:
        path.write_text(json.dumps(row) + "\n")
    return path


@pytest.mark.parametrize("name", ROWS)
def test_a_row_of_the_hub_becomes_this_question(name, tmp_path):
    schema, row, query, truth = ROWS[name]
    benchmark = find_benchmark(name)
    files = [write(tmp_path / f"one.{end}", schema, row) for end in ("parquet", "jsonl")]
    asked = [load_questions(benchmark, file).questions for file in files]
    (question,) = asked[0]
    assert asked[1] == asked[0]
    assert (question.query, question.ground_truth) == (query, truth)
    assert question.task_name == name
    assert question.query_id.startswith(f"{name}-")
    assert question.metric in METRICS
    options = [line[0] for line in query.splitlines() if line[1:3] == ". "]
    assert [one["label"] for one in question.choices or ()] == options


@pytest.mark.parametrize("name", sorted({*ROWS} - {"mbpp", "human_eval", "math"}))
def test_the_truth_scores_one_and_another_answer_zero(name):
    _, row, _, _ = ROWS[name]
    question = find_benchmark(name).read(row)
    truth = question.ground_truth
    said = truth if isinstance(truth, str) else truth[-1]
    assert score(question.metric, f"The answer is {said}.", truth, question.choices) == 1.0
    wrong = "The answer is A." if question.choices else "The answer is 17."
    assert score(question.metric, wrong, truth, question.choices) == 0.0


@pytest.mark.parametrize(("name", "key"), [("mbpp", "code"), ("human_eval", "canonical_solution")])
def test_the_reference_program_passes_and_another_fails(name, key):
    _, row, _, _ = ROWS[name]
    question = find_benchmark(name).read(row)
    right, wrong = row[key], row[key].replace("2 *", "3 *")
    given = [
        score("code", code, question.ground_truth, query=question.query) for code in (right, wrong)
    ]
    assert given == [1.0, 0.0]


def test_gpqa_options_are_drawn_by_the_record_alone(tmp_path):
    rows = [GPQA | {"Question": f"Which is heaviest, {i}?"} for i in range(300)]
    benchmark = find_benchmark("gpqa")
    asked = [benchmark.read(row) for row in rows]
    for question in asked:
        right = {one["label"]: one["text"] for one in question.choices}[question.ground_truth]
        assert right == "lead"
        assert sorted(one["text"] for one in question.choices) == ["iron", "lead", "tin", "zinc"]
    letters = [question.ground_truth for question in asked]
    assert all(50 < letters.count(letter) < 100 for letter in "ABCD")  # 75 on average
    # Another order of the row's own columns of wrong answers draws the same order of options.
    swapped = rows[0] | {"Incorrect Answer 1": "tin", "Incorrect Answer 3": "iron"}
    assert benchmark.read(swapped).query == asked[0].query
    # The hub's file is a CSV, with further columns and with line breaks inside a field.
    lines = ",".join(f'"{key}"' for key in GPQA), ",".join(f'"{one}"' for one in GPQA.values())
    (tmp_path / "gpqa_main.csv").write_text("\n".join(lines) + "\n")
    (question,) = load_questions(benchmark, tmp_path).questions
    assert question == benchmark.read(GPQA)
    assert question.query.startswith("Which is heaviest?\nA. ")
    assert question.query.endswith("(X being the letter of the right option).")


def test_drawn_orders_depend_on_key_and_texts():
    texts = ["a", "b", "c", "d"]
    drawn = {tuple(texts[i] for i in shuffled(texts, str(key))) for key in range(300)}
    assert len(drawn) == 24
    assert [texts[::-1][i] for i in shuffled(texts[::-1], "k")] == [
        texts[i] for i in shuffled(texts, "k")
    ]


def test_mbpp_in_its_full_configuration():
    row = {
        "task_id": 1,
        "text": "Double a number.",
        "code": "",
        "test_list": ["assert double(K) == 4"],
        "test_setup_code": "K = 2",
        "challenge_test_list": [],
    }
    question = find_benchmark("mbpp").read(row)
    assert question.ground_truth == "K = 2\nassert double(K) == 4"
    assert "Write a Python function. Double a number.\n" in question.query


def test_math_500_has_its_answer_in_a_column():
    row = {"problem": "p", "solution": "no box", "answer": "(3, 4)", "level": 2}
    assert find_benchmark("math").read(row).ground_truth == "(3, 4)"


@pytest.mark.parametrize(
    ("solution", "found"),
    [
        (r"\boxed{1} and \boxed{\text{(A)}}", r"\text{(A)}"),
        (r"is \boxed 2 of them", "2"),
        (r"\fbox{-3}", "-3"),
        (r"\boxed{x^{2}", None),
        ("none", None),
    ],
)
def test_the_last_box(solution, found):
    assert last_box(solution) == found


@pytest.mark.parametrize(
    ("name", "change", "column", "problem"),
    [
        ("natural_qa", {"answer": []}, "answer", "is empty"),
        ("natural_qa", {"answer": "Ann"}, "answer", "expected a valid list, found str"),
        ("natural_qa", {"answer": [None]}, "answer.0", "expected a valid string, found list"),
        ("trivia_qa", {"answer": {"value": "x"}}, "answer", "lacks aliases, normalized_aliases"),
        (
            "trivia_qa",
            {"answer": {"value": "<unk>", "aliases": [], "normalized_aliases": []}},
            "answer.value",
            "has no answers",
        ),
        ("mmlu", {"answer": 4}, "answer", "is 4; expected 0 to 3"),
        ("mmlu", {"answer": -1}, "answer", "is -1"),
        ("mmlu", {"answer": True}, "answer", "expected a valid integer"),
        ("commonsense_qa", {"answerKey": ""}, "answerKey", "has no answers"),
        ("arc_challenge", {"answerKey": "D"}, "answerKey", "none of the labels 1, 2, 3"),
        (
            "openbook_qa",
            {"choices": {"text": ["a"], "label": ["A", "B"]}},
            "choices",
            "1 texts and 2 labels",
        ),
        ("openbook_qa", {"choices": None}, "choices", "expected a mapping with text, label"),
        ("gsm8k", {"answer": "18"}, "answer", "does not end in '#### ' and a number"),
        ("math", {"solution": "18"}, "solution", r"holds no \boxed{} answer"),
        ("mbpp", {"prompt": ""}, "prompt", "expected one of the two"),
        ("mbpp", {"test_list": []}, "test_list", "is empty"),
        ("human_eval", {"entry_point": "other"}, "entry_point", "names no function"),
        ("human_eval", {"test": "def check("}, "test", "is not Python"),
    ],
)
def test_a_row_that_cannot_be_asked_says_why(name, change, column, problem):
    with pytest.raises(RowError) as caught:
        find_benchmark(name).read(ROWS[name][1] | change)
    assert caught.value.column == column
    assert problem in caught.value.problem


def test_ids_follow_content_and_version_and_nothing_else():
    benchmark, row = find_benchmark("gsm8k"), ROWS["gsm8k"][1]
    first = benchmark.read(row)
    assert benchmark.read({"idx": 3, **dict(reversed(row.items()))}) == first
    assert benchmark.read(row, max_tokens=9).query_id == first.query_id
    assert benchmark.read(row | {"question": "Another?"}).query_id != first.query_id
    other = type("Newer", (type(benchmark),), {"version": "2"})()
    assert other.read(row).query_id != first.query_id


def test_every_built_in_benchmark_is_tested_here_and_has_its_facts():
    entries = [entry for entry in list_benchmarks() if entry.kind == "built-in"]
    assert {
        entry.name for entry in entries if not isinstance(find_benchmark(entry.name), OpenQA)
    } == {*ROWS, "gpqa"}
    assert all(entry.summary and entry.error is None for entry in entries)
