"""What live evaluation reads: truths of questions, and files of LLMs that may be called."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor

import pytest
import yaml

from waypost.contracts.errors import ConfigError, FolderInUseError, RegistryError
from waypost.contracts.questions import Question, queries_path, write_questions
from waypost.contracts.tables import split_path, write_routing_table
from waypost.pipelines.evaluation.kept_calls import KeptCalls
from waypost.pipelines.evaluation.pool import CallablePool, Sampling, read_callable_pool
from waypost.pipelines.evaluation.questions import Questions

OPTIONS = json.dumps({"text": ["Oslo", "Bergen"], "label": ["A", "B"]})
ROWS = {
    # id: metric, truth, options, query
    "several": ("short_answer", '["Paris", "city of light"]', None, "Capital of France?"),
    "letter": ("letter", "A", OPTIONS, "Capital of Norway?"),
    "number": ("number", "12", None, "Six times two?"),
    "list": ("exact_match", "[1, 2]", None, "Write the list."),
    "program": ("code", '["assert double(2) == 4"]', None, "Write double(n)."),
    "odd": ("no_such_metric", "x", None, "?"),
    "bare": (None, None, None, "No truth?"),
}


@pytest.fixture
def questions(tmp_path) -> Questions:
    write_routing_table(
        split_path(tmp_path, "test"),
        {
            "query_id": list(ROWS),
            "metric": [row[0] for row in ROWS.values()],
            "ground_truth": [row[1] for row in ROWS.values()],
            "choices": [row[2] for row in ROWS.values()],
            "query": [row[3] for row in ROWS.values()],
            "model_name": ["m"] * len(ROWS),
            "response": ["said", *[None] * (len(ROWS) - 1)],
            "performance": [1.0] * len(ROWS),
        },
    )
    return Questions(tmp_path, ("train", "test"))


@pytest.mark.parametrize(
    ("key", "answer", "score"),
    [
        ("several", "It is the city of light.", 1),
        ("several", "It is Rome.", 0),
        ("letter", "Answer: A", 1),
        ("letter", "Bergen", 0),
        ("number", "That makes 12.", 1),
        ("list", "[1, 2]", 1),
        ("bare", "anything", None),
        ("absent", "anything", None),
    ],
)
def test_an_answer_is_scored_by_the_questions_own_metric(questions, key, answer, score):
    assert questions.score(key, answer) == score


def test_code_is_scored_in_the_sandbox(questions):
    right = "```python\ndef double(n):\n    return 2 * n\n```"
    assert questions.score("program", right) == 1
    assert questions.score("program", right.replace("2 * n", "n")) == 0


def test_an_unknown_metric_is_an_error(questions):
    with pytest.raises(RegistryError, match="no_such_metric"):
        questions.score("odd", "x")


def test_recorded_answers_and_limits_are_found(questions, tmp_path):
    assert questions.response("several", "m") == "said"
    assert questions.response("letter", "m") is None
    assert questions.max_tokens("several") is None
    one = Question(
        query_id="several", task_name="t", query="?", ground_truth="x", metric="f1", max_tokens=9
    )
    write_questions(queries_path(tmp_path, "test"), [one])
    assert Questions(tmp_path, ("test",)).max_tokens("several") == 9


def written(path, data):
    path.write_text(yaml.safe_dump(data))
    return path


ECHO = {"name": "a", "engine": "echo", "config": {"text": "x"}, "max_ongoing_requests": 3}


def test_the_pool_of_a_serve_file_is_that_of_our_application(tmp_path):
    args = {"artifact": "none", "pool": [ECHO, {**ECHO, "name": "b", "tier": "full"}]}
    ours = {"import_path": "waypost.serve.app:build", "args": args}
    path = tmp_path / "serve.yaml"
    pool = read_callable_pool(written(path, {"applications": [{"import_path": "x:y"}, ours]}))
    assert list(pool.llms) == ["a"]
    assert (pool.llms["a"].engine, pool.llms["a"].concurrency) == ("echo", 3)
    assert (pool.sampling, pool.budget_usd) == (Sampling(), None)
    with pytest.raises(ConfigError, match="none is built by"):
        read_callable_pool(written(path, {"applications": [{"import_path": "x:y"}]}))
    apart = {**ECHO, "environment": "router-r1"}
    with pytest.raises(ConfigError, match="needs another environment"):
        read_callable_pool(written(path, {"artifact": "none", "pool": [apart]}))
    odd = {**ECHO, "config": {"txet": "x"}}
    with pytest.raises(ConfigError, match="txet"):
        read_callable_pool(written(path, {"artifact": "none", "pool": [odd]}))


def test_the_file_of_a_data_run_gives_limits_budget_and_sampling(tmp_path):
    llm = {"engine": "echo", "input_price": 1, "output_price": 2, "requests_per_minute": 60}
    data = {"out": "d", "llms": {"a": llm}, "budget_usd": 0.5, "temperature": 0.3, "seed": 4}
    pool = read_callable_pool(written(tmp_path / "data.yaml", data))
    assert pool.llms["a"].requests_per_minute == 60
    assert (pool.budget_usd, pool.sampling) == (0.5, Sampling(0.3, 1.0, 4))
    del llm["input_price"]
    with pytest.raises(ConfigError, match="needs input_price and output_price"):
        read_callable_pool(written(tmp_path / "data.yaml", data))


def test_two_runs_do_not_make_calls_in_one_folder(tmp_path):
    pool = CallablePool("pool.yaml", {})

    def enter() -> None:
        with KeptCalls(tmp_path / "calls", pool):
            pass

    with (
        KeptCalls(tmp_path / "calls", pool),
        ThreadPoolExecutor(1) as other,
        pytest.raises(FolderInUseError),
    ):
        other.submit(enter).result()
    enter()
    assert not (tmp_path / "calls").exists()
    (tmp_path / "calls").mkdir()
    (tmp_path / "calls" / ".lock").write_text("{}")
    with KeptCalls(tmp_path / "calls", pool) as kept:  # left by a killed run
        assert kept.empty
