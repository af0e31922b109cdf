"""Run the trials of a search on Ray Tune: schedulers, searcher, and the Tuner itself."""

from __future__ import annotations

import json
import logging
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from waypost.config import set_default_environment
from waypost.contracts.epochs import EpochRouter
from waypost.contracts.errors import ConfigError, Fault
from waypost.contracts.router import TrainableRouter
from waypost.tune.config import Dimension, Range, Resources, TuneConfig
from waypost.tune.epoch_trial import find_checkpoints
from waypost.tune.folds import CrossValidation
from waypost.tune.journal import Task, TrialRow
from waypost.tune.ray_trial import epoch_trial, packed_trial, read_rows, read_tasks, write_tasks
from waypost.tune.trial import measure as measure_one
from waypost.tune.trial_queue import SLICE_S, TrialQueue, row_of

REDUCTION = 3
GRACE = 9
"""The first early-stopping decision comes after 1 / `GRACE` of the maximum number of epochs."""

PERTURBATIONS = 4
RESAMPLED = 0.25
DEFAULT_EPOCHS = 100


def most_epochs(config: TuneConfig, defaults: Mapping[str, Any]) -> int:
    """Return the largest value of the parameter ``epochs`` over all trials."""
    if "epochs" in config.space:
        return max(int(value) for value in config.space["epochs"].extremes)
    found = {**defaults, **config.fixed}.get("epochs", DEFAULT_EPOCHS)
    return int(found)


def make_scheduler(config: TuneConfig, epochs: int, changeable: Sequence[str]) -> Any:
    """Build the scheduler.

    Args:
        config: The sweep; its scheduler is not fifo.
        epochs: Maximum epochs of any trial.
        changeable: Parameters that may change during training.
    """
    from ray.tune import schedulers

    common = {"time_attr": "epoch", "metric": "score", "mode": config.mode}
    if config.scheduler == "asha":
        grace = max(1, round(epochs / GRACE))
        return schedulers.ASHAScheduler(
            **common, max_t=epochs + 1, grace_period=grace, reduction_factor=REDUCTION
        )
    if config.scheduler == "hyperband":
        return schedulers.HyperBandScheduler(**common, max_t=epochs + 1, reduction_factor=REDUCTION)
    space = {name: one for name, one in config.space.items() if name in changeable}
    draw = np.random.default_rng(config.seed)

    def explore(trial: dict[str, Any]) -> dict[str, Any]:
        now = trial["trial"]["changed"].items()
        changed = {key: _near(space[key], value, draw) for key, value in now}
        return {"trial": {**trial["trial"], "changed": changed}}

    return schedulers.PopulationBasedTraining(
        **common,
        perturbation_interval=max(1, epochs // PERTURBATIONS),
        custom_explore_fn=explore,
        log_config=False,
    )


def _near(dimension: Dimension, value: Any, draw: np.random.Generator) -> Any:
    """Perturb a value inside its dimension; with probability `RESAMPLED` draw a new one."""
    if not isinstance(dimension, Range):
        values = dimension.values
        if draw.random() < RESAMPLED:
            return values[int(draw.integers(len(values)))]
        place = values.index(value) + int(draw.choice((-1, 1)))
        return values[min(max(place, 0), len(values) - 1)]
    low, high = dimension.extremes
    if draw.random() < RESAMPLED:
        value = low + draw.random() * (high - low)
        if dimension.type == "loguniform":
            value = low * (high / low) ** draw.random()
    else:
        value *= float(draw.choice((0.8, 1.2)))
    return dimension.fit(value)


_ENVIRONMENT = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # trials.jsonl and our event files replace them
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # Ctrl-C ends the command, which can be resumed
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
}

CRASHES = 2
"""Restarts from the last checkpoint of a trial whose worker died."""


def workers_of(resources: Resources) -> int:
    """Return the number of concurrent trials on the connected Ray.

    On a single machine the number of real cores is the upper bound.

    Raises:
        ConfigError: The resources of a trial exceed those of Ray.
    """
    import ray

    there = ray.cluster_resources()
    cpus = there.get("CPU", 0.0)
    if len(ray.nodes()) == 1:
        cpus = min(cpus, max(os.cpu_count() or 1, math.ceil(resources.cpu)))
    fits = [cpus / resources.cpu]
    if resources.gpu:
        fits.append(there.get("GPU", 0.0) / resources.gpu)
    if min(fits) < 1:
        has = f"{there.get('CPU', 0):g} CPU and {there.get('GPU', 0):g} GPU"
        wants = f"cpu {resources.cpu:g} and gpu {resources.gpu:g}"
        raise ConfigError([Fault("resources", f"a trial needs {wants}; this Ray has {has}")])
    return int(min(fits))


def trial_runner(
    config: TuneConfig, router: TrainableRouter, folder: Path
) -> Callable[[CrossValidation, TrialQueue], None]:
    """Return the function that runs the trials of a search on Ray.

    Args:
        config: The sweep.
        router: Any of its routers: gives the number of epochs and the changeable parameters.
        folder: Folder of Ray's own files.
    """
    if config.scheduler == "fifo":
        return partial(measure_packed, resources=config.resources, folder=folder)
    assert isinstance(router, EpochRouter)  # the config was checked
    changeable = router.changeable_parameters
    scheduler = make_scheduler(config, most_epochs(config, router.get_params()), changeable)
    sign = 1.0 if config.mode == "max" else -1.0

    def suggestion(tasks: Sequence[Task], queue: TrialQueue) -> dict[str, Any]:
        (task,) = tasks
        changed = {key: value for key, value in task.setting.items() if key in changeable}
        (resume,) = _left(folder, tasks)
        return {"trial": {"tasks": write_tasks(tasks), "changed": changed, "resume": resume}}

    def measure(cv: CrossValidation, queue: TrialQueue) -> None:
        from ray import tune

        queue.max_batch = 1
        trial = tune.with_parameters(epoch_trial, cv=cv, sign=sign)
        # Hyperband and pbt pause trials, so more trials must be started than can run at once.
        workers = queue.workers if config.scheduler == "asha" else None
        searcher = queue_searcher(queue, suggestion)
        if config.scheduler == "pbt":
            # The default runs outside the population; inside it could become a copy of a member.
            first = queue.take()
            queue.record([measure_one(cv, task) for task in first if task.number == 0])
            queue.give_back(first)
            fit_population(trial, searcher, config.resources, folder, scheduler)
            return
        fit(trial, searcher, workers, config.resources, folder, scheduler, crashes=CRASHES)

    return measure


def measure_packed(
    cv: CrossValidation, queue: TrialQueue, resources: Resources, folder: Path
) -> None:
    """Run all tasks of a queue, many settings in each Ray Tune trial.

    Args:
        cv: Data and folds; put into the object store once.
        queue: The tasks.
        resources: Resources of one trial.
        folder: Folder of Ray's own files.
    """
    from ray import tune

    def suggestion(tasks: Sequence[Task], queue: TrialQueue) -> dict[str, Any]:
        return {
            "tasks": write_tasks(tasks),
            "limit_s": min(SLICE_S, queue.left_s),
            "resume": json.dumps(_left(folder, tasks)),
        }

    trial = tune.with_parameters(packed_trial, cv=cv)
    fit(trial, queue_searcher(queue, suggestion), queue.workers, resources, folder)


def _left(folder: Path, tasks: Sequence[Task]) -> list[list[str]]:
    """Return the checkpoint folders of each task, as text."""
    found = find_checkpoints(folder)
    return [[str(path.absolute()) for path in found.get(task.place, [])] for task in tasks]


def fit(
    trial: Any,
    searcher: Any,
    workers: int | None,
    resources: Resources,
    folder: Path,
    scheduler: Any = None,
    crashes: int = 0,
    space: dict[str, Any] | None = None,
    callbacks: Sequence[Any] = (),
) -> None:
    """Run Ray Tune until the searcher is exhausted.

    Args:
        trial: Trainable function.
        searcher: A Ray Tune searcher.
        workers: Maximum concurrent trials; None is no limit.
        resources: Resources of one trial.
        folder: Parent of the folder that Ray writes for this run.
        scheduler: A Ray Tune scheduler; None runs every trial to its end.
        crashes: Maximum restarts of a trial from its checkpoint.
        space: Ray's parameter space, if there is no searcher.
        callbacks: Ray Tune callbacks.
    """
    from ray import tune

    set_default_environment(_ENVIRONMENT)
    for name in ("ray.tune", "ray.train", "ray.air"):
        logging.getLogger(name).setLevel(logging.ERROR)
    bundle = {"cpu": resources.cpu, **({"gpu": resources.gpu} if resources.gpu else {})}
    tune.Tuner(
        tune.with_resources(trial, bundle),
        param_space=space,
        tune_config=tune.TuneConfig(
            search_alg=searcher,
            scheduler=scheduler,
            num_samples=-1 if space is None else 1,
            max_concurrent_trials=workers,
            reuse_actors=True,
            trial_dirname_creator=_folder_name,
        ),
        run_config=tune.RunConfig(
            name=f"{time.time_ns():x}",
            storage_path=str(folder.absolute()),
            verbose=0,
            callbacks=list(callbacks),
            failure_config=tune.FailureConfig(max_failures=crashes),
            checkpoint_config=tune.CheckpointConfig(num_to_keep=4),
        ),
    ).fit()


def fit_population(
    trial: Any, searcher: Any, resources: Resources, folder: Path, scheduler: Any
) -> None:
    """Run Ray Tune for pbt, which takes no searcher: all trials exist from the start.

    Args:
        trial: Trainable function.
        searcher: A `queue_searcher`: suggests all trials, receives results through a callback.
        resources: Resources of one trial.
        folder: Parent of the folder that Ray writes for this run.
        scheduler: Population based training.
    """
    from ray import tune

    wanted: dict[str, dict[str, Any]] = {}
    while isinstance(found := searcher.suggest(f"member {len(wanted)}"), dict):
        wanted[f"member {len(wanted)}"] = found["trial"]
    member_of = {one["tasks"]: name for name, one in wanted.items()}
    names: dict[str, str] = {}

    class Forward(tune.Callback):  # type: ignore[misc]
        def on_trial_start(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
            # Only at the first start: later pbt may give the trial the config of another one.
            names.setdefault(trial.trial_id, member_of[trial.config["trial"]["tasks"]])

        def on_trial_result(
            self, iteration: int, trials: Any, trial: Any, result: Any, **info: Any
        ) -> None:
            searcher.on_trial_result(names[trial.trial_id], result)

        def on_trial_complete(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
            searcher.on_trial_complete(names[trial.trial_id])

        def on_trial_error(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
            # Ray has used up its restarts.
            searcher.fail(names[trial.trial_id])

        def __reduce__(self) -> tuple[type, tuple[str]]:
            return str, ("queue",)

    space = {"trial": tune.grid_search(list(wanted.values()))}
    fit(trial, None, None, resources, folder, scheduler, CRASHES, space, [Forward()])


def _folder_name(trial: Any) -> str:
    first = read_tasks(trial.config.get("trial", trial.config)["tasks"])[0]
    return f"{first.key}-{trial.trial_id}"


def queue_searcher(
    queue: TrialQueue, suggestion: Callable[[Sequence[Task], TrialQueue], dict[str, Any]]
) -> Any:
    """Return a Ray Tune searcher over a trial queue; each suggestion is a batch of tasks.

    Args:
        queue: The tasks.
        suggestion: Returns the config of a Ray trial for a batch.
    """
    from ray.tune.search import Searcher

    class QueueSearcher(Searcher):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.batches: dict[str, list[Task]] = {}
            self.unfinished: dict[str, list[TrialRow]] = {}

        def set_search_properties(self, metric: Any, mode: Any, config: Any, **spec: Any) -> bool:
            return True

        def suggest(self, trial_id: str) -> Any:
            tasks = queue.take()
            if not tasks:
                return Searcher.FINISHED if queue.is_done else None
            self.batches[trial_id] = tasks
            return suggestion(tasks, queue)

        def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
            rows = own_rows(read_rows(result.get("rows", "[]")), self.batches.get(trial_id, []))
            queue.record([row for row in rows if row.status != "stopped"])
            self.unfinished[trial_id] = [row for row in rows if row.status == "stopped"]
            queue.report_progress(self.unfinished[trial_id])

        def on_trial_complete(
            self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
        ) -> None:
            if result is not None:
                self.on_trial_result(trial_id, result)
            if not error:
                queue.record(self.unfinished.pop(trial_id, []))
            died = "it was killed, or ran out of memory" if error else None
            queue.give_back(self.batches.pop(trial_id, []), died)

        def fail(self, trial_id: str) -> None:
            """Record a trial as failed."""
            error = f"its worker died more than {CRASHES} times"
            rows = [
                row_of(task, 0.0, status="failed", score=None, error=error)
                for task in self.batches.pop(trial_id, [])
            ]
            queue.record(rows)

        def save(self, checkpoint_path: str) -> None:
            """Do nothing: trials.jsonl has all rows."""

        def restore(self, checkpoint_path: str) -> None:
            """Do nothing."""

        def __reduce__(self) -> tuple[type, tuple[str]]:
            # Tuner pickles itself for its own restore; the queue stays in this process.
            return str, ("queue",)

        def __deepcopy__(self, memo: Any) -> QueueSearcher:
            return self

    return QueueSearcher()


def own_rows(rows: Sequence[TrialRow], batch: Sequence[Task]) -> list[TrialRow]:
    """Return rows under the identity of their batch.

    Under pbt a trial can continue with the setting and state of another one. Its row keeps its own
    number and setting; ``trained`` holds the setting that was trained.
    """
    known = {task.place for task in batch}
    if len(batch) != 1 or all(row.place in known for row in rows):
        return list(rows)
    (own,) = batch
    return [
        replace(row, number=own.number, key=own.key, setting=own.setting, trained=row.setting)
        for row in rows
    ]
