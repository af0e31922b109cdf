import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from waypost.contracts.errors import SchemaError
from waypost.contracts.records import LLMInfo
from waypost.contracts.tables import (
    ROUTING_SCHEMA,
    read_llms,
    read_routing_table,
    split_path,
    write_llms,
    write_routing_table,
)

ROWS = {
    "query_id": ["1", "1", "2"],
    "query": ["one", "one", "two"],
    "model_name": ["a", "b", "a"],
    "performance": [1.0, None, 0.25],
}


def write(folder, **columns):
    path = split_path(folder, "train")
    pq.write_table(pa.table({**ROWS, **columns}), path)
    return path


def test_a_table_reads_back_as_written(tmp_path):
    path = split_path(tmp_path, "train")
    write_routing_table(path, {**ROWS, "output_tokens": [5, None, 7]})
    table = read_routing_table(path)
    assert table.schema.names == ROUTING_SCHEMA.names
    assert table["performance"].to_pylist() == [1.0, None, 0.25]
    assert table["output_tokens"].to_pylist() == [5, None, 7]
    assert table["response"].null_count == 3
    assert list(tmp_path.iterdir()) == [path]


def test_numbers_as_ids_become_text_and_doubles_floats(tmp_path):
    path = write(tmp_path, query_id=[1, 1, 2], performance=pa.array([1, 0, 1], pa.int64()))
    table = read_routing_table(path)
    assert table["query_id"].to_pylist() == ["1", "1", "2"]
    assert table["performance"].type == pa.float32()


def test_missing_file_says_what_is_expected(tmp_path):
    with pytest.raises(SchemaError, match="no such file"):
        read_routing_table(split_path(tmp_path, "test"))


def test_missing_columns_are_all_named(tmp_path):
    path = split_path(tmp_path, "train")
    pq.write_table(pa.table({"query": ["x"], "model_name": ["a"]}), path)
    with pytest.raises(SchemaError, match="columns missing: query_id, performance"):
        read_routing_table(path)


def test_no_row(tmp_path):
    path = split_path(tmp_path, "train")
    pq.write_table(ROUTING_SCHEMA.empty_table(), path)
    with pytest.raises(SchemaError, match="holds no row"):
        read_routing_table(path)


def test_wrong_type(tmp_path):
    path = write(tmp_path, performance=["good", "bad", "good"])
    with pytest.raises(SchemaError, match="column performance is string; expected float"):
        read_routing_table(path)


@pytest.mark.parametrize("value", [1.5, -0.1, float("nan"), float("inf")])
def test_performance_out_of_range_names_the_row(tmp_path, value):
    path = write(tmp_path, performance=[0.5, value, None])
    with pytest.raises(SchemaError, match=r"row 1: performance is .*expected 0 to 1, or null"):
        read_routing_table(path)


@pytest.mark.parametrize("column", ["query_id", "query", "model_name"])
def test_null_keys(tmp_path, column):
    path = write(tmp_path, **{column: ["1", None, "2"]})
    with pytest.raises(SchemaError, match=f"row 1: {column} is null"):
        read_routing_table(path)


@pytest.mark.parametrize("column", ["input_tokens", "output_tokens", "cost_usd", "latency_s"])
def test_negative_amounts(tmp_path, column):
    path = write(tmp_path, **{column: [1, None, -1]})
    with pytest.raises(SchemaError, match=f"row 2: {column} is negative"):
        read_routing_table(path)


def test_truncated_parquet(tmp_path):
    path = write(tmp_path)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(SchemaError, match="not a readable parquet file"):
        read_routing_table(path)


def test_llms_read_back_in_order(tmp_path):
    llms = (LLMInfo(name="z", size="7B"), LLMInfo(name="a", input_price=0.5, extra="kept"))
    write_llms(tmp_path / "llms.json", llms)
    assert read_llms(tmp_path / "llms.json") == llms


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[]", "expected a mapping"),
        ("{}", "expected a mapping"),
        ("{", "not readable as JSON"),
        ('{"a": 3}', "a: expected a mapping of facts"),
        ('{"a": {"input_price": -1}}', "a: input_price"),
        ('{"a": {"context_length": "long"}}', "a: context_length"),
    ],
)
def test_wrong_llms(tmp_path, text, problem):
    path = tmp_path / "llms.json"
    path.write_text(text)
    with pytest.raises(SchemaError, match=problem):
        read_llms(path)


def test_missing_llms(tmp_path):
    with pytest.raises(SchemaError, match="no such file"):
        read_llms(tmp_path / "llms.json")


def test_written_llms_are_plain_json(tmp_path):
    write_llms(tmp_path / "llms.json", (LLMInfo(name="a", size="7B"),))
    assert json.loads((tmp_path / "llms.json").read_text()) == {"a": {"size": "7B", "feature": ""}}
