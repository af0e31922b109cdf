"""Recorded answers in routing data: read, selected, joined, written."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from waypost.contracts.errors import SchemaError
from waypost.contracts.routing_data import read_routing_data, write_routing_data
from waypost.contracts.splits import pool
from waypost.contracts.tables import split_path, write_routing_table
from waypost.testing.synthetic import planted

LLMS = '{"one": {"size": "1B"}, "two": {"size": "2B"}}'


@pytest.fixture
def folder(tmp_path):
    """Two questions; LLM two has no answer to the second, though it was scored."""
    columns = {
        "query_id": ["a", "a", "b", "b"],
        "query": ["q1", "q1", "q2", "q2"],
        "metric": ["letter", "letter", None, None],
        "model_name": ["one", "two", "one", "two"],
        "response": ["B", "C", "B", None],
        "performance": [1.0, 0.0, 1.0, 0.0],
    }
    for split in ("train", "test"):
        ids = {"query_id": [f"{split}-{one}" for one in columns["query_id"]]}
        texts = {"query": [f"{split} {one}" for one in columns["query"]]}
        write_routing_table(split_path(tmp_path, split), {**columns, **ids, **texts})
    (tmp_path / "llms.json").write_text(LLMS)
    return tmp_path


def texts(data):
    return [
        [data.responses.text(row, column) for column in range(len(data.llms))]
        for row in range(len(data))
    ]


def test_answers_are_read_on_request_only(folder):
    assert read_routing_data(folder).responses is None
    data = read_routing_data(folder, responses=True)
    assert texts(data) == [["B", "C"], ["B", None]]
    assert data.responses.metrics == ("letter", "")
    assert data.digest == read_routing_data(folder).digest


def test_answers_follow_rows_and_llms(folder):
    data = read_routing_data(folder, responses=True)
    assert texts(data.select([1])) == [["B", None]]
    assert texts(data.select_llms(["two", "one"])) == [["C", "B"], [None, "B"]]
    assert data.select([1]).responses.metrics == ("",)


def test_answers_of_both_splits_are_pooled(folder):
    splits = [read_routing_data(folder, split, responses=True) for split in ("train", "test")]
    assert texts(pool(*splits)) == [*texts(splits[0]), *texts(splits[1])]
    assert pool(splits[0], read_routing_data(folder, "test")).responses is None


def test_answers_are_written_with_the_data(folder, tmp_path):
    data = read_routing_data(folder, responses=True)
    write_routing_data(tmp_path / "copy", data)
    again = read_routing_data(tmp_path / "copy", responses=True)
    assert texts(again) == texts(data)
    assert again.responses.metrics == data.responses.metrics


def test_data_without_answers_has_none(tmp_path):
    write_routing_data(tmp_path, planted(4))
    assert read_routing_data(tmp_path, responses=True).responses is None


def test_answers_have_the_shape_of_the_data(folder):
    data = read_routing_data(folder, responses=True)
    wrong = replace(data.responses, rows=np.zeros((2, 3), np.int32))
    with pytest.raises(SchemaError, match="responses have shape"):
        replace(data, responses=wrong)
