"""Trains all folds of a setting side by side, and judges them after every epoch."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from waypost.contracts.epochs import Arrays, EpochRouter, EpochTraining
from waypost.contracts.errors import ArtifactFormatError
from waypost.pipelines.sweep import sweep
from waypost.tune.sweep.desk import row_of
from waypost.tune.sweep.journal import Row, Task
from waypost.tune.sweep.measuring import judged
from waypost.tune.sweep.problem import Choices, Part, Problem

PROGRESS = "progress.json"


@dataclass(frozen=True, eq=False)
class Kept:
    """A setting in the middle of its training.

    Attributes:
        states: Of the folds' trainings, in order; see `EpochTraining.state`.
        epochs: The metric after each epoch.
        seconds: That they took.
    """

    states: list[Arrays]
    epochs: list[float | None]
    seconds: float

    def write(self, folder: Path) -> None:
        """Write it as safetensors and one JSON, which comes last."""
        from safetensors.numpy import save_file

        for place, state in enumerate(self.states):
            save_file(state, str(folder / f"fold-{place}.safetensors"))
        about = {"folds": len(self.states), "epochs": self.epochs, "seconds": self.seconds}
        (folder / PROGRESS).write_text(json.dumps(about), encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> Kept:
        """Read what `write` wrote.

        Raises:
            ArtifactFormatError: a file is missing or torn.
        """
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        try:
            about = json.loads((folder / PROGRESS).read_text(encoding="utf-8"))
            names = [folder / f"fold-{place}.safetensors" for place in range(about["folds"])]
            return cls([load_file(str(n)) for n in names], about["epochs"], about["seconds"])
        except (OSError, ValueError, KeyError, SafetensorError) as error:
            raise ArtifactFormatError(f"{folder}: is no checkpoint: {error}") from None


class Lockstep:
    """One setting on all folds.

    Args:
        problem: What it is measured on.
        task: The setting.
        changed: Parameters that may be others from one epoch to the next, as they are now.
        kept: Where it goes on; None begins.

    Raises:
        WaypostError: it cannot be built, or ``kept`` is of another setting or other data.
    """

    def __init__(
        self,
        problem: Problem,
        task: Task,
        changed: Mapping[str, Any] | None = None,
        kept: Kept | None = None,
    ) -> None:
        self._problem, self._task = problem, task
        self._began = time.perf_counter() - (kept.seconds if kept else 0.0)
        self._epochs: list[float | None] = list(kept.epochs) if kept else []
        self._folds: list[tuple[Part, EpochRouter, EpochTraining]] = []
        for place, part in enumerate(problem.parts(task.deal)):
            router = cast(EpochRouter, problem.router_of({**task.parameters, **(changed or {})}))
            state = kept.states[place] if kept else None
            self._folds.append((part, router, router.fit_epochs(part.training, state)))

    def __iter__(self) -> Iterator[Row]:
        """Train and judge epoch by epoch; the last row alone is done, and comes twice."""
        row = None
        while self._advance():
            row = self._judge()
            yield row
        row = row or self._judge(again=True)
        yield Row(**{**row.__dict__, "status": "done" if row.score is not None else "failed"})

    def kept(self) -> Kept:
        """Return all that is needed to go on."""
        states = [training.state() for _, _, training in self._folds]
        return Kept(states, self._epochs, time.perf_counter() - self._began)

    def _advance(self) -> bool:
        """Train every fold that has not ended one epoch more; False where all have."""
        done = [next(training, None) for _, _, training in self._folds]
        return any(one is not None for one in done)

    def _judge(self, *, again: bool = False) -> Row:
        choices = Choices(len(self._problem.data))
        for part, router, training in self._folds:
            training.settle()
            choices.add(part.rows, sweep(router, part.held_out, self._problem.judge.lambdas))
        found = judged(self._problem, choices)
        score = cast("float | None", found["score"])
        if not again:
            self._epochs.append(score)
        schedule = self._folds[0][2].schedule
        return row_of(
            self._task,
            time.perf_counter() - self._began,
            **{**found, "status": "stopped"},
            epochs=list(self._epochs),
            schedule=[list(one) for one in schedule] if len(schedule) > 1 else [],
        )
