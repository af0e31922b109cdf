"""Ray Tune's trial for routers that are fitted in one go: a batch of settings in one process.

A trial of Ray's costs tenths of a second and more; a fit may cost hundredths. So one of Ray's
trials measures many settings, each reported as a row of its own.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from waypost.report.numbers import plain
from waypost.tune.sweep.journal import Row, Task
from waypost.tune.sweep.measuring import measure_all
from waypost.tune.sweep.problem import Problem

REPORT_S = 1.0
"""Rows that come faster are reported together: a report waits for the driver to take it."""


def packed_trial(config: Mapping[str, Any], problem: Problem) -> None:
    """Measure a batch; what does not fit into its time is left to others."""
    from ray import tune

    waiting: list[Row] = []
    reported = time.monotonic()
    tasks = read_tasks(config["tasks"])
    for row in measure_all(problem, tasks, config["limit_s"]):
        waiting.append(row)
        if time.monotonic() - reported >= REPORT_S:
            tune.report({"rows": write_rows(waiting)})
            waiting, reported = [], time.monotonic()
    tune.report({"rows": write_rows(waiting)})


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
