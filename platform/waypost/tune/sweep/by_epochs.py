"""Ray Tune's trial for routers that train by epochs under a scheduler: one setting."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from waypost.tune.sweep.checkpoints import Kept, first_whole, send
from waypost.tune.sweep.lockstep import trained
from waypost.tune.sweep.packed import read_tasks, write_rows
from waypost.tune.sweep.problem import Problem

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
