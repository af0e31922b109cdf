"""Trials as Ray Tune runs them: many settings in one process, or one that trains by epochs.

A trial of Ray's costs tenths of a second and more; a fit may cost hundredths. So one of Ray's
trials measures many settings, each reported as a row of its own. Settings of routers that train by
epochs are reported on the way, too, with a checkpoint, as often as `Pace` says.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from waypost.report.numbers import plain
from waypost.tune.epoch_trial import Kept, Pace, first_whole, send, trained
from waypost.tune.folds import Problem
from waypost.tune.journal import Row, Task
from waypost.tune.trial import measure, until

REPORT_S = 1.0
"""Rows that come faster are reported together: a report waits for the driver to take it."""


def packed_trial(config: Mapping[str, Any], problem: Problem) -> None:
    """Measure a batch; what does not fit into its time is left to others.

    Args:
        config: ``tasks``; ``limit_s``, after which no further one is begun; ``resume`` holds, for
            each task, the folders that an earlier run left of it, newest first.
        problem: What they are measured on.
    """
    waiting: list[Row] = []
    reported = time.monotonic()
    for row, kept in _rows(config, problem):
        waiting.append(row)
        if kept is not None or time.monotonic() - reported >= REPORT_S:
            send({"rows": write_rows(waiting)}, kept)
            waiting, reported = [], time.monotonic()
    send({"rows": write_rows(waiting)})


def _rows(config: Mapping[str, Any], problem: Problem) -> Iterator[tuple[Row, Kept | None]]:
    tasks, folders = read_tasks(config["tasks"]), json.loads(config["resume"])
    pace = Pace()
    for place, task in enumerate(until(tasks, config["limit_s"])):
        if problem.by_epochs:
            yield from trained(problem, task, pace, kept=first_whole(folders[place]))
        else:
            yield measure(problem, task), None


def write_tasks(tasks: Sequence[Task]) -> str:
    """Return tasks as text; Ray writes and flattens what is not."""
    return json.dumps([asdict(task) for task in tasks])


def read_tasks(text: str) -> list[Task]:
    """Return what `write_tasks` wrote."""
    return [Task(**one) for one in json.loads(text)]


def write_rows(rows: Sequence[Row]) -> str:
    """Return rows as text."""
    return json.dumps([plain(asdict(row)) for row in rows])


def read_rows(text: str) -> list[Row]:
    """Return what `write_rows` wrote."""
    return [Row(**one) for one in json.loads(text)]


WORST = 1e9
"""Reported, with the metric's sign, where an epoch has no metric."""


def epoch_trial(config: Mapping[str, Any], problem: Problem, sign: float) -> None:
    """Train a setting and report each epoch; goes on from Ray's checkpoint, or one of before.

    Args:
        config: Its only key is ``trial``. There ``tasks`` holds one; ``changed`` are its parameters
            that may change; ``resume`` are folders that an earlier run left of it, newest first.
        problem: What it is measured on.
        sign: 1 where a high metric is good, -1 where a low one is.
    """
    config = config["trial"]
    (task,) = read_tasks(config["tasks"])
    kept = _of_ray() or first_whole(config["resume"])
    for row, now in trained(problem, task, changed=config["changed"], kept=kept):
        found = {
            "rows": write_rows([row]),
            "score": -sign * WORST if row.score is None else row.score,
            "epoch": len(row.epochs),
        }
        send(found, now)


def _of_ray() -> Kept | None:
    from ray import tune

    checkpoint = tune.get_checkpoint()
    if checkpoint is None:
        return None
    with checkpoint.as_directory() as folder:
        return Kept.read(Path(folder))
