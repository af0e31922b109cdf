"""Ray Tune's trial for routers that train by epochs under a scheduler: one setting."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from waypost.contracts.errors import WaypostError
from waypost.pipelines.evaluation.contenders import reason
from waypost.tune.sweep.desk import row_of
from waypost.tune.sweep.journal import Row
from waypost.tune.sweep.lockstep import Kept, Lockstep
from waypost.tune.sweep.packed import read_tasks, write_rows
from waypost.tune.sweep.problem import Problem

logger = logging.getLogger(__name__)

WORST = 1e9
"""Reported, with the metric's sign, where an epoch has no metric."""


def epoch_trial(config: Mapping[str, Any], problem: Problem, sign: float) -> None:
    """Train a setting and report each epoch; goes on from Ray's checkpoint, or one of before.

    Args:
        config: Its only key is ``trial``. There ``tasks`` holds one; ``changed`` are its parameters
            that may change; ``resume`` is a folder that an earlier run left of it, or empty.
        problem: What it is measured on.
        sign: 1 where a high metric is good, -1 where a low one is.
    """
    config = config["trial"]
    (task,) = read_tasks(config["tasks"])
    try:
        trial = _begin(config, problem)
        for row in trial:
            _report(row, trial, sign)
    # A router may be anybody's code, and one that fails must not end the sweep.
    except Exception as error:
        logger.debug("trial %d failed", task.number, exc_info=True)
        _report(row_of(task, 0.0, status="failed", score=None, error=reason(error)), None, sign)


def _begin(config: Mapping[str, Any], problem: Problem) -> Lockstep:
    from ray import tune

    (task,) = read_tasks(config["tasks"])
    checkpoint = tune.get_checkpoint()
    if checkpoint is not None:
        with checkpoint.as_directory() as folder:
            return Lockstep(problem, task, config["changed"], Kept.read(Path(folder)))
    if config["resume"]:
        try:
            return Lockstep(problem, task, config["changed"], Kept.read(Path(config["resume"])))
        except WaypostError as error:  # torn, or of another version: then from the beginning
            logger.warning("trial %d begins anew: %s", task.number, error)
    return Lockstep(problem, task, config["changed"])


def _report(row: Row, trial: Lockstep | None, sign: float) -> None:
    from ray import tune

    found = {
        "rows": write_rows([row]),
        "score": -sign * WORST if row.score is None else row.score,
        "epoch": len(row.epochs),
    }
    if trial is None or row.status != "stopped":
        tune.report(found)
        return
    with tempfile.TemporaryDirectory() as folder:
        trial.kept().write(Path(folder))
        tune.report(found, checkpoint=tune.Checkpoint.from_directory(folder))
