import json
import re
import sys

import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from waypost.cli import command
from waypost.config import settings
from waypost.contracts.routing_data import write_routing_data
from waypost.pipelines.train import TrainConfig, train
from waypost.testing.synthetic import ENCODER_ID, planted

TOP = {"data_digest", "split", "n_queries", "seed", "reference", "routers"}
REFERENCES = {"random", "best_single", "cheapest", "task_oracle", "oracle", "zero_router"}
ROW = {
    "quality", "quality_low", "quality_high", "cost_usd_per_1k", "delta_best_single", "delta_low",
    "delta_high", "aiq", "cost_save", "recovered_headroom", "usage_entropy", "decision_ms_p50",
    "fit_s", "curve",
}  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    write_routing_data(folder, planted(60), "train")
    write_routing_data(folder, planted(30, seed=5), "test")
    return folder


def evaluate(data, out, *arguments):
    start = ["evaluate", "--data", str(data), "--out", str(out), "--encoder", ENCODER_ID]
    return CliRunner().invoke(command, [*start, *arguments])


@pytest.fixture(scope="module")
def mixed(data, tmp_path_factory):
    """One run of two routers, and of an artifact whose manifest was changed."""
    folder = tmp_path_factory.mktemp("mixed")
    train(TrainConfig(router="best_single", folds=0), data, folder / "mine")
    manifest = folder / "mine" / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"seed": 0', '"seed": 1'))
    readme = folder / "README.md"
    readme.write_text("before\n<!-- routers begin -->\nold\n<!-- routers end -->\nafter\n")
    routers = ["knnrouter:k=5", str(folder / "mine"), "best_single"]
    options = ["--seed", "3", "--lambdas", "0,1", "--insert", f"{readme}:routers"]
    result = evaluate(data, folder / "R", *routers, *options)
    return result, folder, json.loads((folder / "R" / "report.json").read_text())


def test_the_report(mixed):
    result, folder, report = mixed
    assert "knnrouter:k=5" in result.stdout
    assert "(zero router)" in result.stdout
    files = {path.name for path in (folder / "R").iterdir()}
    assert files == {
        "report.json", "report.md", "curve.png", "usage.png", "reliability.png",
        "decisions.parquet",
    }  # fmt: skip
    assert set(report) >= TOP
    assert set(report["reference"]) >= REFERENCES
    assert list(report["routers"]) == ["knnrouter:k=5", "best_single"]
    for row in report["routers"].values():
        assert set(row) >= ROW
    assert report["routers"]["best_single"]["recovered_headroom"] == 0
    for name in ("zero_router", "oracle"):
        assert report["reference"][name]["aiq"] > 0
    for path in (folder / "R").glob("*.png"):
        assert path.read_bytes().startswith(b"\x89PNG")
    text = (folder / "R" / "report.md").read_text()
    assert "`waypost evaluate knnrouter:k=5 " in text
    assert "--seed 3 --lambdas 0,1`" in text
    assert report["data_digest"] in text
    assert "nan" not in text.lower()


def test_a_router_that_fails_is_named_and_ends_with_1(mixed):
    result, folder, report = mixed
    assert result.exit_code == 1
    # progress comes first where it takes long
    assert any(line.startswith("error: mine: ") for line in result.stderr.splitlines())
    assert "was changed after training" in report["failed"]["mine"]
    assert "| mine |" in (folder / "R" / "report.md").read_text()


def test_the_decision_log_holds_what_the_numbers_are_made_of(mixed):
    _, folder, report = mixed
    log = pq.read_table(folder / "R" / "decisions.parquet").to_pylist()
    assert len(log) == 60
    for name, row in report["routers"].items():
        own = [entry for entry in log if entry["router"] == name]
        assert row["quality"] == pytest.approx(sum(e["quality"] for e in own) / 30)
        assert row["cost_usd_per_1k"] == pytest.approx(1000 * sum(e["cost_usd"] for e in own) / 30)
        for entry in own:
            scores = dict(entry["predicted"])
            assert set(scores) == {"cook", "prover", "tiny"}
            assert scores[entry["model_name"]] == max(scores.values())


def test_every_wrong_key_of_a_config_is_said(data, tmp_path):
    config = tmp_path / "compare.yaml"
    config.write_text("color: red\nseed: -1\nrouters: [best_single]\n")
    result = evaluate(data, tmp_path / "R", "--config", str(config))
    assert result.exit_code == 2
    assert f"{config}: color: unknown key" in result.stderr
    assert f"{config}: seed: " in result.stderr


def test_the_short_table_goes_between_its_markers(mixed):
    _, folder, report = mixed
    text = (folder / "README.md").read_text()
    assert text.startswith("before\n<!-- routers begin -->\n| router |")
    assert text.endswith("\n<!-- routers end -->\nafter\n")
    assert "old" not in text
    assert f"data digest `{report['data_digest'][:12]}`" in text
    assert "seed 3" in text
    assert "    waypost evaluate knnrouter:k=5 " in text
    assert re.search(r"\nMeasured \d{4}-\d\d-\d\d, (commit [0-9a-f]{7,}|version )", text)
    assert "--insert" not in text


def test_all_may_fail_and_an_earlier_report_is_replaced(data, tmp_path):
    (tmp_path / "R").mkdir()
    (tmp_path / "R" / "report.json").write_text("{}")
    (tmp_path / "R" / "old.txt").write_text("x")
    (tmp_path / "R" / "broken").mkdir()
    result = evaluate(data, tmp_path / "R", str(tmp_path / "R" / "broken"), "--json")
    assert result.exit_code == 1
    assert "broken: no manifest.json" in result.stderr
    report = json.loads((tmp_path / "R" / "report.json").read_text())
    assert json.loads(result.stdout) == report
    assert report["routers"] == {}
    assert not (tmp_path / "R" / "old.txt").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["R"]


def test_a_long_fit_tells_its_progress_on_stderr(data, tmp_path, monkeypatch):
    monkeypatch.setattr("waypost.cli.output._FIRST_LINE_S", 0)
    auto = "auto:members=[knnrouter,linearrouter],folds=2"
    result = evaluate(data, tmp_path / "R", auto, "--json")
    assert result.exit_code == 0, result.output
    assert "routers: 0 of 1\n" in result.stderr
    assert "of members, now knnrouter: 0 of 4\n" in result.stderr
    assert json.loads(result.stdout)["failed"] == {}


@pytest.mark.parametrize("options", [(), ("--resplit", "0,1")])
def test_a_missing_artifact_is_wrong_input_and_an_earlier_report_stays(data, tmp_path, options):
    assert evaluate(data, tmp_path / "R", "best_single").exit_code == 0
    before = {path: path.read_bytes() for path in (tmp_path / "R").iterdir()}
    missing = str(tmp_path / "nope")
    result = evaluate(data, tmp_path / "R", missing, "best_singel", "knnrouter:q=4", *options)
    assert result.exit_code == 2
    assert f"{missing}: no such artifact; expected a folder written by" in result.stderr
    assert "did you mean 'best_single'?" in result.stderr
    assert "knnrouter: q: unknown parameter; known are: k" in result.stderr
    assert {path: path.read_bytes() for path in (tmp_path / "R").iterdir()} == before


def test_resplit_writes_a_report_a_seed_and_their_mean(data, tmp_path):
    config = tmp_path / "compare.yaml"
    config.write_text("routers: [best_single]\nresplit: [4, 5]\nlambdas: [0, 1]\n")
    result = evaluate(data, tmp_path / "R", "--config", str(config))
    assert result.exit_code == 0, result.output
    report = json.loads((tmp_path / "R" / "report.json").read_text())
    assert report["seed"] == [4, 5]
    assert set(report["routers"]["best_single"]) >= ROW
    qualities = []
    for seed in (4, 5):
        own = tmp_path / "R" / f"seed-{seed}"
        assert (own / "decisions.parquet").is_file()
        one = json.loads((own / "report.json").read_text())
        assert one["seed"] == seed
        qualities.append(one["routers"]["best_single"]["quality"])
    assert report["routers"]["best_single"]["quality"] == pytest.approx(sum(qualities) / 2)
    text = (tmp_path / "R" / "report.md").read_text()
    assert "means over the seeds" in text
    assert "| seed 4 | seed 5 |" in text


def test_absent_markers_are_an_error_before_work_begins(data, tmp_path):
    (tmp_path / "README.md").write_text("<!-- routers begin -->\n")
    result = evaluate(
        data, tmp_path / "R", "best_single", "--insert", f"{tmp_path}/README.md:routers"
    )
    assert result.exit_code == 2
    assert "<!-- routers end -->" in result.stderr
    assert not (tmp_path / "R").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nonsense"], "no router is named 'nonsense'"),
        (["knnrouter:k=0"], "k: is 0; expected a whole number from 1"),
        (["knnrouter:k"], "expected key=value"),
        ([], "name routers"),
        (["best_single", "--lambdas", "0,x"], "expected comma-separated numbers"),
        (["best_single", "--lambdas", "-1"], "lambdas: expected numbers of at least 0"),
        (["best_single", "--lambdas", "nan"], "finite number"),
        (["best_single", "--resplit", "1,1"], "resplit: expected different whole numbers"),
        (["best_single", "--resplit", "-1"], "resplit: expected different whole numbers"),
        (["best_single", "--split", "train"], "'train' is not one of"),
        (["best_single", "--insert", "README.md"], "expected FILE:MARKER"),
        (["best_single", "--encoder", "psychic"], "no encoder 'psychic'"),
    ],
)
def test_wrong_input_ends_with_2(data, tmp_path, arguments, said):
    result = evaluate(data, tmp_path / "R", *arguments)
    assert result.exit_code == 2
    assert said in result.output
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_no_report_is_not_overwritten(data, tmp_path):
    (tmp_path / "notes.txt").write_text("x")
    result = evaluate(data, tmp_path, "best_single")
    assert result.exit_code == 2
    assert "is not a report" in result.stderr


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_missing_or_truncated_split_ends_with_1(data, tmp_path, split):
    folder = tmp_path / "data"
    write_routing_data(folder, planted(20), "train")
    write_routing_data(folder, planted(20, seed=5), "test")
    path = folder / f"routing_{split}.parquet"
    path.write_bytes(path.read_bytes()[:200])
    result = evaluate(folder, tmp_path / "R", "best_single")
    assert result.exit_code == 1
    assert "not a readable parquet file" in result.stderr
    path.unlink()
    result = evaluate(folder, tmp_path / "R", "best_single")
    assert result.exit_code == 1
    assert "no such file" in result.stderr
    assert not (tmp_path / "R").exists()


def test_without_matplotlib_it_says_what_to_install(data, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    result = evaluate(data, tmp_path / "R", "best_single")
    assert result.exit_code == 1
    assert (
        'matplotlib is not installed; it comes with: pip install "waypost[train]"' in result.stderr
    )
    assert list(tmp_path.iterdir()) == []


def test_plug_ins_are_compared_and_a_broken_one_ends_nobody(data, tmp_path, monkeypatch):
    code = {
        "cooks": "from waypost import Decision, MetaRouter\n\n\nclass Cooks(MetaRouter):\n"
        "    def route_single(self, query):\n        return Decision('cook', ('cook',))\n",
        "liar": "from waypost import Decision, MetaRouter\n\n\nclass Liar(MetaRouter):\n"
        "    def route_single(self, query):\n        return Decision('nobody', ('nobody',))\n",
        "broken": "import nothing_like_it\n",
    }
    for name, text in code.items():
        (tmp_path / "plugins" / name).mkdir(parents=True)
        (tmp_path / "plugins" / name / "router.py").write_text(text)
    monkeypatch.setenv("WAYPOST_PLUGINS", str(tmp_path / "plugins"))
    settings.cache_clear()
    result = evaluate(data, tmp_path / "R", *code, "best_single", "--lambdas", "0,1")
    assert result.exit_code == 1
    report = json.loads((tmp_path / "R" / "report.json").read_text())
    assert list(report["routers"]) == ["cooks", "best_single"]
    assert report["routers"]["cooks"]["usage"] == {"cook": 1, "prover": 0, "tiny": 0}
    assert report["routers"]["cooks"]["quality"] == report["llms"]["cook"]["quality"]
    assert report["routers"]["cooks"]["ece"] is None
    assert "chose 'nobody'" in report["failed"]["liar"]
    assert "nothing_like_it" in report["failed"]["broken"]
