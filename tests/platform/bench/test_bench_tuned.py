"""Tuned routers beside their defaults: rows by hand, what is kept, and a run on little data."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from waypost.bench import tuned
from waypost.bench.tuned import (
    BETTER,
    EQUAL,
    HIGHER,
    LOWER,
    SAME,
    WORSE,
    Source,
    check_names,
    counted,
    prepared,
    row_of,
    verdict,
)
from waypost.cli import command
from waypost.contracts.errors import ConfigError
from waypost.contracts.routing_data import read_routing_data, write_routing_data
from waypost.testing.synthetic import planted


def sweep_report(*, is_default: bool = False) -> dict:
    quality = {"tuned": 0.66, "default": 0.65, "best single LLM": 0.6}
    cost = {"tuned": 0.07, "default": 0.08, "best single LLM": 0.09}
    test = {"queries": 40, "difference": 0.01, "low": -0.002, "high": 0.02}
    if is_default:
        del quality["default"], cost["default"], test["difference"], test["low"], test["high"]
    return {
        "trials": {"tried": 20, "failed": 1},
        "taken": {
            "is_default": is_default, "default_score": 0.64, "score": 0.67, "setting": {"k": 3},
            "why": "it is better",
        },
        "seconds": 12.5,
        "fit_seconds": 20.0,
        "test": {**test, "quality": quality, "cost_usd_per_1k": cost},
    }  # fmt: skip


def test_a_row_by_hand():
    row = row_of(sweep_report())
    assert row["quality"] == {"default": 0.65, "tuned": 0.66, "best_single": 0.6}
    assert row["cost_usd_per_1k"]["default"] == 0.08
    assert (row["difference"], row["low"], row["high"]) == (0.01, -0.002, 0.02)
    assert (row["verdict"], row["trials"], row["queries"]) == (HIGHER, 20, 40)


def test_where_the_default_was_kept_both_are_one_router():
    row = row_of(sweep_report(is_default=True))
    assert row["quality"]["default"] == row["quality"]["tuned"] == 0.66
    assert (row["difference"], row["low"], row["high"]) == (0.0, 0.0, 0.0)
    assert row["verdict"] == SAME


@pytest.mark.parametrize(
    ("numbers", "said"),
    [
        ((0.02, 0.01, 0.03), BETTER),
        ((0.02, 0.0, 0.03), HIGHER),
        ((0.0, -0.01, 0.01), EQUAL),
        ((-0.01, -0.02, 0.0), LOWER),
        ((-0.01, -0.02, -0.001), WORSE),
        ((0.01, None, None), None),
    ],
)
def test_verdicts(numbers, said):
    assert verdict(*numbers) == said


def test_counts():
    rows = [{"verdict": one} for one in (BETTER, HIGHER, HIGHER, LOWER, WORSE, SAME, EQUAL, None)]
    assert counted(rows) == {"rows": 8, "not_worse": 6, "higher": 3, "better": 1, "kept": 1}


def test_the_table_shows_differences_and_who_failed(tmp_path):
    rows = {"knnrouter": row_of(sweep_report()), "auto": row_of(sweep_report(is_default=True))}
    one = {"train": 100, "test": 40, "llms": 3, "rows": rows, "failed": {"mlprouter": "no torch"}}
    figures = {"data": {"example-seed-0": one}, "counts": counted(list(rows.values()))}
    found = tuned.result(figures, tuned.Options(pooled=(tmp_path,)))
    (table,) = found.tables
    assert table.title == "example-seed-0: 100 training and 40 test questions x 3 LLMs"
    knn, auto, mlp = table.rows
    assert knn[2:6] == [
        "0.6500", "0.6600", "+0.0100 [-0.0020, +0.0200]", "higher, within the interval",
    ]  # fmt: skip
    assert auto[:6] == ["auto", "20", "0.6600", "0.6600", "0", "default kept"]
    assert mlp[:2] == ["mlprouter", "n/a"]
    assert "Of 2 routers tuned, 2 are not worse on test" in found.facts
    assert "split again with seed 0" in found.facts
    assert found.failed == {"example-seed-0: mlprouter": "no torch"}


@pytest.fixture
def folder(tmp_path):
    """Routing data with a test split of its own."""
    data = tmp_path / "little"
    data.mkdir()
    write_routing_data(data, planted(60, 0), "train")
    write_routing_data(data, planted(30, 1), "test")
    return data


def test_data_are_copied_once_and_other_data_are_refused(folder, tmp_path):
    out = tmp_path / "out"
    own, pooled = (prepared(Source(folder, seed), out) for seed in (None, 3))
    assert read_routing_data(own, "test").digest == read_routing_data(folder, "test").digest
    sizes = [len(read_routing_data(pooled, name)) for name in ("train", "test")]
    assert sum(sizes) == 90
    assert sizes[1] == pytest.approx(18, abs=2)
    write_routing_data(folder, planted(30, 2), "test")
    with pytest.raises(ConfigError, match="results on other data"):
        prepared(Source(folder), out)


def test_two_folders_of_one_name_are_refused(folder, tmp_path):
    other = tmp_path / "other" / folder.name
    other.mkdir(parents=True)
    check_names([Source(folder), Source(other, 0), Source(other, 1)])
    with pytest.raises(ConfigError, match="little: is given twice"):
        check_names([Source(folder), Source(other)])


def test_faults_of_all_files_are_named_at_once(tmp_path):
    for name in ("knnrouter", "linearrouter"):
        text = f"router: {name}\nspace: {{nothing: {{type: choice, values: [1]}}}}\n"
        (tmp_path / f"{name}.yaml").write_text(f"{text}budget: {{trials: 2}}\n", encoding="utf-8")
    options = tuned.Options(
        data=(tmp_path,), router=("knnrouter", "linearrouter"), configs=tmp_path, encoder="hashing"
    )
    with pytest.raises(ConfigError) as caught:
        tuned.read_configs(options)
    assert len({fault.where.partition(":")[0] for fault in caught.value.faults}) == 2


def test_data_must_be_named():
    result = CliRunner().invoke(command, ["bench", "tuned"])
    assert result.exit_code == 2
    assert "name routing data" in result.output


@pytest.mark.long
@pytest.mark.ray
def test_a_comparison_goes_on_where_it_ended(folder, tmp_path, ray_here):
    configs, out, readme = tmp_path / "configs", tmp_path / "out", tmp_path / "README.md"
    configs.mkdir()
    space = "space: {k: {type: choice, values: [1, 3, 9]}}\nbudget: {trials: 3}\nfolds: 2\n"
    (configs / "knnrouter.yaml").write_text(f"router: knnrouter\n{space}", encoding="utf-8")
    readme.write_text("<!-- here begin -->\n<!-- here end -->\n", encoding="utf-8")
    words = [
        "bench", "tuned", "--data", str(folder), "--router", "knnrouter", "--configs", str(configs),
        "--encoder", "hashing", "--out", str(out), "--insert", f"{readme}:here", "repeats=0",
    ]  # fmt: skip
    first = CliRunner().invoke(command, words, catch_exceptions=False)
    assert first.exit_code == 0, first.output
    result = json.loads((out / "result.json").read_text(encoding="utf-8"))
    row = result["data"]["little"]["rows"]["knnrouter"]
    assert row["trials"] == 3
    assert row["quality"]["tuned"] - row["quality"]["default"] == pytest.approx(row["difference"])
    assert "| knnrouter | 3 |" in readme.read_text(encoding="utf-8")
    again = CliRunner().invoke(command, words, catch_exceptions=False)
    assert "little: knnrouter: there already" in again.output
    assert json.loads((out / "result.json").read_text(encoding="utf-8"))["data"] == result["data"]
