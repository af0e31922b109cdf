"""A driver that is killed in the middle of a trial: the trial goes on from its checkpoint."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from waypost.contracts.routing_data import write_routing_data
from waypost.testing.synthetic import planted
from waypost.tune.epoch_trial import FIRST_S

pytestmark = [pytest.mark.ray, pytest.mark.timeout(300)]

EPOCHS, FOLDS, WAITS_IN = 6, 2, 4

PLUGIN = f'''
"""Writes down each epoch that it trains. In one of them it waits, if it is asked to."""

import os
import time
from pathlib import Path

import numpy as np

from waypost.contracts.epochs import EpochRouter, EpochTraining
from waypost.contracts.parameters import Real
from waypost.contracts.router import Prediction, ScoreRouter

HERE = Path(__file__).parent


class Counted(EpochRouter, ScoreRouter):
    name = "counted"
    needs_embeddings = False
    parameter_constraints = {{"lean": Real(0, 1)}}

    def __init__(self, lean=0.5):
        self.lean = lean

    def _training(self, data):
        return Counting(self, data, {EPOCHS})

    def _predict(self, batch):
        return Prediction(quality=np.tile(self.mean_quality_, (len(batch), 1)))


class Counting(EpochTraining):
    def _advance(self):
        lean, epoch = self.router.lean, self.done + 1
        if lean == 0.9 and epoch == 1:
            time.sleep(float((HERE / "sleeps").read_text()))
        if lean == 0.9 and epoch == {WAITS_IN} and not (HERE / "go").exists():
            (HERE / "waits.partial").write_text(str(os.getpid()))
            (HERE / "waits.partial").rename(HERE / "waits")
            while not (HERE / "go").exists():
                time.sleep(0.02)
        with (HERE / "epochs.txt").open("a") as file:
            file.write(f"{{lean}} {{self.data.digest}} {{epoch}}\\n")
        return True

    def _settle(self):
        pass

    def _arrays(self):
        return {{"lean": np.array([self.router.lean])}}

    def _restore(self, arrays):
        if arrays["lean"][0] != self.router.lean:
            raise ValueError
'''


@pytest.fixture
def plugin(tmp_path) -> Path:
    folder = tmp_path / "plugins" / "counted"
    folder.mkdir(parents=True)
    (folder / "router.py").write_text(PLUGIN)
    return folder


@pytest.mark.parametrize("scheduler", ["fifo", "asha"])
def test_a_killed_driver_costs_no_epoch_before_the_last_checkpoint(
    scheduler, ray_here, plugin, tmp_path
):
    import ray

    # the first epochs are long enough that a checkpoint is worth its time under fifo, too
    sleeps = 1.02 * FIRST_S / FOLDS if scheduler == "fifo" else 0.0
    (plugin / "sleeps").write_text(str(sleeps))
    write_routing_data(tmp_path / "data", planted(40))
    space = {"lean": {"type": "grid", "values": [0.1, 0.9]}}
    config = {"router": "counted", "space": space, "budget": {"trials": 3}, "folds": FOLDS}
    config |= {"encoder": "hashing", "finalists": 0, "scheduler": scheduler}
    (tmp_path / "sweep.yaml").write_text(json.dumps(config))
    out = tmp_path / "R"
    command = [
        sys.executable, "-P", "-m", "waypost.cli", "tune", "--config", str(tmp_path / "sweep.yaml"),
        "--data", str(tmp_path / "data"), "--out", str(out), "--json",
    ]  # fmt: skip
    env = {
        **os.environ,
        "RAY_ADDRESS": ray.get_runtime_context().gcs_address,
        "WAYPOST_PLUGINS": str(plugin.parent),
    }
    with (tmp_path / "first.log").open("wb") as log:
        first = subprocess.Popen(command, env=env, stdout=log, stderr=log)

    def is_in_the_middle() -> bool:
        assert first.poll() is None, (tmp_path / "first.log").read_text()[-3000:]
        return (plugin / "waits").is_file() and len(rows(out)) == 2

    until(is_in_the_middle)
    before = (out / "trials.jsonl").read_bytes()
    assert {row["number"] for row in rows(out)} == {0, 1}
    first.send_signal(signal.SIGKILL)
    first.wait()
    until(lambda: not is_alive(int((plugin / "waits").read_text())))  # Ray ends its workers
    (plugin / "go").touch()

    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads(done.stdout)["trials"] == {"tried": 3, "done": 3, "stopped": 0, "failed": 0}
    assert (out / "trials.jsonl").read_bytes().startswith(before)
    last = rows(out)[-1]
    assert (last["number"], len(last["epochs"])) == (2, EPOCHS)
    assert last["score"] == last["epochs"][-1]
    trained = Counter((plugin / "epochs.txt").read_text().split("\n")[:-1])
    times = {(lean, int(epoch)): [] for lean in ("0.5", "0.1", "0.9") for epoch in range(1, 7)}
    for line, count in trained.items():
        lean, _, epoch = line.split(" ")
        times[lean, int(epoch)].append(count)
    # what comes after the last checkpoint is trained again, and nothing else
    kept = 1 if scheduler == "fifo" else WAITS_IN - 1
    for (lean, epoch), counts in times.items():
        if (lean, epoch) in {("0.9", one) for one in range(kept + 1, WAITS_IN)}:
            assert counts in ([1] * FOLDS, [2] * FOLDS)
        elif lean == "0.5":  # the winner is the default: it was trained on all questions, too
            assert counts == [1] * (FOLDS + 1)
        else:
            assert counts == [1] * FOLDS, (lean, epoch)


def test_without_a_shared_disk_a_trial_goes_on_without_checkpoints(ray_here, tmp_path):
    from ray import tune

    from waypost.tune.config import Resources
    from waypost.tune.epoch_trial import Checkpoint, find_checkpoints, report_to_ray
    from waypost.tune.journal import Task
    from waypost.tune.ray_trial import write_tasks
    from waypost.tune.ray_tune import fit

    heard = []

    def trial(config: dict) -> None:
        (marker,) = tmp_path.glob("*/.validate_storage_marker")
        marker.unlink()  # another machine does not see what the driver wrote
        report_to_ray({"at": 7}, Checkpoint(("k", 0), [], [], 1.0))

    class Hears(tune.Callback):
        def on_trial_result(self, iteration, trials, trial, result, **info) -> None:
            heard.append(result.get("at"))

        def __reduce__(self) -> tuple:
            return str, ("hears",)

    tasks = write_tasks([Task(0, "k", {}, {})])
    space, hears = {"tasks": tune.grid_search([tasks])}, [Hears()]
    fit(trial, None, None, Resources(), tmp_path, space=space, callbacks=hears)
    assert heard == [7]
    assert find_checkpoints(tmp_path) == {}


def rows(out: Path) -> list[dict]:
    path = out / "trials.jsonl"
    lines = path.read_text().split("\n")[1:-1] if path.is_file() else []
    return [json.loads(line) for line in lines]


def until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + 120
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.02)


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
