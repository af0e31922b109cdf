"""Ray Tune around the queue of trials: starts them, gives them batches, and brings their rows."""

from __future__ import annotations

import json
import logging
import math
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
from waypost.tune.epoch_trial import left_behind
from waypost.tune.folds import Problem
from waypost.tune.journal import Row, Task
from waypost.tune.ray_trial import epoch_trial, packed_trial, read_rows, read_tasks, write_tasks
from waypost.tune.trial import measure as measure_one
from waypost.tune.trial_queue import SLICE_S, Desk, row_of

REDUCTION = 3
GRACE = 9
"""A trial is judged first after a ninth of the most epochs."""

PERTURBATIONS = 4
RESAMPLED = 0.25
DEFAULT_EPOCHS = 100


def most_epochs(config: TuneConfig, defaults: Mapping[str, Any]) -> int:
    """Return the most epochs of any trial, by the parameter of that name."""
    if "epochs" in config.space:
        return max(int(value) for value in config.space["epochs"].extremes)
    found = {**defaults, **config.fixed}.get("epochs", DEFAULT_EPOCHS)
    return int(found)


def make_scheduler(config: TuneConfig, epochs: int, changeable: Sequence[str]) -> Any:
    """Build the scheduler.

    Args:
        config: The sweep; its scheduler is not fifo.
        epochs: Most of any trial.
        changeable: Parameters that may change in training.
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
    """Return a value near another one, inside the space; sometimes any."""
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
    value = min(max(value, low), high)
    return round(value) if dimension.type == "randint" else value


_ENVIRONMENT = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # trials.jsonl and our events say it all
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # Ctrl-C ends the command; the same again goes on
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
}

CRASHES = 2
"""How often a trial whose worker died goes on from its last checkpoint."""


def workers_of(resources: Resources) -> int:
    """Return how many trials run at a time on the Ray that is initialised.

    Of a Ray of this machine alone at most as many as there are real cores.

    Raises:
        ConfigError: not even one fits.
    """
    import os

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
        raise ConfigError([Fault("resources", f"a trial takes {wants}; this Ray has {has}")])
    return int(min(fits))


def measurer(
    config: TuneConfig, router: TrainableRouter, folder: Path
) -> Callable[[Problem, Desk], None]:
    """Return what measures the trials of a search on Ray.

    Args:
        config: The sweep.
        router: Any of its routers; it says how many epochs there are and what may change.
        folder: Where Ray keeps its own record.
    """
    if config.scheduler == "fifo":
        return partial(measure_packed, resources=config.resources, folder=folder)
    assert isinstance(router, EpochRouter)  # the config was checked
    changeable = router.changeable_parameters
    scheduler = make_scheduler(config, most_epochs(config, router.get_params()), changeable)
    sign = 1.0 if config.mode == "max" else -1.0

    def suggestion(tasks: Sequence[Task], desk: Desk) -> dict[str, Any]:
        (task,) = tasks
        changed = {key: value for key, value in task.setting.items() if key in changeable}
        (resume,) = _left(folder, tasks)
        return {"trial": {"tasks": write_tasks(tasks), "changed": changed, "resume": resume}}

    def measure(problem: Problem, desk: Desk) -> None:
        from ray import tune

        desk.most = 1
        trial = tune.with_parameters(epoch_trial, problem=problem, sign=sign)
        # Hyperband and pbt set trials aside for others, so that more are begun than can run.
        workers = desk.workers if config.scheduler == "asha" else None
        searcher = desk_searcher(desk, suggestion)
        if config.scheduler == "pbt":
            # the default is no member of the population: it might end as another one's copy
            first = desk.take()
            desk.bring([measure_one(problem, task) for task in first if task.number == 0])
            desk.give_back(first)
            fit_population(trial, searcher, config.resources, folder, scheduler)
            return
        fit(trial, searcher, workers, config.resources, folder, scheduler, crashes=CRASHES)

    return measure


def measure_packed(problem: Problem, desk: Desk, resources: Resources, folder: Path) -> None:
    """Measure all that a desk hands out, many settings in each of Ray Tune's trials.

    Args:
        problem: What they are measured on; put into the object store once.
        desk: Hands out and takes in.
        resources: Of one trial.
        folder: Where Ray keeps its own record.
    """
    from ray import tune

    def suggestion(tasks: Sequence[Task], desk: Desk) -> dict[str, Any]:
        return {
            "tasks": write_tasks(tasks),
            "limit_s": min(SLICE_S, desk.left_s),
            "resume": json.dumps(_left(folder, tasks)),
        }

    trial = tune.with_parameters(packed_trial, problem=problem)
    fit(trial, desk_searcher(desk, suggestion), desk.workers, resources, folder)


def _left(folder: Path, tasks: Sequence[Task]) -> list[list[str]]:
    """Return the checkpoints of each task, as text."""
    found = left_behind(folder)
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
    """Run Ray Tune until the searcher has nothing more.

    Args:
        trial: Trainable function.
        searcher: One of Ray's kind.
        workers: Trials that have begun and not ended; None is any number.
        resources: Of one trial.
        folder: Where Ray keeps its own record, in a folder of this run.
        scheduler: One of Ray's kind; None runs all to their end.
        crashes: How often Ray itself starts a trial again from its checkpoint.
        space: Ray's parameter space, where there is no searcher.
        callbacks: Ray's.
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
    """Run Ray Tune for pbt, which takes no searcher: all trials are there from the beginning.

    Args:
        trial: Trainable function.
        searcher: `desk_searcher`; it is asked for all trials, and told by a callback.
        resources: As in `fit`; so are the others.
        folder: Where Ray keeps its own record.
        scheduler: Population based training.
    """
    from ray import tune

    wanted: dict[str, dict[str, Any]] = {}
    while isinstance(found := searcher.suggest(f"member {len(wanted)}"), dict):
        wanted[f"member {len(wanted)}"] = found["trial"]
    member_of = {one["tasks"]: name for name, one in wanted.items()}
    names: dict[str, str] = {}

    class Telling(tune.Callback):  # type: ignore[misc]
        def on_trial_start(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
            # the first time; later it may have another one's config
            names.setdefault(trial.trial_id, member_of[trial.config["trial"]["tasks"]])

        def on_trial_result(
            self, iteration: int, trials: Any, trial: Any, result: Any, **info: Any
        ) -> None:
            searcher.on_trial_result(names[trial.trial_id], result)

        def on_trial_complete(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
            searcher.on_trial_complete(names[trial.trial_id])

        def on_trial_error(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
            # Ray has begun it again as often as it may
            searcher.fail(names[trial.trial_id])

        def __reduce__(self) -> tuple[type, tuple[str]]:
            return str, ("desk",)

    space = {"trial": tune.grid_search(list(wanted.values()))}
    fit(trial, None, None, resources, folder, scheduler, CRASHES, space, [Telling()])


def _folder_name(trial: Any) -> str:
    first = read_tasks(trial.config.get("trial", trial.config)["tasks"])[0]
    return f"{first.key}-{trial.trial_id}"


def desk_searcher(desk: Desk, suggestion: Callable[[Sequence[Task], Desk], dict[str, Any]]) -> Any:
    """Return the desk as a searcher of Ray Tune's: what it suggests is a batch.

    Args:
        desk: Hands out and takes in.
        suggestion: The config of a trial of Ray's, from the batch.
    """
    from ray.tune.search import Searcher

    class DeskSearcher(Searcher):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.batches: dict[str, list[Task]] = {}
            self.unfinished: dict[str, list[Row]] = {}

        def set_search_properties(self, metric: Any, mode: Any, config: Any, **spec: Any) -> bool:
            return True

        def suggest(self, trial_id: str) -> Any:
            tasks = desk.take()
            if not tasks:
                return Searcher.FINISHED if desk.is_done else None
            self.batches[trial_id] = tasks
            return suggestion(tasks, desk)

        def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
            rows = own_rows(read_rows(result.get("rows", "[]")), self.batches.get(trial_id, []))
            desk.bring([row for row in rows if row.status != "stopped"])
            self.unfinished[trial_id] = [row for row in rows if row.status == "stopped"]
            desk.hear(self.unfinished[trial_id])

        def on_trial_complete(
            self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
        ) -> None:
            if result is not None:
                self.on_trial_result(trial_id, result)
            if not error:
                desk.bring(self.unfinished.pop(trial_id, []))
            died = "it was killed, or ran out of memory" if error else None
            desk.give_back(self.batches.pop(trial_id, []), died)

        def fail(self, trial_id: str) -> None:
            """Write down that a trial cannot be measured."""
            error = "its worker died again and again"
            rows = [
                row_of(task, 0.0, status="failed", score=None, error=error)
                for task in self.batches.pop(trial_id, [])
            ]
            desk.bring(rows)

        def save(self, checkpoint_path: str) -> None:
            """Write nothing: trials.jsonl is the record."""

        def restore(self, checkpoint_path: str) -> None:
            """Read nothing."""

        def __reduce__(self) -> tuple[type, tuple[str]]:
            # Tuner pickles itself for a restore of its own; the desk stays in this process.
            return str, ("desk",)

        def __deepcopy__(self, memo: Any) -> DeskSearcher:
            return self

    return DeskSearcher()


def own_rows(rows: Sequence[Row], batch: Sequence[Task]) -> list[Row]:
    """Return rows as those of the batch.

    Under pbt a trial goes on with another one's settings and state: the row is still its own, and
    says what was trained.
    """
    known = {task.place for task in batch}
    if len(batch) != 1 or all(row.place in known for row in rows):
        return list(rows)
    (own,) = batch
    return [
        replace(row, number=own.number, key=own.key, setting=own.setting, trained=row.setting)
        for row in rows
    ]
