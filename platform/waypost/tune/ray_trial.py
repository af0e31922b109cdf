"""Trainable functions of Ray Tune: a batch of settings without a scheduler, or one by epochs.

Starting a Ray trial costs tenths of a second or more, while a fit can cost hundredths. So one trial
without a scheduler measures many settings and reports a row for each. Routers that train by epochs
also report intermediate rows with a checkpoint, spaced by `EvaluationInterval`.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from waypost.report.numbers import plain
from waypost.tune.epoch_trial import (
    Checkpoint,
    EvaluationInterval,
    newest_checkpoint,
    report_to_ray,
    run_epoch_trial,
)
from waypost.tune.folds import CrossValidation
from waypost.tune.journal import Task, TrialRow
from waypost.tune.trial import measure, until

REPORT_S = 1.0
"""Seconds between two reports. Rows in between share a report: each report waits for the driver."""


def packed_trial(config: Mapping[str, Any], cv: CrossValidation) -> None:
    """Measure a batch; tasks that exceed its time limit stay unmeasured.

    Args:
        config: ``tasks``; ``limit_s``, after which no further task starts; ``resume``, for each
            task its checkpoint folders, newest first.
        cv: Data and folds.
    """
    waiting: list[TrialRow] = []
    reported = time.monotonic()
    for row, checkpoint in _rows(config, cv):
        waiting.append(row)
        if checkpoint is not None or time.monotonic() - reported >= REPORT_S:
            report_to_ray({"rows": write_rows(waiting)}, checkpoint)
            waiting, reported = [], time.monotonic()
    report_to_ray({"rows": write_rows(waiting)})


def _rows(
    config: Mapping[str, Any], cv: CrossValidation
) -> Iterator[tuple[TrialRow, Checkpoint | None]]:
    tasks, folders = read_tasks(config["tasks"]), json.loads(config["resume"])
    interval = EvaluationInterval()
    for place, task in enumerate(until(tasks, config["limit_s"])):
        if cv.by_epochs:
            yield from run_epoch_trial(
                cv, task, interval, checkpoint=newest_checkpoint(folders[place])
            )
        else:
            yield measure(cv, task), None


def write_tasks(tasks: Sequence[Task]) -> str:
    """Return tasks as JSON text; Ray would flatten and write a mapping."""
    return json.dumps([asdict(task) for task in tasks])


def read_tasks(text: str) -> list[Task]:
    """Read the text of `write_tasks`."""
    return [Task(**one) for one in json.loads(text)]


def write_rows(rows: Sequence[TrialRow]) -> str:
    """Return rows as JSON text."""
    return json.dumps([plain(asdict(row)) for row in rows])


def read_rows(text: str) -> list[TrialRow]:
    """Read the text of `write_rows`."""
    return [TrialRow(**one) for one in json.loads(text)]


WORST = 1e9
"""Value reported, with the sign of a bad score, for an epoch without a metric."""


def epoch_trial(config: Mapping[str, Any], cv: CrossValidation, sign: float) -> None:
    """Train a setting and report each epoch, resuming from a checkpoint if there is one.

    Args:
        config: Its only key is ``trial``. There ``tasks`` holds one task; ``changed`` its
            changeable parameters; ``resume`` its checkpoint folders, newest first.
        cv: Data and folds.
        sign: 1 if a high metric is good, -1 if a low one is.
    """
    config = config["trial"]
    (task,) = read_tasks(config["tasks"])
    checkpoint = _of_ray() or newest_checkpoint(config["resume"])
    for row, now in run_epoch_trial(cv, task, changed=config["changed"], checkpoint=checkpoint):
        found = {
            "rows": write_rows([row]),
            "score": -sign * WORST if row.score is None else row.score,
            "epoch": len(row.epochs),
        }
        report_to_ray(found, now)


def _of_ray() -> Checkpoint | None:
    from ray import tune

    checkpoint = tune.get_checkpoint()
    if checkpoint is None:
        return None
    with checkpoint.as_directory() as folder:
        return Checkpoint.read(Path(folder))
