import json
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from waypost.cli import command
from waypost.contracts.routing_data import read_routing_data, write_routing_data
from waypost.contracts.splits import leaks
from waypost.contracts.tables import split_path
from waypost.testing.synthetic import planted


@pytest.fixture
def source(tmp_path):
    folder = tmp_path / "source"
    data = planted(40)
    write_routing_data(folder, data)
    more = planted(10, seed=1)
    texts = (f"{data.queries[0].upper()}!", *more.queries[1:])
    write_routing_data(folder, replace(more, queries=texts), "test")
    for name in ("train", "test"):
        path = split_path(folder, name)
        table = pq.read_table(path)
        user = pa.array([f"user {i}" for i in range(len(table))])
        pq.write_table(table.append_column("user_id", user), path)
    (folder / "query_embeddings-x.safetensors").write_bytes(b"kept as it is")
    return folder


def split(*arguments):
    return CliRunner().invoke(command, ["data", "split", *map(str, arguments)])


def test_a_split_keeps_every_row_and_column(source, tmp_path):
    result = split(source, tmp_path / "new", "--test", "0.25", "--validation", "0.25", "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["tasks"]["cooking"] == {"train": 10, "validation": 5, "test": 5}
    assert found["splits"]["test"] == {"queries": 10, "groups": 10}
    assert (found["queries"], found["leaks"], found["leaked"]) == (40, 0, None)
    parts = [pq.read_table(split_path(tmp_path / "new", name)) for name in found["splits"]]
    old = pq.read_table(split_path(source, "train"))
    assert all(part.schema == old.schema for part in parts)
    key = [("query_id", "ascending"), ("model_name", "ascending")]
    assert pa.concat_tables(parts).sort_by(key) == old.sort_by(key)
    assert (tmp_path / "new" / "llms.json").read_text() == (source / "llms.json").read_text()
    assert (tmp_path / "new" / "query_embeddings-x.safetensors").is_file()


def test_pooled_splits_leave_out_what_train_has(source, tmp_path):
    result = split(source, tmp_path / "new", "--pool", "--seed", "3", "--json")
    found = json.loads(result.stdout)
    assert (found["queries"], found["left_out"], found["leaked"]) == (49, 1, 1)
    train, test = (read_routing_data(tmp_path / "new", name) for name in ("train", "test"))
    assert len(train) + len(test) == 49
    assert not leaks(train.queries, test.queries).any()


def test_for_people(source, tmp_path):
    result = split(source, tmp_path / "new", "--pool")
    assert "near-duplicate in its train: 1; left out as the same question: 1" in result.stdout
    assert "near-duplicate in train now: 0" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "problem"),
    [
        (("--test", "1"), 2, "expected shares below 1"),
        (("--test", "nan"), 2, "expected shares below 1"),
        (("--test", "0.6", "--validation", "0.4"), 2, "expected shares below 1"),
    ],
)
def test_wrong_shares(source, tmp_path, arguments, code, problem):
    result = split(source, tmp_path / "new", *arguments)
    assert (result.exit_code, problem in result.output) == (code, True)
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_what_is_there_is_left_alone(source, tmp_path):
    before = sorted(source.iterdir())
    result = split(source, source)
    assert result.exit_code == 2
    assert "give the name of a new folder" in result.output
    assert sorted(source.iterdir()) == before


def test_without_a_test_split_there_is_nothing_to_pool(source, tmp_path):
    split_path(source, "test").unlink()
    result = split(source, tmp_path / "new", "--pool")
    assert result.exit_code == 1
    assert "routing_test.parquet: no such file" in result.output
    assert not (tmp_path / "new").exists()


def test_columns_of_two_kinds(source, tmp_path):
    path = split_path(source, "test")
    table = pq.read_table(path).drop_columns("user_id")
    pq.write_table(table.append_column("user_id", pa.array([[1]] * len(table))), path)
    result = split(source, tmp_path / "new", "--pool")
    assert result.exit_code == 1
    assert "columns differ from train's" in result.output
    assert [one.name for one in tmp_path.iterdir()] == ["source"]
