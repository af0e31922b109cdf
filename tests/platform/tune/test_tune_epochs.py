"""Trials of routers that train by epochs: looked at on the way, kept, gone on with, drawn."""

from __future__ import annotations

import os
import struct
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tensorboardX.proto.event_pb2 import Event

from waypost.contracts.errors import ArtifactFormatError
from waypost.testing.synthetic import planted
from waypost.tune import dashboard, epoch_trial
from waypost.tune.config import check_sweep
from waypost.tune.dashboard import EventWriter
from waypost.tune.epoch_trial import (
    SHARE,
    Checkpoint,
    EvaluationInterval,
    find_checkpoints,
    newest_checkpoint,
    run_epoch_trial,
)
from waypost.tune.folds import CrossValidation
from waypost.tune.journal import Task, TrialRow
from waypost.tune.plots import draw_curves
from waypost.tune.trial import measure

EPOCHS = 6
GIVEN = {"hidden": 8, "members": 1, "epochs": EPOCHS, "patience": EPOCHS}


@pytest.fixture(scope="module")
def cv() -> CrossValidation:
    space = {"hidden": {"type": "choice", "values": [4, 8]}}
    config = check_sweep(
        {"router": "mlprouter", "space": space, "budget": {"trials": 2}, "folds": 2}, "x"
    )
    return CrossValidation.of(config, planted(160), ())


@pytest.fixture
def clock(monkeypatch) -> list[float]:
    """A clock that only moves when it is told to; its one entry is the time."""
    now = [0.0]
    monkeypatch.setattr(epoch_trial.time, "perf_counter", lambda: now[0])
    return now


def task(**more) -> Task:
    return Task(1, "k", {"hidden": 8}, {**GIVEN, **more})


def test_the_pace_keeps_looks_to_their_share(clock):
    interval = EvaluationInterval()
    assert not interval.is_due
    clock[0] = 5.0
    assert interval.is_due
    clock[0] = 5.5
    interval.evaluated(0.5)
    clock[0] = 5.5 + 0.5 / SHARE - 0.01
    assert not interval.is_due
    clock[0] += 0.02
    assert interval.is_due
    interval.begin()  # the next trial: as long again
    assert not interval.is_due


class Looks(EvaluationInterval):
    """Looks after the epochs that are named."""

    def __init__(self, epochs: set[int]) -> None:
        super().__init__()
        self.asked, self.epochs = 0, epochs

    @property
    def is_due(self) -> bool:
        self.asked += 1
        return self.asked in self.epochs


def test_epoch_by_epoch_or_seldom_the_end_is_that_of_a_fit(cv):
    whole = measure(cv, task())
    for interval, evaluated in (
        (None, {1, 2, 3, 4, 5, 6}),
        (Looks({2, 4}), {2, 4, 6}),
        (Looks(set()), {6}),
    ):
        found = list(run_epoch_trial(cv, task(), interval))
        *before, (last, checkpoint) = found
        assert (last.status, last.score, last.blocks) == ("done", whole.score, whole.blocks)
        assert checkpoint is None
        assert {n for n, one in enumerate(last.epochs, 1) if one is not None} == evaluated
        assert last.epochs[-1] == last.score
        assert [len(row.epochs) for row, _ in before] == sorted(
            evaluated - ({6} if interval else set())
        )
        assert all(row.status == "stopped" and one is not None for row, one in before)
        assert len(last.losses) == EPOCHS
        assert np.isfinite(last.losses).all()


def test_a_schedule_of_changes_is_followed_and_gone_on_with(cv):
    changing = replace(
        task(), schedule=[[0, {"learning_rate": 1e-2}], [3, {"learning_rate": 1e-4}]]
    )
    whole = measure(cv, changing)
    rows = list(run_epoch_trial(cv, changing))
    assert rows[-1][0].blocks == whole.blocks
    assert rows[-1][0].losses != measure_losses(cv, task())
    checkpoint = kept_after(cv, changing, 4)
    again = list(run_epoch_trial(cv, changing, checkpoint=checkpoint))
    assert len(again[0][0].epochs) == 5
    assert again[-1][0].blocks == whole.blocks


def kept_after(cv: CrossValidation, one: Task, epochs: int) -> Checkpoint | None:
    """Return a checkpoint as a trial reports it; later epochs train on in its arrays."""
    return next(
        checkpoint for row, checkpoint in run_epoch_trial(cv, one) if len(row.epochs) == epochs
    )


def measure_losses(cv: CrossValidation, one: Task) -> list[float | None]:
    return list(run_epoch_trial(cv, one))[-1][0].losses


def test_a_checkpoint_is_read_gone_on_with_and_passed_over_where_it_is_torn(cv, tmp_path):
    run = tmp_path / "ray" / "a" / "k-1"
    whole, _ = list(run_epoch_trial(cv, task()))[-1]
    for number in range(2):
        folder = run / f"checkpoint_{number}"
        folder.mkdir(parents=True)
        kept_after(cv, task(), number + 1).write(folder)
        for path in folder.iterdir():
            os.utime(path, (number, number))
    (tmp_path / "ray" / "a" / "k-2").mkdir()
    left = find_checkpoints(tmp_path / "ray")
    assert left == {("k", 0): [run / "checkpoint_1", run / "checkpoint_0"]}
    folders = [str(path) for path in left["k", 0]]
    assert len(newest_checkpoint(folders).epochs) == 2
    torn = run / "checkpoint_1" / "fold-1.safetensors"
    torn.write_bytes(torn.read_bytes()[:-9])
    with pytest.raises(ArtifactFormatError, match="checkpoint_1: is not a checkpoint"):
        Checkpoint.read(run / "checkpoint_1")
    checkpoint = newest_checkpoint(folders)
    rows = [row for row, _ in run_epoch_trial(cv, task(), checkpoint=checkpoint)]
    assert [len(row.epochs) for row in rows] == [2, 3, 4, 5, 6, 6]
    assert (rows[-1].epochs, rows[-1].losses) == (whole.epochs, whole.losses)
    assert newest_checkpoint([]) is None


def test_a_factorisation_goes_on_with_the_losses_it_has_seen():
    space = {"width": {"type": "choice", "values": [4]}}
    config = check_sweep(
        {"router": "mfrouter", "space": space, "budget": {"trials": 1}, "folds": 2}, "x"
    )
    factored = CrossValidation.of(config, planted(160), ())
    one = Task(1, "k", {"width": 4}, {"width": 4, "steps": 60})
    whole, _ = list(run_epoch_trial(factored, one))[-1]
    rows = list(run_epoch_trial(factored, one, checkpoint=kept_after(factored, one, 2)))
    assert len(whole.losses) == len(whole.epochs) > 2
    assert rows[-1][0].losses == whole.losses
    assert rows[-1][0].blocks == whole.blocks


def test_a_checkpoint_of_another_setting_is_as_if_there_were_none(cv):
    checkpoint = kept_after(cv, task(hidden=4), 1)
    rows = [row for row, _ in run_epoch_trial(cv, task(), checkpoint=checkpoint)]
    assert len(rows[0].epochs) == 1
    assert rows[-1].score == measure(cv, task()).score


def test_what_fails_on_the_way_is_a_row(cv):
    ((row, checkpoint),) = run_epoch_trial(cv, task(hidden=-1))
    assert (row.status, checkpoint) == ("failed", None)
    assert "hidden: is -1" in row.error


# -- what is shown ------------------------------------------------------------------------------


def scalars(run: Path) -> dict[tuple[str, int], float]:
    """Return the values of a run's event files by tag and step."""
    found = {}
    for path in run.glob("events*"):
        content = path.read_bytes()
        while len(content) > 12:  # length, its checksum, the event, its checksum
            (size,) = struct.unpack("<Q", content[:8])
            event = Event.FromString(content[12 : 12 + size])
            content = content[16 + size :]
            for value in event.summary.value:
                if value.HasField("simple_value"):
                    assert (value.tag, event.step) not in found
                    found[value.tag, event.step] = value.simple_value
    return found


def test_a_trial_grows_in_tensorboard_and_is_whole_after_a_kill(tmp_path, monkeypatch):
    monkeypatch.setattr(dashboard, "FLUSH_S", 0.05)
    begun = TrialRow(
        3, "k", {"hidden": 8}, 0, "stopped", 0.25, 1.0, epochs=[None, 0.25], losses=[4, 3]
    )
    killed = EventWriter(tmp_path, "quality")
    killed.write_epochs(begun)
    expected = {("metric_by_epoch", 2): 0.25, ("held_out_loss", 1): 4, ("held_out_loss", 2): 3}
    end = time.monotonic() + 60
    while scalars(tmp_path / "trial-0003") != expected:
        assert time.monotonic() < end
        time.sleep(0.05)
    after = EventWriter(tmp_path, "quality")  # another process: the first one wrote no end
    more = replace(begun, epochs=[None, 0.25, 0.5], losses=[4, 3, 2])
    after.write_epochs(more)
    done = replace(
        more, status="done", epochs=[*more.epochs, 0.75], losses=[4, 3, 2, 1], score=0.75
    )
    after.write(replace(done, score=0.75))
    expected |= {("metric_by_epoch", 3): 0.5, ("metric_by_epoch", 4): 0.75}
    expected |= {("held_out_loss", 3): 2, ("held_out_loss", 4): 1}
    found = scalars(tmp_path / "trial-0003")
    assert expected.items() <= found.items()
    assert found["metric", 4] == 0.75
    after.write_epochs(replace(begun, deal=1))  # those measured again have no run
    after.write(TrialRow(4, "l", {}, 0, "failed", None, 1.0))
    assert [path.name for path in tmp_path.iterdir()] == ["trial-0003"]


def test_curves_are_drawn_where_there_are_any(tmp_path):
    path = tmp_path / "curves.png"
    plain = [TrialRow(n, f"k{n}", {}, 0, "done", 0.5, 1.0) for n in range(2)]
    assert not draw_curves(plain, "quality", 1.0, 0, path)
    rows = [replace(row, epochs=[None, 0.5], losses=[2.0, 1.0 + row.number]) for row in plain]
    assert draw_curves(rows, "quality", 1.0, 1, path)
    assert path.read_bytes().startswith(b"\x89PNG")
    assert not draw_curves(plain, "quality", 1.0, 0, path)
    assert not path.exists()
