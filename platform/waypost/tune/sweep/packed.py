"""Ray Tune's trial without a scheduler: a batch of settings in one process.

A trial of Ray's costs tenths of a second and more; a fit may cost hundredths. So one of Ray's
trials measures many settings, each reported as a row of its own. Settings of routers that train by
epochs are reported on the way, too, with a checkpoint, as often as `Pace` says.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from waypost.report.numbers import plain
from waypost.tune.sweep.checkpoints import Kept, first_whole, send
from waypost.tune.sweep.journal import Row, Task
from waypost.tune.sweep.lockstep import Pace, trained
from waypost.tune.sweep.measuring import measure, until
from waypost.tune.sweep.problem import Problem

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
