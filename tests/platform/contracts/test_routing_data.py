from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from waypost.contracts.errors import SchemaError
from waypost.contracts.records import LLMInfo
from waypost.contracts.routing_data import read_routing_data, write_routing_data
from waypost.contracts.tables import split_path, write_llms
from waypost.testing.tables import outcomes

ROWS = {
    "query_id": [2, 2, 1, 2],
    "query": ["two", "two", "one", "two"],
    "task_name": ["t", "t", None, "t"],
    "model_name": ["b", "a", "b", "idle"],
    "performance": [0.5, 1.0, 0.0, None],
    "output_tokens": [9, None, 3, None],
}
LLMS = tuple(LLMInfo(name=name) for name in ("a", "b", "idle", "unused"))


def write(folder, rows=ROWS, **columns):
    pq.write_table(pa.table({**rows, **columns}), split_path(folder, "train"))
    write_llms(folder / "llms.json", LLMS)
    return folder


def test_pivot_by_hand(tmp_path):
    data = read_routing_data(write(tmp_path))
    assert data.query_ids == ("2", "1")
    assert data.queries == ("two", "one")
    assert data.task_names == ("t", "")
    assert data.names == ("a", "b")  # never measured: idle, unused
    np.testing.assert_array_equal(data.quality, [[1.0, 0.5], [np.nan, 0.0]])
    np.testing.assert_array_equal(data.output_tokens, [[np.nan, 9], [np.nan, 3]])
    assert np.isnan(data.cost_usd).all()


def test_two_queries_may_share_a_text(tmp_path):
    data = read_routing_data(write(tmp_path, query=["same"] * 4))
    assert data.query_ids == ("2", "1")
    assert data.queries == ("same", "same")


def test_doubled_key(tmp_path):
    with pytest.raises(SchemaError, match="query_id 2 has two rows for b"):
        read_routing_data(write(tmp_path, model_name=["b", "b", "a", "idle"]))


def test_one_id_with_two_texts(tmp_path):
    with pytest.raises(SchemaError, match="one query_id has two different texts"):
        read_routing_data(write(tmp_path, query=["two", "other", "one", "two"]))


def test_unknown_model(tmp_path):
    with pytest.raises(SchemaError, match=r"model_name ghost is not in .*llms.json"):
        read_routing_data(write(tmp_path, model_name=["b", "a", "ghost", "idle"]))


def test_nothing_measured(tmp_path):
    nothing = pa.array([None] * 4, pa.float32())
    with pytest.raises(SchemaError, match="every performance is null"):
        read_routing_data(write(tmp_path, performance=nothing))


def test_written_data_reads_back(tmp_path):
    facts = {"a": {"size": "7B", "input_price": 0.5, "output_price": 1.0}}
    data = outcomes(
        {"a": [0.25, None, 1.0], "b": [0.5, 0.75, None]},
        facts=facts,
        output_tokens={"a": [5, None, 7]},
        cost_usd={"b": [0.001, None, None]},
    )
    write_routing_data(tmp_path, data)
    again = read_routing_data(tmp_path)
    assert again.digest == data.digest
    assert again.llms == data.llms


def test_digest_changes_with_anything_learned_from():
    data = outcomes({"a": [0.25, 0.5]})
    other = replace(data, queries=(data.queries[0], "else"))
    assert data.digest == outcomes({"a": [0.25, 0.5]}).digest
    assert data.digest != outcomes({"a": [0.25, 0.6]}).digest
    assert data.digest != outcomes({"b": [0.25, 0.5]}).digest
    assert data.digest != other.digest


def test_rows_by_index_and_by_mask():
    data = outcomes({"a": [0.1, 0.2, 0.3]}, vectors=[[1, 0], [0, 1], [1, 1]])
    for rows in ([2, 0], np.array([2, 0])):
        assert data.select(rows).quality[:, 0].tolist() == [0.3, 0.1]
    masked = data.select(np.array([True, False, True]))
    assert masked.query_ids == ("q0", "q2")
    assert masked.embeddings.shape == (2, 2)


def test_llms_are_selected_in_the_given_order():
    data = outcomes({"a": [0.1], "b": [0.2], "c": [0.3]})
    assert data.select_llms(["c", "a"]).quality.tolist() == [[0.3, 0.1]]
    with pytest.raises(SchemaError, match="no LLM named ghost"):
        data.select_llms(["ghost"])


@pytest.mark.parametrize(
    "wrong",
    [
        {"queries": ("one",)},
        {"quality": np.zeros((1, 1))},
        {"embeddings": np.zeros((3, 2), np.float32)},
        {"query_ids": ("q0", "q0")},
    ],
)
def test_inconsistent_data_is_refused(wrong):
    with pytest.raises(SchemaError, match="routing data"):
        replace(outcomes({"a": [0.1, 0.2]}), **wrong)


def test_prices_of_unknown_are_nan():
    data = outcomes({"a": [0.1], "b": [0.2]}, facts={"b": {"input_price": 1.0}})
    np.testing.assert_array_equal(data.prices, [[np.nan, np.nan], [1.0, np.nan]])
