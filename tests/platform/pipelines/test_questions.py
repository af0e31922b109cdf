"""The first phase of a data run: drawing, splitting, writing, and what is wrong with a config."""

import json

import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from waypost.cli import command
from waypost.contracts.errors import ConfigError
from waypost.contracts.questions import Question, queries_path, read_splits, write_questions
from waypost.contracts.splits import leaks
from waypost.pipelines.data.config import DataConfig
from waypost.pipelines.data.questions import build, run

LLMS = {"tiny": {"engine": "echo"}}
THINGS = [
    "apples", "pears", "plums", "figs", "dates", "limes", "kiwis", "nuts", "beans", "peas", "leeks",
    "yams", "beets", "corn", "rice", "oats", "rye", "hops", "dill", "mint", "sage", "thyme",
    "chives", "basil", "cumin",
]  # fmt: skip
NAMES = ["Ann", "Bob", "Cleo", "Dan", "Eve", "Fay", "Gus", "Hal", "Ida", "Jon", "Kim", "Lou"]


def word_problem(i):
    who, what = NAMES[i % 12], THINGS[i // 12 % 25]
    other = THINGS[(i * 7 + 3) % 25]
    text = f"{who} carries {i} crates of {what} to market and trades {other} for {i * i} coins."
    return {"question": f"{text} How many {what} remain?", "answer": f"#### {i}"}


def gsm8k(folder, numbers):
    folder.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(word_problem(i)) for i in numbers]
    (folder / "test.jsonl").write_text("\n".join(lines) + "\n")
    return folder


def ready(i, task="own", query=None):
    text = query or f"Which color has the {THINGS[i % 25]} flag number {i} of {NAMES[i % 12]}?"
    return Question(
        query_id=f"{task}-{i}", task_name=task, query=text, ground_truth=["red"], metric="f1",
        max_tokens=8,
    )  # fmt: skip


def config(**keys):
    return DataConfig.model_validate({"out": "out", "llms": LLMS, **keys})


def ids(splits):
    return {one.query_id: split for split, found in splits.items() for one in found}


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = tmp_path_factory.mktemp("queries")
    gsm8k(folder / "gsm8k", range(200))
    gsm8k(folder / "reversed", reversed(range(200)))
    gsm8k(folder / "fewer", range(199))
    write_questions(folder / "own.jsonl", [ready(i) for i in range(60)])
    return folder


def gsm(path="gsm8k", **keys):
    return {"gsm8k": {"path": path, **keys}}


def test_shares_hold_within_each_task(base):
    splits = build(
        config(benchmarks=gsm(), questions=["own.jsonl"], test_share=0.25, validation_share=0.1),
        base,
    )
    assert list(splits) == ["train", "validation", "test"]
    counts = {
        task: [sum(one.task_name == task for one in found) for found in splits.values()]
        for task in ("gsm8k", "own")
    }
    assert counts == {"gsm8k": [130, 20, 50], "own": [39, 6, 15]}


def test_more_questions_hold_those_of_fewer(base):
    drawn = {n: set(ids(build(config(benchmarks=gsm(n=n)), base))) for n in (50, 60, 200)}
    assert [len(found) for found in drawn.values()] == [50, 60, 200]
    assert drawn[50] < drawn[60] < drawn[200]
    other = set(ids(build(config(benchmarks=gsm(n=50), seed=1), base)))
    assert 5 < len(other & drawn[50]) < 25  # 12.5 where the draws are independent


def test_nothing_depends_on_the_order_of_rows(base):
    one = build(config(benchmarks=gsm(n=70)), base)
    assert build(config(benchmarks=gsm("reversed", n=70)), base) == one


def test_one_more_question_moves_few_others(base):
    before = ids(build(config(benchmarks=gsm("fewer"), questions=["own.jsonl"]), base))
    after = ids(build(config(benchmarks=gsm(), questions=["own.jsonl"]), base))
    assert len(after) == len(before) + 1
    assert sum(after[key] != split for key, split in before.items()) <= 2


@settings(max_examples=12)
@given(seed=st.integers(0, 10_000), shares=st.sampled_from([(0.2, 0.0), (0.3, 0.3), (0.5, 0.4)]))
def test_near_duplicates_share_a_split(tmp_path_factory, seed, shares):
    base = tmp_path_factory.getbasetemp() / "doubles"
    if not base.exists():
        gsm8k(base / "gsm8k", range(30))
        twins = [f"{word_problem(i)['question'].upper()}!!" for i in range(0, 30, 2)]
        own = [ready(i, "twins", text) for i, text in enumerate(twins)]
        write_questions(base / "own.jsonl", own)
    run_of = config(
        benchmarks=gsm(), questions=["own.jsonl"], seed=seed, test_share=shares[0],
        validation_share=shares[1],
    )  # fmt: skip
    splits = build(run_of, base)
    texts = {split: [one.query for one in found] for split, found in splits.items()}
    assert sum(map(len, texts.values())) == 45
    for split, found in texts.items():
        others = [text for other, more in texts.items() if other != split for text in more]
        assert not leaks(others, found).any()


def write_config(folder, text):
    path = folder / "data.yaml"
    path.write_text(text + "llms: {tiny: {engine: echo}}\n")
    return path


FULL = """
out: out
benchmarks:
  gsm8k: {path: gsm8k, n: 20, max_tokens: 99}
questions: [own.jsonl]
validation_share: 0.2
"""


def test_a_run_writes_lines_tables_and_a_report(tmp_path):
    gsm8k(tmp_path / "gsm8k", [*range(30), 3, 4])
    write_questions(tmp_path / "own.jsonl", [ready(i) for i in range(20)])
    told = []
    report = run(write_config(tmp_path, FULL), progress=lambda *what: told.append(what))
    folder = tmp_path / "out"
    assert told == [("gsm8k", 0, 2), ("own.jsonl", 1, 2), ("", 2, 2)]
    splits = read_splits(folder)
    assert {split: len(found) for split, found in splits.items()} == {
        "train": 24, "validation": 8, "test": 8,
    }  # fmt: skip
    for split, found in splits.items():
        table = pq.read_table(folder / f"queries_{split}.parquet").to_pylist()
        assert [row["query"] for row in table] == [one.query for one in found]
        for row, one in zip(table, found, strict=True):
            truth = (
                row["ground_truth"] if one.task_name == "gsm8k" else json.loads(row["ground_truth"])
            )
            assert truth == one.ground_truth
            assert row["max_tokens"] == (99 if one.task_name == "gsm8k" else 8)
    assert report == {"folder": str(folder), **json.loads((folder / "queries.json").read_text())}
    assert report["sources"][0]["rows"] == 32
    assert (report["questions"], report["groups"], report["doubled"]) == (40, 40, 2)
    assert report["tasks"]["gsm8k"] == {"train": 12, "validation": 4, "test": 4}


def test_the_same_run_writes_the_same_and_no_split_stays_behind(tmp_path):
    gsm8k(tmp_path / "gsm8k", range(30))
    write_questions(tmp_path / "own.jsonl", [ready(i) for i in range(20)])
    path = write_config(tmp_path, FULL)
    run(path)
    folder = tmp_path / "out"
    first = {file.name: file.read_bytes() for file in folder.iterdir()}
    run(path)
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == first
    run(path, ["validation_share=0", "test_share=0"])
    assert sorted(file.name for file in folder.iterdir()) == [
        "queries.json", "queries_train.jsonl", "queries_train.parquet",
    ]  # fmt: skip
    assert len(read_splits(folder)["train"]) == 40


def test_fewer_than_asked_for_is_a_warning_and_a_doubled_question_no_fault(tmp_path, caplog):
    gsm8k(tmp_path / "gsm8k", range(10))
    base_run = config(benchmarks=gsm(n=30), test_share=0)
    own = build(base_run, tmp_path)["train"]
    assert "gsm8k: 30 asked for, there are 10" in caplog.text
    write_questions(tmp_path / "again.jsonl", own)
    both = config(benchmarks=gsm(), questions=["again.jsonl"], test_share=0)
    assert build(both, tmp_path) == {"train": own}


def test_every_fault_of_a_config_at_once(tmp_path):
    gsm8k(tmp_path / "gsm8k", range(3))
    text = (
        "out: out\nvalidation_share: 0.9\nquestions: [none.jsonl]\n"
        "benchmarks:\n  gsm9k: {}\n  mmlu: {path: nowhere}\n  gsm8k: {path: gsm8k, split: dev}\n"
    )
    path = write_config(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        run(path)
    where = [fault.where.removeprefix(f"{path}: ") for fault in caught.value.faults]
    assert where == [
        "test_share, validation_share", "benchmarks.gsm9k", "benchmarks.mmlu.path",
        "benchmarks.gsm8k.path", "questions.0",
    ]  # fmt: skip
    assert "there are: 2wikimultihopqa, arc_challenge, bamboogle" in str(caught.value)
    assert "has no file of split dev" in str(caught.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("keys", "problem"),
    [
        ({}, "config: has no source; expected benchmarks or questions"),
        ({"questions": ["bad.jsonl", "clash.jsonl", "own.jsonl"]}, "bad.jsonl:1: max_tokens"),
        ({"questions": ["own.jsonl", "clash.jsonl"]}, "own-1 is another question elsewhere"),
        ({"questions": ["empty.jsonl"]}, "empty.jsonl: holds no question"),
        ({"questions": ["one.jsonl"]}, "test_share: there is one distinct question"),
    ],
)
def test_questions_that_cannot_be_asked(tmp_path, keys, problem):
    write_questions(tmp_path / "own.jsonl", [ready(i) for i in range(3)])
    write_questions(tmp_path / "clash.jsonl", [ready(1, query="Another?")])
    write_questions(tmp_path / "one.jsonl", [ready(1)])
    (tmp_path / "empty.jsonl").touch()
    line = json.loads(queries_line(tmp_path)) | {"max_tokens": 0}
    (tmp_path / "bad.jsonl").write_text(json.dumps(line))
    with pytest.raises(ConfigError) as caught:
        build(config(**keys), tmp_path)
    assert problem in str(caught.value)


def test_missing_keys_and_an_unknown_metric_are_told_together(tmp_path):
    (tmp_path / "bad.jsonl").write_text('{"query_id": "1", "query": "x", "metric": "short_anser"}')
    with pytest.raises(ConfigError) as caught:
        build(config(questions=["bad.jsonl"]), tmp_path)
    told = [str(fault).removeprefix(f"{tmp_path}/") for fault in caught.value.faults]
    assert told[0] == "bad.jsonl:1: ground_truth: missing; it is required"
    assert told[1].startswith("bad.jsonl:1: metric: no metric 'short_anser' (did you mean 'short_")
    assert len(told) == 2


def test_a_run_tells_a_missing_key_and_a_missing_file_together(tmp_path, monkeypatch):
    for name in ("API_KEYS", "RAY_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    path = tmp_path / "data.yaml"
    path.write_text(
        "out: out\nquestions: [none.jsonl]\nllms:\n  a: {engine: openai, config: {base_url: "
        "'http://127.0.0.1:1/v1', model: m, service: nobody}}\n"
    )
    result = CliRunner().invoke(command, ["data", "run", "--config", str(path)])
    assert result.exit_code == 2
    assert "no key for the service 'nobody'" in result.stderr
    assert "questions.0: " in result.stderr
    assert "none.jsonl: no such file" in result.stderr
    assert not (tmp_path / "out").exists()


def queries_line(folder):
    return (folder / "own.jsonl").read_text().splitlines()[0]


def test_the_command(tmp_path):
    gsm8k(tmp_path / "gsm8k", range(30))
    write_questions(tmp_path / "own.jsonl", [ready(i) for i in range(20)])
    path = str(write_config(tmp_path, FULL))
    result = CliRunner().invoke(command, ["data", "queries", "--config", path, "--json", "seed=5"])
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["seed"] == 5
    assert found["splits"] == {"train": 24, "validation": 8, "test": 8}
    assert queries_path(tmp_path / "out", "test").is_file()
    result = CliRunner().invoke(command, ["data", "queries", "--config", path])
    assert result.stdout.splitlines()[-2] == (
        "40 questions in 40 groups of near-duplicates; 0 repeated questions left out"
    )
    wrong = ["data", "queries", "--config", path, "benchmarks.gsm8k.n=0"]
    assert CliRunner().invoke(command, wrong).exit_code == 2


def test_out_may_be_a_store(tmp_path):
    write_questions(tmp_path / "own.jsonl", [ready(i) for i in range(10)])
    store = tmp_path / "store"
    path = write_config(tmp_path, f"out: file://{store}\nquestions: [own.jsonl]\n")
    assert run(path)["folder"] == f"file://{store}"
    assert {split: len(found) for split, found in read_splits(store).items()} == {
        "train": 8, "test": 2,
    }  # fmt: skip
