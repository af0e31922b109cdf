"""Measure settings of routers without epochs, in this process."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from typing import Any, cast

import numpy as np

from waypost.contracts.epochs import EpochRouter
from waypost.contracts.records import watching
from waypost.contracts.router import TrainableRouter
from waypost.contracts.routing_data import RoutingData
from waypost.pipelines.evaluation.inputs import reason
from waypost.tune.folds import Choices, CrossValidation
from waypost.tune.journal import Task, TrialRow
from waypost.tune.trial_queue import SLICE_S, TrialQueue, row_of

logger = logging.getLogger(__name__)


def measure(cv: CrossValidation, task: Task) -> TrialRow:
    """Fit a setting on each fold and score all choices together; a failure is a failed row."""
    start = time.perf_counter()

    def row(**found: object) -> TrialRow:
        return row_of(task, time.perf_counter() - start, **found)

    try:
        choices = Choices(len(cv.data))
        for part in cv.split(task.deal):
            router = cv.router_of(task.parameters)
            with watching(None):
                fit(router, part.training, task.schedule)
            choices.add(part.rows, cv.swept(router, part))
        return row(**evaluate_choices(cv, choices))
    # Routers can be third-party code; one that fails must not end the sweep.
    except Exception as error:
        logger.debug("trial %d failed", task.number, exc_info=True)
        return row(status="failed", score=None, error=reason(error))


def fit(router: TrainableRouter, data: RoutingData, schedule: list[Any]) -> None:
    """Fit a router, by a schedule if there is one (see `EpochTraining.schedule`).

    Args:
        router: An untrained router.
        data: As for `TrainableRouter.fit`.
        schedule: ``[epoch, values]`` pairs; empty for routers that do not train by epochs.
    """
    if not schedule:
        router.fit(data)
        return
    changes = {int(start): dict(values) for start, values in schedule}
    epochs = cast(EpochRouter, router)
    epochs.set_params(**changes.get(0, {}))
    training = epochs.fit_epochs(data)
    while next(training, None) is not None:
        if training.done in changes:
            training.change(**changes[training.done])
    training.settle()


def evaluate_choices(cv: CrossValidation, choices: Choices) -> dict[str, object]:
    """Return status, score and pseudo-values of the choices on all questions."""
    score, blocks = cv.evaluator.evaluate(choices.quality, choices.cost)
    if not np.isfinite(score):
        why = "none of its choices was measured"
        if cv.evaluator.metric.name == "cost_at_quality":
            why = f"reaches {cv.evaluator.metric.share:g} of the best single LLM's quality nowhere"
        return {"status": "failed", "score": None, "error": why}
    numbers = [float(f"{value:.9g}") if np.isfinite(value) else None for value in blocks]
    return {"status": "done", "score": score, "blocks": numbers}


def until(tasks: Sequence[Task], limit_s: float) -> Iterator[Task]:
    """Yield the first task, then further ones until ``limit_s`` seconds have passed."""
    start = time.monotonic()
    for place, task in enumerate(tasks):
        if place and time.monotonic() - start >= limit_s:
            return
        yield task


def measure_here(cv: CrossValidation, queue: TrialQueue) -> None:
    """Measure all tasks of a queue in this process, one after another, without Ray."""
    while tasks := queue.take():
        for task in until(tasks, min(SLICE_S, queue.left_s)):
            queue.record([measure(cv, task)])
        queue.give_back(tasks)
