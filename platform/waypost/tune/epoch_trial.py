"""Train all folds of a setting side by side, epoch by epoch; checkpoints that Ray Tune keeps."""

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
from waypost.pipelines.evaluation.lambda_curve import sweep
from waypost.tune.folds import Choices, Part, Problem
from waypost.tune.journal import Row, Task
from waypost.tune.trial import judged
from waypost.tune.trial_queue import row_of

logger = logging.getLogger(__name__)

Place = tuple[str, int]
"""What is measured: key of the setting, and deal."""

_PROGRESS = ".progress.json"


@dataclass(frozen=True, eq=False)
class Kept:
    """A setting in the middle of its training.

    Attributes:
        place: Which setting, on which deal.
        states: Of the folds' trainings, in order; see `EpochTraining.state`.
        epochs: The metric after each epoch; None where it was not looked at.
        seconds: That they took.
    """

    place: Place
    states: list[Arrays]
    epochs: list[float | None]
    seconds: float

    def write(self, folder: Path) -> None:
        """Write it as safetensors and one JSON, whose name says what it is of."""
        from safetensors.numpy import save_file

        for number, state in enumerate(self.states):
            save_file(state, str(folder / f"fold-{number}.safetensors"))
        key, deal = self.place
        about = {"key": key, "deal": deal, "folds": len(self.states)}
        about |= {"epochs": self.epochs, "seconds": self.seconds}
        (folder / f"{key}-{deal}{_PROGRESS}").write_text(json.dumps(about), encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> Kept:
        """Read what `write` wrote.

        Raises:
            ArtifactFormatError: a file is missing or torn.
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
            raise ArtifactFormatError(f"{folder}: is no checkpoint: {error}") from None


def left_behind(folder: Path) -> dict[Place, list[Path]]:
    """Return the checkpoints in Ray's folder by what they are of, the newest first.

    Those of this command's own run, and of runs that were killed.
    """
    found: dict[Place, list[tuple[int, Path]]] = {}
    for path in folder.glob(f"*/*/checkpoint_*/*{_PROGRESS}"):
        key, _, deal = path.name.removesuffix(_PROGRESS).rpartition("-")
        try:
            found.setdefault((key, int(deal)), []).append((path.stat().st_mtime_ns, path.parent))
        except OSError:  # Ray keeps the last few only
            continue
    return {place: [one for _, one in sorted(ages, reverse=True)] for place, ages in found.items()}


def first_whole(folders: Sequence[str]) -> Kept | None:
    """Return the first checkpoint that can be read; a kill may have torn the newest."""
    for folder in folders:
        try:
            return Kept.read(Path(folder))
        except ArtifactFormatError as error:
            logger.warning("a checkpoint is passed over: %s", error)
    return None


def send(found: Mapping[str, Any], kept: Kept | None = None) -> None:
    """Report to Ray Tune from a trial, with a checkpoint where there is one.

    Where the machines of a cluster share no disk Ray refuses a checkpoint: then it is done
    without, and a trial that is cut off is trained again from the beginning.
    """
    from ray import tune

    if kept is None:
        tune.report(dict(found))
        return
    with tempfile.TemporaryDirectory() as folder:
        kept.write(Path(folder))
        try:
            tune.report(dict(found), checkpoint=tune.Checkpoint.from_directory(folder))
        except (RuntimeError, OSError) as error:
            logger.warning("no checkpoint was kept: %s", error)
            tune.report(dict(found))


SHARE = 0.05
"""Most of a training's time that looks at it take, where nobody decides by them."""

FIRST_S = 5.0
"""Training before the first look, when nobody knows what a look costs."""


class Pace:
    """When to look at a training: seldom enough that looking takes at most `SHARE` of the time.

    To look is to settle all folds, to judge them, and to keep a checkpoint.

    Attributes:
        wait_s: Training between two looks, in seconds.
    """

    def __init__(self) -> None:
        self.wait_s = FIRST_S
        self._since = time.perf_counter()

    def begin(self) -> None:
        """Count from now."""
        self._since = time.perf_counter()

    @property
    def is_due(self) -> bool:
        """Whether it is time."""
        return time.perf_counter() - self._since >= self.wait_s

    def looked(self, cost_s: float) -> None:
        """Take note of what a look cost, which ends now."""
        self.wait_s = cost_s / SHARE
        self.begin()


class Lockstep:
    """One setting on all folds.

    Args:
        problem: What it is measured on.
        task: The setting.
        pace: When to look; None looks after every epoch.
        changed: Parameters that may be others from one epoch to the next, as they are now.
        kept: Where it goes on; None begins.

    Raises:
        WaypostError: it cannot be built, or ``kept`` is of another setting or other data.
    """

    def __init__(
        self,
        problem: Problem,
        task: Task,
        pace: Pace | None = None,
        changed: Mapping[str, Any] | None = None,
        kept: Kept | None = None,
    ) -> None:
        self._problem, self._task, self._pace = problem, task, pace
        self._began = time.perf_counter() - (kept.seconds if kept else 0.0)
        self._epochs: list[float | None] = list(kept.epochs) if kept else []
        self._schedule = {int(start): dict(values) for start, values in task.schedule}
        held = [start for start in self._schedule if start <= len(self._epochs)]
        given = {**task.parameters, **(self._schedule[max(held)] if held else {})}
        given |= changed or {}
        self._folds: list[tuple[Part, EpochRouter, EpochTraining]] = []
        for place, part in enumerate(problem.parts(task.deal)):
            router = cast(EpochRouter, problem.router_of(given))
            state = kept.states[place] if kept else None
            self._folds.append((part, router, router.fit_epochs(part.training, state)))

    def __iter__(self) -> Iterator[Row]:
        """Train, and judge at the pace; the last row alone is done, and may come twice."""
        row, pace = None, self._pace
        if pace is not None:
            pace.begin()
        while self._advance():
            self._epochs.append(None)
            if pace is not None and (self._has_ended or not pace.is_due):
                row = None
                continue
            start = time.perf_counter()
            row = self._judge()
            yield row
            if pace is not None:
                pace.looked(time.perf_counter() - start)
        row = row or self._judge()
        yield Row(**{**row.__dict__, "status": "done" if row.score is not None else "failed"})

    def kept(self) -> Kept:
        """Return all that is needed to go on."""
        states = [training.state() for _, _, training in self._folds]
        seconds = time.perf_counter() - self._began
        return Kept(self._task.place, states, list(self._epochs), seconds)

    @property
    def _has_ended(self) -> bool:
        trainings = [training for _, _, training in self._folds]
        return all(one.stopped or one.done >= one.total for one in trainings)

    def _advance(self) -> bool:
        """Train every fold that has not ended one epoch more; False where all have."""
        for _, _, training in self._folds:
            if training.done and training.done in self._schedule:
                training.change(**self._schedule[training.done])
        done = [next(training, None) for _, _, training in self._folds]
        return any(one is not None for one in done)

    def _judge(self) -> Row:
        choices = Choices(len(self._problem.data))
        for part, router, training in self._folds:
            training.settle()
            choices.add(part.rows, sweep(router, part.held_out, self._problem.judge.lambdas))
        found = judged(self._problem, choices)
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
        """Return the mean loss over the folds that made an epoch, after each epoch."""
        rows = zip_longest(*(training.losses for _, _, training in self._folds))
        return [float(np.mean([one for one in row if one is not None])) for row in rows]


def trained(
    problem: Problem,
    task: Task,
    pace: Pace | None = None,
    changed: Mapping[str, Any] | None = None,
    kept: Kept | None = None,
) -> Iterator[tuple[Row, Kept | None]]:
    """Yield the rows of a setting, those before the last with a checkpoint; see `Lockstep`.

    What fails is a failed row; a checkpoint that does not fit is as if there were none.
    """
    start = time.perf_counter()
    try:
        try:
            trial = Lockstep(problem, task, pace, changed, kept)
        except WaypostError as error:
            if kept is None:
                raise
            logger.warning("trial %d begins anew: %s", task.number, error)
            trial = Lockstep(problem, task, pace, changed)
        for row in trial:
            yield row, trial.kept() if row.status == "stopped" else None
    # A router may be anybody's code, and one that fails must not end the sweep.
    except Exception as error:
        logger.debug("trial %d failed", task.number, exc_info=True)
        seconds = time.perf_counter() - start
        yield row_of(task, seconds, status="failed", score=None, error=reason(error)), None
