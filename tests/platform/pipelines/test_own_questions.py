"""A user's own questions: two keys are enough, tables are read, faults are told once."""

from __future__ import annotations

import json

import pytest

from waypost.contracts.errors import ConfigError
from waypost.pipelines.data.own_questions import read_own_questions
from waypost.pipelines.data.questions import _check_metric


def file(tmp_path, text, name="mine.jsonl"):
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return path


def lines(*rows):
    return "\n".join(json.dumps(row) for row in rows)


def test_a_question_and_an_answer_are_enough(tmp_path):
    rows = [{"question": f"What is {n} + 1?", "answer": n + 1} for n in range(24)]
    found = read_own_questions(file(tmp_path, lines(*rows)), _check_metric)
    assert len({one.query_id for one in found}) == 24
    first = found[0]
    assert first.query == "What is 0 + 1?"
    assert first.model_dump(exclude={"query_id", "query"}) == {
        "task_name": "mine", "choices": None, "ground_truth": "1", "metric": "number",
        "max_tokens": 256, "version": None,
    }  # fmt: skip
    assert first.query_id.startswith("mine-")


def test_ids_do_not_depend_on_the_order(tmp_path):
    rows = [{"query": text, "ground_truth": "x"} for text in ("a", "b")]
    one = read_own_questions(file(tmp_path, lines(*rows)))
    other = read_own_questions(file(tmp_path, lines(*reversed(rows))))
    assert [question.query_id for question in one] == [q.query_id for q in reversed(other)]
    twice = read_own_questions(file(tmp_path, lines(rows[0], rows[0])))
    assert twice[1].query_id == f"{twice[0].query_id}-2"


@pytest.mark.parametrize(("mark", "name"), [(",", "m.csv"), (";", "m.csv"), ("\t", "m.tsv")])
def test_a_table_is_read(tmp_path, mark, name):
    head = mark.join(("question", "answer", "task", "options"))
    row = mark.join(('"Which, then?"', "red", "colours", "red|blue"))
    path = file(tmp_path, f"\ufeff{head}\n{row}\n", name)
    (found,) = read_own_questions(path, _check_metric)
    assert found.query == "Which, then?\nA. red\nB. blue"
    assert (found.task_name, found.metric, found.ground_truth) == ("colours", "letter", "A")
    assert found.choices == [{"label": "A", "text": "red"}, {"label": "B", "text": "blue"}]


def test_a_list_in_json_is_read(tmp_path):
    text = json.dumps([{"prompt": "Say hi", "answers": ["hi", "hello"]}], indent=1)
    (found,) = read_own_questions(file(tmp_path, text, "mine.json"))
    assert (found.ground_truth, found.metric) == (["hi", "hello"], "short_answer")


def test_a_whole_question_stays_as_it_is(tmp_path):
    row = {"query_id": "q", "task_name": "t", "query": "Q", "ground_truth": "A", "metric": "f1",
           "max_tokens": 8, "question": "another"}  # fmt: skip
    (found,) = read_own_questions(file(tmp_path, lines(row)))
    assert (found.query, found.max_tokens, found.metric) == ("Q", 8, "f1")


def test_a_fault_of_all_lines_is_told_once(tmp_path):
    rows = [{"query": "Q", "ground_truth": "x", "metrik": "f1"} for _ in range(24)]
    with pytest.raises(ConfigError) as failed:
        read_own_questions(file(tmp_path, lines(*rows)))
    (fault,) = failed.value.faults
    assert fault.where.endswith("mine.jsonl: 24 lines (1, 2, 3, ...): metrik")
    assert fault.problem == "unknown key (did you mean 'metric'?)"


def test_each_kind_of_fault_has_its_lines(tmp_path):
    rows = [{"query": "Q"}, {"ground_truth": "x"}, {"query": "R"}, 7]
    with pytest.raises(ConfigError) as failed:
        read_own_questions(file(tmp_path, lines(*rows)))
    told = sorted(str(fault).partition("mine.jsonl:")[2].strip() for fault in failed.value.faults)
    assert told == [
        "2 lines (1, 3): ground_truth: missing; it is required",
        "2: query: missing; it is required",
        "4: expected keys and values, found a number",
    ]


@pytest.mark.parametrize(
    ("text", "name", "told"),
    [
        ("question,answer\na,b", "m.jsonl", "2 lines (1, 2): is not JSON; a table has the ending"),
        ("[{]", "m.json", "is not JSON"),
        ("question,answer\na,b,c", "m.csv", "line 2: has more cells than the 2 columns"),
        (
            lines({"query": "Q", "ground_truth": "x", "metric": "f2"}),
            "m.jsonl",
            "no metric 'f2'",
        ),
    ],
)
def test_what_cannot_be_read_is_told(tmp_path, text, name, told):
    with pytest.raises(ConfigError) as failed:
        read_own_questions(file(tmp_path, text, name), _check_metric)
    assert told in str(failed.value)


def test_a_missing_file_is_told(tmp_path):
    with pytest.raises(ConfigError, match="no such file"):
        read_own_questions(tmp_path / "none.csv")
