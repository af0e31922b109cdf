"""Recorded answers of routing data, replayed, and its questions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from waypost.contracts.errors import SchemaError
from waypost.contracts.questions import Question, queries_path, write_questions
from waypost.contracts.tables import split_path, write_routing_table
from waypost_rl.training.parts import Ask, Reply
from waypost_rl.training.replayed_pool import ReplayedPool, read_questions

LETTERS = '{"text": ["two", "three"], "labels": ["A", "B"]}'


def row(key: str = "1", model: str = "cook", response: str | None = "B", **of: Any) -> Any:
    given = {"query_id": key, "query": f"Which is {key}?", "model_name": model}
    given |= {"ground_truth": "B", "metric": "em_mc", "choices": LETTERS, "response": response}
    given |= {"performance": 1.0, "input_tokens": 12, "output_tokens": 34, "error": None}
    return given | of


def write(folder: Path, *rows: Any, split: str = "train") -> Path:
    write_routing_table(split_path(folder, split), {k: [r[k] for r in rows] for k in rows[0]})
    return folder


async def said(pool: ReplayedPool, key: str, candidate: str = "cook") -> Reply:
    asked = Question(
        query_id=key, task_name="", query="?", ground_truth="B", metric="em_mc", max_tokens=8
    )
    return await pool.ask(Ask(candidate, "another text", asked))


async def test_letters_become_sentences_and_other_answers_stay(tmp_path):
    write(
        tmp_path,
        row("1"),
        row("2", response=None, performance=0.0),
        row("3", response=None, performance=None, error="timed out"),
        row("4", response=None, performance=None, input_tokens=None, output_tokens=None),
        row("5", response="Because. The answer is B.", input_tokens=None),
        row("6", response=None, choices=None, metric="f1"),
        row("7", response="B", choices=None, metric="f1"),
        row("1", "prover", " A "),
    )
    write(tmp_path, row("8", response="C"), split="test")
    pool = ReplayedPool(tmp_path)
    assert await said(pool, "1") == Reply("The answer is (B).", 12, 34, cached=True)
    assert await said(pool, "1", "prover") == Reply("The answer is (A).", 12, 34, cached=True)
    assert await said(pool, "2") == Reply("I could not decide.", 12, 34, cached=True)
    assert await said(pool, "3") == Reply(None, fault="timed out")
    assert await said(pool, "4") == Reply(None, fault="the answer was not measured")
    assert await said(pool, "5") == Reply("Because. The answer is B.", 0, 34, cached=True)
    assert await said(pool, "6") == Reply(None, fault="the answer was not recorded")
    assert (await said(pool, "7")).text == "B"
    assert (await said(pool, "8")).text == "C"  # no option
    for key, candidate in (("9", "cook"), ("2", "prover")):
        reply = await said(pool, key, candidate)
        assert reply.text is None
        assert f"has no answer of {candidate} to {key}" in reply.fault
    assert (await said(ReplayedPool(tmp_path, ["test"]), "1")).text is None
    renamed = ReplayedPool(tmp_path, names={"chef": "cook"})
    assert await said(renamed, "1", "chef") == await said(renamed, "1", "cook")
    await pool.close()


def test_folders_that_cannot_be_replayed_are_named(tmp_path):
    with pytest.raises(SchemaError, match="holds no routing_"):
        ReplayedPool(tmp_path)
    with pytest.raises(SchemaError, match="no such file"):
        ReplayedPool(tmp_path, ["train"])
    write(tmp_path, row(response=None, performance=None))
    with pytest.raises(SchemaError, match="no answer is recorded"):
        ReplayedPool(tmp_path)
    write(tmp_path, row())
    write(tmp_path, row(query="Another?"), split="test")
    with pytest.raises(SchemaError, match="query_id 1 stands for another text"):
        ReplayedPool(tmp_path)


async def test_real_answers(shared_data):
    folder = shared_data / "mmlu_pro"
    pool = ReplayedPool(folder)
    (question,) = [one for one in read_questions(folder, "test") if one.query_id == "73"]
    assert question.query.startswith("_______ locate morality")
    assert question.query.endswith("\nJ. Relativist ethics")
    assert (question.ground_truth, question.metric) == ("C", "em_mc")
    assert question.choices is not None
    assert question.choices[2] == {"label": "C", "text": "Postmodern ethics"}
    reply = await pool.ask(Ask("gemini-1.5-pro-002", "whatever", question))
    assert reply == Reply("The answer is (H).", 61, 29, cached=True)


def test_questions_are_drawn_by_seed_and_length(tmp_path):
    rows = [row(str(n), query="x" * n + "?") for n in range(1, 30) for _ in range(1)]
    write(tmp_path, *rows, *(row(str(n), "prover", query="x" * n + "?") for n in range(1, 30)))
    every = read_questions(tmp_path, seed=1)
    assert sorted(int(one.query_id) for one in every) == list(range(1, 30))
    assert every == read_questions(tmp_path, seed=1)
    assert every != read_questions(tmp_path, seed=2)
    assert every[0].query.endswith("?\nA. two\nB. three")
    assert read_questions(tmp_path, seed=1, limit=5) == every[:5]
    longest = len("xxxxx?\nA. two\nB. three")
    short = read_questions(tmp_path, max_characters=longest)
    assert sorted(int(one.query_id) for one in short) == [1, 2, 3, 4, 5]
    with pytest.raises(SchemaError, match="none of 29 questions is within max_characters=3"):
        read_questions(tmp_path, max_characters=3)


def test_truths_of_a_table(tmp_path):
    listed, tests = '["Rome", "Roma"]', '["assert f(1) == 2"]'
    write(
        tmp_path,
        row("1", ground_truth=listed, choices=None),
        row("2", ground_truth="[1, 2]", choices=tests),
        row("3", ground_truth="[a"),
    )
    found = {one.query_id: one for one in read_questions(tmp_path)}
    assert [found[key].ground_truth for key in "123"] == [["Rome", "Roma"], "[1, 2]", "[a"]
    assert found["2"].choices is None
    write(tmp_path, row("1"), row("2", ground_truth=None))
    with pytest.raises(SchemaError, match=r"row 1: ground_truth is missing or wrong"):
        read_questions(tmp_path)


def test_a_file_of_questions_goes_before_the_table(tmp_path):
    write(tmp_path, row("1"))
    question = Question(
        query_id="7", task_name="made", query="?", ground_truth="x", metric="f1", max_tokens=9
    )
    write_questions(queries_path(tmp_path, "train"), [question])
    assert read_questions(tmp_path) == [question]
    with pytest.raises(SchemaError, match="no such file"):
        read_questions(tmp_path, "validation")
