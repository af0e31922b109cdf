"""Rows of benchmarks from files, folders and the hub's own form, and what is said of wrong ones."""

import gzip
import json
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from waypost.benchmarks.base import Source
from waypost.benchmarks.catalog import find_benchmark
from waypost.benchmarks.rows import data_files, load_questions
from waypost.config import settings
from waypost.contracts.errors import ConfigError, SchemaError

GSM8K = find_benchmark("gsm8k")


def rows(*numbers):
    return [{"question": f"What is {i}?", "answer": f"#### {i}"} for i in numbers]


def lines(found):
    return "".join(json.dumps(row) + "\n" for row in found)


def truths(path, **options):
    return [one.ground_truth for one in load_questions(GSM8K, path, **options).questions]


def test_every_kind_of_file_gives_the_same_questions(tmp_path):
    (tmp_path / "a.jsonl").write_text(lines(rows(1, 2)) + "\n")
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(lines(rows(1, 2)).encode()))
    pq.write_table(pa.Table.from_pylist(rows(1, 2)), tmp_path / "a.parquet")
    (tmp_path / "a.csv").write_text('answer,question\n#### 1,What is 1?\n"#### 2",What is 2?\n')
    marked = '\ufeff"question";"answer"\n"What is 1?";#### 1\nWhat is 2?;#### 2\n'
    (tmp_path / "semicolons.csv").write_text(marked)
    (tmp_path / "tabs.csv").write_text("question\tanswer\nWhat is 1?\t#### 1\nWhat is 2?\t#### 2\n")
    (tmp_path / "byte_order_mark.jsonl").write_text("\ufeff" + lines(rows(1, 2)))
    found = [load_questions(GSM8K, path).questions for path in sorted(tmp_path.iterdir())]
    assert len(found) == 7
    assert all(one == found[0] for one in found)
    assert [one.ground_truth for one in found[0]] == ["1", "2"]


def test_a_row_that_stands_twice_is_asked_once(tmp_path):
    (tmp_path / "test.jsonl").write_text(lines(rows(1, 2, 1)))
    loaded = load_questions(GSM8K, tmp_path)
    assert (loaded.rows, len(loaded.questions)) == (3, 2)


@pytest.mark.parametrize(
    ("files", "split", "read"),
    [
        (["test.jsonl", "train.jsonl"], None, ["test.jsonl"]),
        (["test.jsonl", "train.jsonl"], "train", ["train.jsonl"]),
        (["a/test-00000-of-00002.parquet", "a/test-00001-of-00002.parquet"], None, "all"),
        (["mine.jsonl", "more.csv", "README.md"], None, ["mine.jsonl", "more.csv"]),
        (["testing.jsonl", "test.jsonl"], None, ["test.jsonl"]),
        (["main/test-0.parquet", "socratic/test-0.parquet"], None, ["main/test-0.parquet"]),
        (["main/test.jsonl", "test.jsonl"], None, ["main/test.jsonl"]),
    ],
)
def test_which_files_of_a_folder_are_read(tmp_path, files, split, read):
    for name in files:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = data_files(tmp_path, Source("openai/gsm8k", "test", ("main",)), split)
    expected = files if read == "all" else read
    assert [str(path.relative_to(tmp_path)) for path in found] == expected


@pytest.mark.parametrize(
    ("make", "split", "problem"),
    [
        (None, None, "no such file or folder"),
        ("notes.txt", None, r"is not a file of rows; expected \.parquet, \.jsonl"),
        ("folder/notes.txt", None, "contains no file of rows"),
        ("folder/test.jsonl", "dev", "has no file of split dev"),
    ],
)
def test_a_path_without_rows_is_a_wrong_config(tmp_path, make, split, problem):
    path = tmp_path / "nowhere"
    if make is not None:
        (tmp_path / make).parent.mkdir(exist_ok=True)
        (tmp_path / make).write_text("x")
        path = tmp_path / make.partition("/")[0]
    with pytest.raises(ConfigError, match=problem):
        load_questions(GSM8K, path, split=split)


def test_wrong_rows_are_named_by_file_row_and_column(tmp_path):
    path = tmp_path / "test.jsonl"
    wrong = [
        {"question": "q"},
        {"question": 7, "answer": "#### 1"},
        {"question": "q", "answer": ""},
    ]
    path.write_text(lines([*rows(1), *wrong, *rows(2), *[{"answer": ""}] * 4]))
    with pytest.raises(SchemaError) as caught:
        load_questions(GSM8K, path)
    assert str(caught.value).splitlines() == [
        f"{path}: row 2: column answer: missing; there are question",
        f"{path}: row 3: column question: expected a valid string, found int",
        f"{path}: row 4: column answer: does not end in '#### ' and a number",
        f"{path}: row 6: column question: missing; there are answer",
        f"{path}: row 7: column question: missing; there are answer",
        "and 2 more rows",
    ]


def test_a_table_without_a_column_is_named_once(tmp_path):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"Question": ["q"], "answer": ["#### 1"]}), path)
    with pytest.raises(SchemaError) as caught:
        load_questions(GSM8K, path)
    assert str(caught.value) == f"{path}: lacks column question; there are Question, answer"


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("a.jsonl", b"{", "a.jsonl: line 1: is not JSON"),
        ("a.jsonl", b"\n[1]\n", "a.jsonl: line 2: expected a JSON object, found list"),
        ("a.jsonl", b'{"question": "\xff"}', "a.jsonl: cannot be read: UnicodeDecodeError"),
        ("a.jsonl.gz", b"plain text", "a.jsonl.gz: cannot be read: BadGzipFile"),
        (
            "a.jsonl.gz",
            gzip.compress(b"{}" * 99, mtime=0)[:-12],
            "a.jsonl.gz: cannot be read: EOFError",
        ),
        ("a.parquet", b"PAR1 no", "a.parquet: cannot be read: ArrowInvalid"),
        ("a.csv", b"answer,question\n#### 1,What, is 1?\n", "row 1: has more fields"),
        ("a.csv", b"answer;quest\n#### 1;What is 1?\n", "missing; there are answer, quest"),
        ("a.csv", b"answer\n#### 1\n", "row 1: column question: missing; there are answer"),
        (
            "a.csv",
            b"answer,question\n#### 1\n",
            "column question: expected a valid string, found nu",
        ),
    ],
)
def test_files_that_are_not_what_they_are_called(tmp_path, name, content, problem):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(SchemaError, match=problem.replace("[", r"\[")):
        load_questions(GSM8K, tmp_path / name)


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A data set laid out as on the hub, read by the package datasets from a folder."""
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    datasets.disable_progress_bars()
    folder = tmp_path / "gsm8k"
    listed = []
    for number, config in enumerate(("main", "socratic")):
        (folder / config).mkdir(parents=True)
        listed.append(f"- config_name: {config}\n  data_files:")
        for split in ("train", "test"):
            table = pa.Table.from_pylist(rows(*range(10 * number, 10 * number + len(split))))
            table = table.append_column("extra", pa.array([{"a": [1]}] * len(table)))
            pq.write_table(table, folder / config / f"{split}-00000-of-00001.parquet")
            listed.append(f"  - split: {split}\n    path: {config}/{split}-*")
    (folder / "README.md").write_text("---\nconfigs:\n" + "\n".join(listed) + "\n---\n")
    return folder


def with_source(*source):
    return type("Other", (type(GSM8K),), {"source": Source(*source)})()


def test_a_data_set_in_the_form_of_the_hub(hub):
    benchmark = with_source(str(hub), "test", ("main", "socratic"))
    found = [one.ground_truth for one in load_questions(benchmark).questions]
    assert found == [*"0123", "10", "11", "12", "13"]
    one = with_source(str(hub), "test", ("main",))
    assert len(load_questions(one, split="train").questions) == 5
    # The downloaded folder, given as a path, has the same questions.
    assert load_questions(GSM8K, hub) == load_questions(one)


def test_a_wrong_split_and_a_wrong_column_of_a_data_set(hub):
    benchmark = with_source(str(hub), "dev", ("main",))
    with pytest.raises(SchemaError, match=r"cannot be loaded from the hub: Unknown split \"dev\""):
        load_questions(benchmark)
    shutil.rmtree(hub / "socratic")
    other = type("Other", (type(GSM8K),), {"columns": {"q": str}, "source": benchmark.source})()
    with pytest.raises(SchemaError, match="lacks column q; there are question, answer, extra"):
        load_questions(other, split="test")


def test_without_the_hub_the_way_out_is_told(monkeypatch, hub):
    monkeypatch.setenv("WAYPOST_OFFLINE", "1")
    settings.cache_clear()
    with pytest.raises(SchemaError) as caught:
        load_questions(GSM8K)
    message = str(caught.value)
    assert message.startswith("openai/gsm8k/main/test: the data set cannot be loaded from the hub")
    assert "set benchmarks.gsm8k.path to a file or folder" in message
    assert "(question, answer)" in message
