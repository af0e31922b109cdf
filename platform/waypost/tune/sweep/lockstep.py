"""Trains all folds of a setting side by side, epoch by epoch, and judges them on the way."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping
from itertools import zip_longest
from typing import Any, cast

import numpy as np

from waypost.contracts.epochs import EpochRouter, EpochTraining
from waypost.contracts.errors import WaypostError
from waypost.pipelines.evaluation.contenders import reason
from waypost.pipelines.sweep import sweep
from waypost.tune.sweep.checkpoints import Kept
from waypost.tune.sweep.desk import row_of
from waypost.tune.sweep.journal import Row, Task
from waypost.tune.sweep.measuring import judged
from waypost.tune.sweep.problem import Choices, Part, Problem

logger = logging.getLogger(__name__)

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
