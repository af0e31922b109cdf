"""Every command meets every kind of broken input: it names what is wrong and writes nothing."""

import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from safetensors.numpy import load_file, save_file

from waypost.cli import command
from waypost.contracts.routing_data import write_routing_data
from waypost.contracts.tables import split_path
from waypost.encoders import make_encoder
from waypost.pipelines.data.embeddings import keep_embeddings
from waypost.testing.synthetic import ENCODER_ID, planted

INFINITE, UNDEFINED = float("inf"), float("nan")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A sound folder of data and an artifact trained on it."""
    folder = tmp_path_factory.mktemp("made")
    write_routing_data(folder / "data", planted(12))
    write_routing_data(folder / "data", planted(6, seed=1), "test")
    result = run("train", "--router", "knnrouter", *arguments(folder))
    assert result.exit_code == 0, result.output
    keep_embeddings(planted(12).queries, make_encoder(ENCODER_ID), folder / "data")
    return folder


@pytest.fixture
def place(made, tmp_path):
    """A copy that a test may break."""
    shutil.copytree(made, tmp_path / "made")
    return tmp_path / "made"


def arguments(folder):
    data, out = str(folder / "data"), str(folder / "artifact")
    return ("--data", data, "--out", out, "--encoder", ENCODER_ID, "--folds", "0")


def run(*words):
    return CliRunner().invoke(command, [str(word) for word in words])


def refused(place, words, *problems, code=1):
    """Check the exit code and the message, and that no file appeared or changed."""
    before = listing(place)
    result = run(*words)
    assert result.exit_code == code, result.output
    assert "internal error" not in result.output
    for problem in problems:
        assert problem in result.output
    assert listing(place) == before


def listing(folder):
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder): path.stat().st_mtime_ns for path in paths}


def train(place, router="best_single"):
    return ("train", "--router", router, *arguments(place)[:2], "--out", place / "new", *FAST)


def evaluate(place, name="best_single"):
    return ("evaluate", name, "--data", place / "data", "--out", place / "report", *FAST[:2])


def route(place):
    return ("route", "--artifact", place / "artifact", "--query", "simmer the onion")


FAST = ("--encoder", ENCODER_ID, "--folds", "0")


def cell(column, value, kind=None):
    def change(table):
        values = table[column].to_pylist()
        values[4] = value
        index = table.column_names.index(column)
        return table.set_column(index, column, pa.array(values, kind or table[column].type))

    return change


def renamed(old, new):
    return lambda table: table.rename_columns([new if n == old else n for n in table.column_names])


def not_utf8(table):
    lengths = pa.array([0, 1] * (len(table) // 2), pa.int32())
    offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]), pa.int32())
    texts = pa.StringArray.from_buffers(
        len(table), offsets.buffers()[1], pa.py_buffer(b"\xff" * len(table))
    )
    return table.set_column(table.column_names.index("query"), "query", texts)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda t: t.drop_columns(["performance", "query"]), "columns missing: query, performance"),
        (renamed("task_name", "query"), "columns stand twice: query"),
        (lambda t: t.slice(0, 0), "holds no row"),
        (cell("performance", UNDEFINED), "row 4: performance is nan; expected 0 to 1"),
        (cell("performance", INFINITE), "row 4: performance is inf; expected 0 to 1"),
        (cell("performance", -0.5), "row 4: performance is -0.5; expected 0 to 1"),
        (cell("cost_usd", INFINITE), "row 4: cost_usd is inf; expected a number"),
        (cell("cost_usd", UNDEFINED), "row 4: cost_usd is nan; expected a number"),
        (cell("cost_usd", -1.0), "row 4: cost_usd is negative"),
        (cell("latency_s", -1.0), "row 4: latency_s is negative"),
        (cell("input_tokens", 1.5, pa.float64()), "column input_tokens is double; expected int32"),
        (cell("input_tokens", 2**40, pa.int64()), "(row 4 is no int32)"),
        (cell("query_id", None), "row 4: query_id is null"),
        (cell("query", "another text"), "query_id 0-1: one query_id has two different texts"),
        (cell("model_name", "ghost"), "model_name ghost is not in"),
        (cell("model_name", "cook"), "query_id 0-1 has two rows for cook; expected one"),
        (lambda t: pa.concat_tables([t, t.slice(4, 1)]), "query_id 0-1 has two rows for prover"),
        (not_utf8, "column query is string; expected string (row 1 is not UTF-8)"),
    ],
)
def test_routing_tables(place, change, problem):
    for split, words in (("train", train(place)), ("test", evaluate(place))):
        path = split_path(place / "data", split)
        table = pq.read_table(path)
        if split == "test" and "0-1" in problem:
            problem = problem.replace("0-1", "1-1")
        pq.write_table(change(table), path)
        refused(place, words, f"{path}: ", problem)
        pq.write_table(table, path)


def test_a_column_of_words(place):
    path = split_path(place / "data", "train")
    table = pq.read_table(path)
    index = table.column_names.index("performance")
    words = pa.array(["0.5"] * 7 + ["good"] * (len(table) - 7))
    pq.write_table(table.set_column(index, "performance", words), path)
    refused(place, train(place), "performance is string; expected float (row 7 is no float)")


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (lambda old: old[: len(old) // 2], "not a readable parquet file"),
        (lambda old: old[:-20], "not a readable parquet file"),
        (lambda old: b"query_id,query\n1,x\n", "not a readable parquet file"),
        (lambda old: b"", "not a readable parquet file"),
        (None, "no such file"),
    ],
)
def test_files_that_are_no_tables(place, content, problem):
    for split, words in (("train", train(place)), ("test", evaluate(place))):
        path = split_path(place / "data", split)
        old = path.read_bytes()
        path.unlink() if content is None else path.write_bytes(content(old))
        refused(place, words, f"{path}: {problem}")
        path.write_bytes(old)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"\xff\xfe{}", "not readable as JSON"),
        (b"{", "not readable as JSON"),
        (b"[" * 100_000, "not readable as JSON"),
        (b"[]", "expected a mapping from LLM name"),
        (b"{}", "expected a mapping from LLM name"),
        (b'{"cook": "7B"}', "cook: expected a mapping of facts"),
        (b'{"cook": {"input_price": -1}}', "cook: input_price"),
        (b'{"cook": {"input_price": "cheap"}}', "cook: input_price"),
        (b'{"cook": {"mean_cost_usd": NaN}}', "NaN is no JSON number"),
        (b'{"cook": {}, "cook": {"size": "7B"}}', "the key cook stands twice"),
        (b'{"cook": {}}', "model_name prover, tiny is not in"),
        (b'{"": {}}', "name"),
        (None, "no such file"),
    ],
)
def test_facts_of_the_llms(place, content, problem):
    path = place / "data" / "llms.json"
    path.unlink() if content is None else path.write_bytes(content)
    refused(place, train(place), str(path), problem)
    refused(place, evaluate(place), str(path), problem)


def test_one_llm_and_one_question_are_enough(place):
    """Routing to one LLM is what serving it means; a report on it says so by its numbers."""
    path = split_path(place / "data", "train")
    pq.write_table(pq.read_table(path).slice(0, 1), path)
    for router in ("best_single", "knnrouter"):
        words = train(place, router)
        assert run(*words).exit_code == 0
        result = run("route", "--artifact", place / "new", "--query", "anything")
        assert result.stdout.startswith("cook: ")


def flips(content):
    """Yield copies with one byte changed: at both ends and evenly between."""
    for place in np.unique(np.linspace(0, len(content) - 1, 9).astype(int)):
        changed = bytearray(content)
        changed[place] ^= 1
        yield bytes(changed)


def test_an_artifact_with_one_byte_changed(place):
    files = sorted(path for path in (place / "artifact").rglob("*") if path.is_file())
    assert len(files) == 4
    for path in files:
        sound = path.read_bytes()
        for changed in flips(sound):
            path.write_bytes(changed)
            refused(place, route(place), str(path))
        path.write_bytes(sound)
    assert run(*route(place)).exit_code == 0


def cut(arrays, path):
    path.write_bytes(path.read_bytes()[:-1])


def stored(**changes):
    def change(arrays, path):
        save_file({**arrays, **{key: value(arrays[key]) for key, value in changes.items()}}, path)

    return change


def undefined_row(rows):
    return np.where(np.arange(len(rows))[:, None] == 3, np.float32(np.nan), rows)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (cut, "not readable"),
        (stored(embeddings=lambda rows: rows[:, :32].copy()), "F32 (12, 32); expected"),
        (stored(embeddings=lambda rows: rows[:5].copy()), "F32 (5, 64); expected"),
        (stored(embeddings=undefined_row), "row 3 is not finite"),
        (stored(embeddings=lambda rows: rows.astype(np.float64)), "embeddings are F64"),
        (stored(texts=lambda rows: rows[:, :8].copy()), "texts is uint8 (12, 8); expected"),
        (stored(probe=lambda rows: rows[:2].copy()), "probe is float32 (2, 64); expected"),
        (
            lambda arrays, path: save_file({"embeddings": arrays["embeddings"]}, path),
            "tensor texts",
        ),
    ],
)
def test_kept_embeddings(place, change, problem):
    path = place / "data" / f"query_embeddings-{ENCODER_ID}.safetensors"
    change(load_file(path), path)
    refused(place, train(place, "knnrouter"), str(path), problem)


def test_queries_that_are_not_utf8(place):
    path = place / "queries.jsonl"
    path.write_bytes(b'"one"\n"\xff"\n')
    words = (*route(place)[:3], "--input", path, "--output", place / "decisions.jsonl")
    refused(place, words, f"{path}: is not UTF-8")


def test_an_output_that_cannot_be_written(place):
    path = place / "queries.jsonl"
    path.write_text('"one"\n')
    words = (*route(place)[:3], "--input", path, "--output", place / "no" / "folder.jsonl")
    refused(place, words, "cannot be written", code=2)


def test_a_target_that_is_something_else(place):
    (place / "new").write_text("a file")
    refused(place, train(place), "exists and is not an artifact")
