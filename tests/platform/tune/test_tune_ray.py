"""Sweeps on a real Ray: every shipped file, a kill and a resume, early stopping, failing trials."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from support.fans import write_fans
from waypost.contracts.artifact import read_manifest
from waypost.contracts.routing_data import write_routing_data
from waypost.testing.synthetic import planted
from waypost.tune.config import check_sweep, read_sweep
from waypost.tune.dashboard import answers, tensorboard
from waypost.tune.journal import Journal
from waypost.tune.sweep import run_sweep

pytestmark = [pytest.mark.ray, pytest.mark.timeout(300)]

TINY = {
    "auto": ["fixed={members: [best_single, linearrouter]}"],
    "gmtrouter": ["fixed.steps=4"],
    "graphrouter": ["fixed.epochs=4"],
    "hybrid_llm": ["fixed.epochs=4"],
    "mfrouter": ["fixed.steps=20"],
    "mlprouter": ["fixed.epochs=4"],
    "personalizedrouter": ["fixed.steps=4"],
    "svmrouter": ["space.landmarks.values=[8, 16]"],
    "elorouter": ["space.k.values=[5, 10]"],
    "clusterrouter": ["space.k.values=[2, 4]", "space.nearest.values=[1, 2]"],
}
"""Settings under which a file's trials fit sixty questions in a moment."""

NEEDS = {
    "automix": "verdicts",
    "causallm_router": "weights",
    "consensusrouter": "answers",
    "routerdc": "weights",
}
"""Files whose routers learn from what made-up questions do not have."""


@pytest.fixture(scope="module")
def ray(ray_here):
    return ray_here


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write_routing_data(folder, planted(60))
    write_fans(folder, planted(60))
    write_routing_data(folder, planted(30, seed=1), "test")
    return folder


def shipped(root: Path) -> list[str]:
    return sorted(path.stem for path in (root / "tune_configs").glob("*.yaml"))


ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.parametrize("name", [n for n in shipped(ROOT) if n != "all" and n not in NEEDS])
def test_every_shipped_sweep_runs_two_trials(name, ray, data, tmp_path):
    small = ["budget.trials=2", "folds=2", "encoder=hashing", "finalists=0"]
    small += ["resources.cpu=2", *TINY.get(name, [])]  # one worker: to start one takes seconds
    config = read_sweep(ROOT / "tune_configs" / f"{name}.yaml", small)
    report = run_sweep(config, data, tmp_path / "R")
    assert report["trials"]["tried"] == 2
    assert report["trials"]["failed"] == 0, report["failures"]
    assert read_manifest(tmp_path / "R" / "best").router == name


def knn(**more):
    settings = {
        "router": "knnrouter",
        "space": {
            "k": {"type": "choice", "values": [1, 3, 9, 25]},
            "kappa": {"type": "uniform", "low": 0, "high": 5},
        },
        "budget": {"trials": 12},
        "encoder": "hashing",
        "folds": 2,
        "finalists": 2,
    }
    return check_sweep({**settings, **more}, "sweep.yaml")


def test_a_trial_reads_the_data_where_it_lies(ray):
    from waypost.config import settings
    from waypost.tune.folds import CrossValidation

    data = planted(400)
    wide = np.zeros((400, 1000), np.float32)
    problem = CrossValidation.of(knn(), data.with_embeddings(wide, "x"), settings().plugin_paths)

    @ray.remote
    def looked(found: CrossValidation) -> list[bool]:
        arrays = (found.data.embeddings, found.data.quality, found.evaluator.usd)
        return [array.flags.owndata or array.flags.writeable for array in arrays]

    assert ray.get(looked.remote(ray.put(problem))) == [False, False, False]


PLUGIN = '''
"""Fails, dies or learns, as it is told."""

import os
from pathlib import Path

from waypost.contracts.parameters import OneOf
from waypost.contracts.router import Prediction, ScoreRouter

import numpy as np


class Fragile(ScoreRouter):
    name = "fragile"
    needs_embeddings = False
    parameter_constraints = {"does": OneOf(("learn", "fail", "die"))}

    def __init__(self, does="learn"):
        self.does = does

    def _fit(self, data):
        if self.does == "fail":
            raise ValueError("a secret text")
        if self.does == "die":
            os._exit(1)

    def _predict(self, batch):
        return Prediction(quality=np.tile(self.mean_quality_, (len(batch), 1)))
'''


def test_trials_that_fail_or_kill_their_worker_are_rows(ray, data, tmp_path, monkeypatch):
    folder = tmp_path / "plugins" / "fragile"
    folder.mkdir(parents=True)
    (folder / "router.py").write_text(PLUGIN)
    monkeypatch.setenv("WAYPOST_PLUGINS", str(tmp_path / "plugins"))
    from waypost.config import settings

    settings.cache_clear()
    space = {"does": {"type": "grid", "values": ["fail", "die", "learn"]}}
    config = check_sweep(
        {"router": "fragile", "space": space, "budget": {"trials": 3}, "folds": 2}
        | {"encoder": "hashing"},
        "x",
    )
    report = run_sweep(config, data, tmp_path / "R")
    assert report["trials"] == {"tried": 3, "done": 1, "stopped": 0, "failed": 2}
    said = {one["does"]: one["error"] for one in report["failures"]}
    assert "ValueError" in said["fail"]
    assert "secret" not in said["fail"]
    assert "its worker died 2 times" in said["die"]
    assert "die" in (tmp_path / "R" / "report.md").read_text()


def test_asha_stops_trials_and_checkpoints_are_gone_on_with(ray, data, tmp_path):
    space = {
        "learning_rate": {"type": "grid", "values": [1e-5, 3e-2, 2e-5, 1e-2]},
        "hidden": {"type": "choice", "values": [8]},
    }
    config = check_sweep(
        {
            "router": "mlprouter", "space": space, "budget": {"trials": 5}, "encoder": "hashing",
            "folds": 2, "scheduler": "asha", "finalists": 0,
            "fixed": {"epochs": 9, "members": 1, "patience": 9},
        },
        "x",
    )  # fmt: skip
    report = run_sweep(config, data, tmp_path / "R")
    assert report["trials"]["tried"] == 5
    assert report["trials"]["stopped"] >= 1
    with open_journal(tmp_path / "R") as journal:
        rows = journal.search()
    for row in rows:
        assert len(row.epochs) == 9 or row.status == "stopped"
        assert row.score == row.epochs[-1]
    events = (tmp_path / "R" / "tensorboard" / "trial-0000").glob("events*")
    assert b"metric_by_epoch" in next(events).read_bytes()


class open_journal:  # noqa: N801 - a function in all but the keyword
    """Read a journal whatever it is of."""

    def __init__(self, out: Path) -> None:
        head = json.loads((out / "trials.jsonl").read_text().splitlines()[0])
        self.journal = Journal(out / "trials.jsonl", head["subject"])

    def __enter__(self) -> Journal:
        return self.journal

    def __exit__(self, *error: object) -> None:
        self.journal.close()


def test_killed_and_begun_again_it_measures_what_is_missing(ray, data, tmp_path):
    out, address = tmp_path / "R", ray.get_runtime_context().gcs_address
    (tmp_path / "sweep.yaml").write_text(
        json.dumps(json.loads(knn(budget={"trials": 40}).model_dump_json(by_alias=True)))
    )
    command = [
        sys.executable, "-P", "-m", "waypost.cli", "tune", "--config", str(tmp_path / "sweep.yaml"),
        "--data", str(data), "--out", str(out), "--json",
    ]  # fmt: skip
    env = {**os.environ, "RAY_ADDRESS": address}
    first = subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    journal = out / "trials.jsonl"
    end = time.monotonic() + 120
    while time.monotonic() < end and first.poll() is None:
        if journal.is_file() and journal.read_bytes().count(b"\n") > 4:
            break
        time.sleep(0.02)
    first.send_signal(signal.SIGKILL)
    first.wait()
    assert first.stderr is not None
    first.stderr.close()
    before = journal.read_bytes()
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    report = json.loads(done.stdout)
    assert report["trials"]["tried"] == 40
    after = journal.read_bytes()
    assert after.startswith(before[: before.rfind(b"\n") + 1])
    places = [(row["key"], row["deal"]) for row in map(json.loads, after.splitlines()[1:])]
    assert len(places) == len(set(places)) == 40 + 3  # and the default and two finalists again


def test_the_dashboard_answers_and_ends(tmp_path):
    with tensorboard(tmp_path / "logs") as address:
        assert answers(address)
    assert not answers(address, within_s=0.5)
