import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from click.testing import CliRunner

from waypost.cli import command
from waypost.contracts.routing_data import read_routing_data, write_routing_data
from waypost.contracts.tables import read_routing_table, split_path
from waypost.testing.synthetic import planted

ENCODER = "hashing+d64+t512"


@pytest.fixture
def source(tmp_path):
    folder = tmp_path / "source"
    write_routing_data(folder, planted(12))
    write_routing_data(folder, planted(5, seed=1), "test")
    path = split_path(folder, "train")
    table = pq.read_table(path).to_pydict()
    rows = len(table["query"])
    table |= {
        "choices": ['{"text": ["it\'s", "b"], "labels": ["A", "B"]}'] * rows,
        "ground_truth": ["42"] * rows,
        "response": [f"answer {i}" for i in range(rows)],
        "scorer_version": ["v1"] * rows,
        "user_id": [f"user {i}" for i in range(rows)],
        "rating": [-1.0] * rows,
    }
    pq.write_table(pa.table(table), path)
    return folder


def run(verb, source, target, *options):
    result = CliRunner().invoke(
        command, ["data", f"{verb}-llmrouter", str(source), str(target), *options]
    )
    assert result.exit_code == 0, result.output
    return result.stdout


def test_data_comes_back_as_it_was(source, tmp_path):
    run("export", source, tmp_path / "peer", "--encoder", ENCODER)
    run("import", tmp_path / "peer", tmp_path / "again")
    for split in ("train", "test"):
        before, after = (read_routing_data(f, split) for f in (source, tmp_path / "again"))
        assert after.digest == before.digest
        assert after.llms == before.llms
        np.testing.assert_array_equal(after.latency_s, before.latency_s)
    old, new = (read_routing_table(split_path(f, "train")) for f in (source, tmp_path / "again"))
    for column in ("response", "ground_truth", "choices", "scorer_version", "user_id", "rating"):
        assert new[column].to_pylist() == old[column].to_pylist()


def test_imported_data_comes_out_as_it_was(source, tmp_path):
    run("export", source, tmp_path / "one", "--encoder", ENCODER)
    run("import", tmp_path / "one", tmp_path / "between")
    assert "query embeddings: llmrouter" in run("export", tmp_path / "between", tmp_path / "two")
    for path in (p for p in (tmp_path / "one").rglob("*.json*") if p.is_file()):
        other = tmp_path / "two" / path.relative_to(tmp_path / "one")
        assert other.read_text() == path.read_text()
    assert vectors(tmp_path / "one").keys() == vectors(tmp_path / "two").keys()
    for key, vector in vectors(tmp_path / "one").items():
        np.testing.assert_array_equal(vectors(tmp_path / "two")[key], vector)


def vectors(folder):
    import torch

    found = torch.load(folder / "routing_data" / "query_embeddings.pt", weights_only=True)
    return {key: value.numpy() for key, value in found.items()}


def test_the_form_that_llmrouter_reads(source, tmp_path):
    run("export", source, tmp_path / "peer", "--encoder", ENCODER)
    paths = yaml.safe_load((tmp_path / "peer" / "config.yaml").read_text())["data_path"]
    assert sorted(paths) == [
        "llm_data",
        "query_data_test",
        "query_data_train",
        "query_embedding_data",
        "routing_data_test",
        "routing_data_train",
    ]
    rows = [json.loads(line) for line in Path(paths["routing_data_train"]).read_text().splitlines()]
    assert len(rows) == 36
    assert rows[0]["choices"] == "{'text': [\"it's\", 'b'], 'labels': ['A', 'B']}"
    assert rows[0]["token_num"] == rows[0]["input_tokens"] + rows[0]["output_tokens"] == 60
    assert [row["embedding_id"] for row in rows] == [i // 3 for i in range(36)]
    questions = [
        json.loads(line) for line in Path(paths["query_data_test"]).read_text().splitlines()
    ]
    assert [question["task_name"] for question in questions][:2] == ["cooking", "algebra"]
    assert vectors(tmp_path / "peer")[0].shape == (64,)


def test_unmeasured_rows_are_left_out(source, tmp_path):
    path = split_path(source, "test")
    table = pq.read_table(path).to_pydict()
    table["performance"][0] = None
    pq.write_table(pa.table(table), path)
    found = json.loads(run("export", source, tmp_path / "peer", "--json"))
    assert found["splits"]["test"] == {"rows": 14, "queries": 5, "left_out": 1}
    assert found["embeddings"] is None
    run("import", tmp_path / "peer", tmp_path / "again")
    assert np.isnan(read_routing_data(tmp_path / "again", "test").quality).sum() == 1


def test_kept_embeddings_that_cannot_be_read(source, tmp_path):
    (source / "query_embeddings-x.safetensors").write_bytes(b"cut off")
    result = CliRunner().invoke(
        command, ["data", "export-llmrouter", str(source), str(tmp_path / "peer")]
    )
    assert result.exit_code == 1
    assert "query_embeddings-x.safetensors: not readable" in result.output
    assert not (tmp_path / "peer").exists()
