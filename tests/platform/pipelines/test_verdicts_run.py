"""The run that records verdicts: columns, cache, faults of what is asked."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from click.testing import CliRunner

from waypost.cli import command
from waypost.contracts.errors import ConfigError, SchemaError
from waypost.contracts.routing_data import read_routing_data, write_routing_data
from waypost.pipelines.data import responses, verdicts

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_here")]


@pytest.fixture(scope="module")
def answered(ray_here, tmp_path_factory) -> Path:
    """A folder with a data run whose questions are answered."""
    folder = tmp_path_factory.mktemp("answered")
    questions = [
        {
            "query_id": f"q{n}",
            "task_name": "sums",
            "query": f"What is {n} + 0?",
            "ground_truth": str(n),
            "metric": "number",
            "max_tokens": 8,
        }
        for n in range(5)
    ]
    (folder / "data").mkdir()
    lines = "\n".join(map(json.dumps, questions))
    (folder / "data" / "queries_train.jsonl").write_text(lines)
    llms = {
        "small": {"engine": "echo", "config": {"text": "Yes"}, "input_price": 1, "output_price": 2},
        "large": {"engine": "echo", "config": {"text": "3"}, "input_price": 5, "output_price": 5},
    }
    data = {"out": "data", "encoder": {"kind": "hashing", "dimension": 32}, "llms": llms}
    config = folder / "data.yaml"
    config.write_text(yaml.safe_dump(data, sort_keys=False))
    responses.run(config)
    return folder


@pytest.fixture
def config(answered, tmp_path) -> Path:
    """The file of a copy of that run, in ``tmp_path``."""
    shutil.copytree(answered, tmp_path, dirs_exist_ok=True)
    return tmp_path / "data.yaml"


def columns(folder: Path, model: str) -> list[dict[str, object]]:
    table = pq.read_table(folder / "data" / "routing_train.parquet")
    return [row for row in table.to_pylist() if row["model_name"] == model]


def test_the_run_adds_its_columns_and_changes_no_other(config, tmp_path):
    path = tmp_path / "data" / "routing_train.parquet"
    table = pq.read_table(path)
    pq.write_table(table.append_column("user_id", pa.array(["u"] * len(table))), path)
    before = pq.read_table(path)
    digest = read_routing_data(tmp_path / "data").digest
    verdicts.run(config, samples=3)
    after = pq.read_table(path)
    others = [name for name in before.column_names if not name.startswith(("verdicts", "verify"))]
    assert after.select(others).equals(before.select(others))
    assert all(row["verdicts"] == "[1, 1, 1]" for row in columns(tmp_path, "small"))
    assert all(row["verdicts"] is None for row in columns(tmp_path, "large"))
    data = read_routing_data(tmp_path / "data")
    assert data.digest == digest
    assert data.verdicts is not None
    assert data.names == ("small", "large")
    assert np.nansum(data.verdicts[:, 0], axis=1).tolist() == [3.0] * len(data)
    row = columns(tmp_path, "small")[0]
    spent = (row["verify_input_tokens"] * 1 + row["verify_output_tokens"] * 2) / 3e6
    assert data.verdict_cost_usd[0, 0] == pytest.approx(spent)
    assert np.isnan(data.verdict_cost_usd[:, 1]).all()


def test_another_run_keeps_the_verdicts_of_answers_that_stay(config, tmp_path):
    verdicts.run(config, samples=2)
    path = tmp_path / "data" / "routing_train.parquet"
    before = pq.read_table(path)
    responses.run(config)
    assert pq.read_table(path).equals(before)
    # another model answers otherwise: nobody has judged that
    responses.run(config, ["llms.small.config.text=Never", "llms.small.revision=b"])
    assert all(row["response"] == "Never" for row in columns(tmp_path, "small"))
    assert all(row["verdicts"] is None for row in columns(tmp_path, "small"))
    path.write_bytes(b"no table")
    responses.run(config)
    assert all(row["response"] == "Yes" for row in columns(tmp_path, "small"))


def test_verdicts_are_kept_where_data_is_selected_and_written(config, tmp_path):
    verdicts.run(config, samples=2)
    data = read_routing_data(tmp_path / "data")
    write_routing_data(tmp_path / "copy", data)
    copy = read_routing_data(tmp_path / "copy").select([1, 2]).select_llms(["large", "small"])
    assert copy.verdicts is not None
    assert data.verdicts is not None
    np.testing.assert_array_equal(copy.verdicts, data.verdicts[1:3, ::-1])
    np.testing.assert_allclose(copy.verdict_cost_usd, data.verdict_cost_usd[1:3, ::-1])


def test_what_was_asked_is_not_asked_again_but_what_failed_is(config, tmp_path):
    asked: list[int] = []
    verdicts.run(config, ["llms.small.config.fail_with=timeout"], samples=2)
    assert all(row["verdicts"] is None for row in columns(tmp_path, "small"))
    verdicts.run(config, samples=2, progress=lambda name, done, total: asked.append(done))
    assert asked[-1] == 10
    assert all(row["verdicts"] == "[1, 1]" for row in columns(tmp_path, "small"))
    asked.clear()
    verdicts.run(config, samples=2, progress=lambda name, done, total: asked.append(done))
    assert asked == []


def test_who_is_asked_has_answers_and_is_known(config, tmp_path):
    with pytest.raises(ConfigError, match="has no tiny; it has small, large"):
        verdicts.run(config, models=["tiny"])
    with pytest.raises(ConfigError, match="is 17; expected 1 to 16"):
        verdicts.run(config, samples=17)
    (tmp_path / "data" / "routing_train.parquet").unlink()
    with pytest.raises(SchemaError, match="holds no routing data"):
        verdicts.run(config)


def test_without_prices_the_command_asks_who(config, tmp_path):
    data = yaml.safe_load(config.read_text())
    del data["llms"]["small"]["input_price"]
    config.write_text(yaml.safe_dump(data, sort_keys=False))
    responses.run(config)  # the tables and llms.json by that, without a question asked
    run = CliRunner().invoke
    refused = run(command, ["data", "verdicts", "--config", str(config)])
    assert refused.exit_code == 2
    assert "--model" in refused.output
    done = run(command, ["data", "verdicts", "--config", str(config), "--model", "small"])
    assert done.exit_code == 0, done.output
    assert columns(tmp_path, "small")[0]["verdicts"] == "[1, 1, 1, 1]"
