"""Train one setting on all folds epoch by epoch: evaluation interval, rows and checkpoints.

A checkpoint is a folder of safetensors files that Ray Tune stores.
"""

from __future__ import annotations

import json
import logging
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any, cast

import numpy as np

from waypost.contracts.epochs import Arrays, EpochRouter, EpochTraining
from waypost.contracts.errors import ArtifactFormatError, WaypostError
from waypost.pipelines.evaluation.inputs import reason
from waypost.tune.folds import Choices, CrossValidation, Fold
from waypost.tune.journal import Task, TrialRow
from waypost.tune.trial import evaluate_choices
from waypost.tune.trial_queue import row_of

logger = logging.getLogger(__name__)

Place = tuple[str, int]
"""Key of the setting, and number of the deal."""

_PROGRESS = ".progress.json"


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """State of a partly trained setting.

    Attributes:
        place: Setting and deal.
        states: Training state of each fold, in order; see `EpochTraining.state`.
        epochs: The metric after each epoch; None where it was not evaluated.
        seconds: Training time so far.
    """

    place: Place
    states: list[Arrays]
    epochs: list[float | None]
    seconds: float

    def write(self, folder: Path) -> None:
        """Write safetensors files and one JSON file, whose name holds setting and deal."""
        from safetensors.numpy import save_file

        for number, state in enumerate(self.states):
            save_file(state, str(folder / f"fold-{number}.safetensors"))
        key, deal = self.place
        about = {"key": key, "deal": deal, "folds": len(self.states)}
        about |= {"epochs": self.epochs, "seconds": self.seconds}
        (folder / f"{key}-{deal}{_PROGRESS}").write_text(json.dumps(about), encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> Checkpoint:
        """Read a folder written by `write`.

        Raises:
            ArtifactFormatError: A file is missing or incomplete.
        """
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        try:
            path = next(folder.glob(f"*{_PROGRESS}"), folder / _PROGRESS)
            about = json.loads(path.read_text(encoding="utf-8"))
            files = [folder / f"fold-{number}.safetensors" for number in range(about["folds"])]
            states = [load_file(str(file)) for file in files]
            return cls((about["key"], about["deal"]), states, about["epochs"], about["seconds"])
        except (OSError, ValueError, KeyError, SafetensorError) as error:
            raise ArtifactFormatError(f"{folder}: is not a checkpoint: {error}") from None


def find_checkpoints(folder: Path) -> dict[Place, list[Path]]:
    """Return the checkpoint folders below Ray's folder by setting and deal, the newest first.

    Checkpoints of killed runs are included.
    """
    found: dict[Place, list[tuple[int, Path]]] = {}
    for path in folder.glob(f"*/*/checkpoint_*/*{_PROGRESS}"):
        key, _, deal = path.name.removesuffix(_PROGRESS).rpartition("-")
        try:
            found.setdefault((key, int(deal)), []).append((path.stat().st_mtime_ns, path.parent))
        except OSError:  # Ray deletes older checkpoints
            continue
    return {place: [one for _, one in sorted(ages, reverse=True)] for place, ages in found.items()}


def newest_checkpoint(folders: Sequence[str]) -> Checkpoint | None:
    """Return the first readable checkpoint; a kill can leave the newest one incomplete."""
    for folder in folders:
        try:
            return Checkpoint.read(Path(folder))
        except ArtifactFormatError as error:
            logger.warning("skipping a checkpoint: %s", error)
    return None


def report_to_ray(found: Mapping[str, Any], checkpoint: Checkpoint | None = None) -> None:
    """Report to Ray Tune from inside a trial, optionally with a checkpoint.

    Ray refuses checkpoints on clusters without a shared disk. The report is then sent without one,
    and an interrupted trial restarts from its first epoch.
    """
    from ray import tune

    if checkpoint is None:
        tune.report(dict(found))
        return
    with tempfile.TemporaryDirectory() as folder:
        checkpoint.write(Path(folder))
        try:
            tune.report(dict(found), checkpoint=tune.Checkpoint.from_directory(folder))
        except (RuntimeError, OSError) as error:
            logger.warning("no checkpoint was stored: %s", error)
            tune.report(dict(found))


SHARE = 0.05
"""Maximum share of the training time spent on evaluations, if no scheduler needs them."""

FIRST_S = 5.0
"""Seconds of training before the first evaluation, whose cost is still unknown."""


class EvaluationInterval:
    """The interval between evaluations, chosen so that they take at most `SHARE` of the time.

    An evaluation settles all folds, computes the metric and stores a checkpoint.

    Attributes:
        wait_s: Seconds of training between two evaluations.
    """

    def __init__(self) -> None:
        self.wait_s = FIRST_S
        self._since = time.perf_counter()

    def begin(self) -> None:
        """Restart the clock."""
        self._since = time.perf_counter()

    @property
    def is_due(self) -> bool:
        """Whether the next evaluation is due."""
        return time.perf_counter() - self._since >= self.wait_s

    def evaluated(self, cost_s: float) -> None:
        """Set the interval from the seconds that an evaluation took, and restart the clock."""
        self.wait_s = cost_s / SHARE
        self.begin()


class EpochTrial:
    """Training of one setting on all folds at once.

    Args:
        cv: Data and folds.
        task: The setting.
        interval: Spacing of evaluations; None evaluates after every epoch.
        changed: Current values of the parameters that can change between epochs.
        checkpoint: State to resume from; None starts at the first epoch.

    Raises:
        WaypostError: The router cannot be built, or the checkpoint is of other settings or data.
    """

    def __init__(
        self,
        cv: CrossValidation,
        task: Task,
        interval: EvaluationInterval | None = None,
        changed: Mapping[str, Any] | None = None,
        checkpoint: Checkpoint | None = None,
    ) -> None:
        self._cv, self._task, self._interval = cv, task, interval
        self._began = time.perf_counter() - (checkpoint.seconds if checkpoint else 0.0)
        self._epochs: list[float | None] = list(checkpoint.epochs) if checkpoint else []
        self._schedule = {int(start): dict(values) for start, values in task.schedule}
        held = [start for start in self._schedule if start <= len(self._epochs)]
        given = {**task.parameters, **(self._schedule[max(held)] if held else {})}
        given |= changed or {}
        self._folds: list[tuple[Fold, EpochRouter, EpochTraining]] = []
        for place, part in enumerate(cv.split(task.deal)):
            router = cast(EpochRouter, cv.router_of(given))
            state = checkpoint.states[place] if checkpoint else None
            self._folds.append((part, router, router.fit_epochs(part.training, state)))

    def __iter__(self) -> Iterator[TrialRow]:
        """Train and yield a row per evaluation; the last row is final."""
        row, interval = None, self._interval
        if interval is not None:
            interval.begin()
        while self._advance():
            self._epochs.append(None)
            if interval is not None and (self._has_ended or not interval.is_due):
                row = None
                continue
            start = time.perf_counter()
            row = self._evaluate()
            yield row
            if interval is not None:
                interval.evaluated(time.perf_counter() - start)
        row = row or self._evaluate()
        yield TrialRow(**{**row.__dict__, "status": "done" if row.score is not None else "failed"})

    def checkpoint(self) -> Checkpoint:
        """Return the state to resume from."""
        states = [training.state() for _, _, training in self._folds]
        seconds = time.perf_counter() - self._began
        return Checkpoint(self._task.place, states, list(self._epochs), seconds)

    @property
    def _has_ended(self) -> bool:
        trainings = [training for _, _, training in self._folds]
        return all(one.stopped or one.done >= one.total for one in trainings)

    def _advance(self) -> bool:
        """Train each unfinished fold for one epoch; return False if all are finished."""
        for _, _, training in self._folds:
            if training.done and training.done in self._schedule:
                training.change(**self._schedule[training.done])
        done = [next(training, None) for _, _, training in self._folds]
        return any(one is not None for one in done)

    def _evaluate(self) -> TrialRow:
        choices = Choices(len(self._cv.data))
        for part, router, training in self._folds:
            training.settle()
            choices.add(part.rows, self._cv.swept(router, part))
        found = evaluate_choices(self._cv, choices)
        score = cast("float | None", found["score"])
        if self._epochs:
            self._epochs[-1] = score
        schedule = self._folds[0][2].schedule
        return row_of(
            self._task,
            time.perf_counter() - self._began,
            **{**found, "status": "stopped"},
            epochs=list(self._epochs),
            losses=self._losses(),
            schedule=[list(one) for one in schedule] if len(schedule) > 1 else [],
        )

    def _losses(self) -> list[float]:
        """Return the loss after each epoch, mean over the folds that reached it."""
        rows = zip_longest(*(training.losses for _, _, training in self._folds))
        return [float(np.mean([one for one in row if one is not None])) for row in rows]


def run_epoch_trial(
    cv: CrossValidation,
    task: Task,
    interval: EvaluationInterval | None = None,
    changed: Mapping[str, Any] | None = None,
    checkpoint: Checkpoint | None = None,
) -> Iterator[tuple[TrialRow, Checkpoint | None]]:
    """Yield the rows of a setting, all but the last with a checkpoint; see `EpochTrial`.

    A failure yields a failed row. A checkpoint that does not fit is ignored.
    """
    start = time.perf_counter()
    try:
        try:
            trial = EpochTrial(cv, task, interval, changed, checkpoint)
        except WaypostError as error:
            if checkpoint is None:
                raise
            logger.warning("trial %d restarts: %s", task.number, error)
            trial = EpochTrial(cv, task, interval, changed)
        for row in trial:
            yield row, trial.checkpoint() if row.status == "stopped" else None
    # Routers can be third-party code; one that fails must not end the sweep.
    except Exception as error:
        logger.debug("trial %d failed", task.number, exc_info=True)
        seconds = time.perf_counter() - start
        yield row_of(task, seconds, status="failed", score=None, error=reason(error)), None
