"""Run a sweep: search, choice, fit of the winner on the training split, and one test.

`run_sweep` is the entry point. `refit` and `on_test` are the steps after the choice.
"""

from __future__ import annotations

import logging
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from waypost.config import settings
from waypost.contracts.artifact import MANIFEST, read_manifest
from waypost.contracts.errors import ConfigError, Fault, WaypostError
from waypost.contracts.routing_data import read_routing_data
from waypost.contracts.tables import split_path
from waypost.encoders import make_encoder
from waypost.metrics.intervals import interval
from waypost.metrics.measure import Measured
from waypost.pipelines.data.embedding_cache import query_embeddings
from waypost.pipelines.data.embeddings import Progress
from waypost.pipelines.evaluation.run import EvaluateConfig, evaluate
from waypost.pipelines.train import TrainConfig, train
from waypost.ray_session import ray_session
from waypost.registry import router_class
from waypost.report.drawing import require_matplotlib
from waypost.storage import Place, local_copy, mirrored
from waypost.tune import report as reports
from waypost.tune.config import TuneConfig, defaults_of
from waypost.tune.dashboard import EventWriter
from waypost.tune.folds import CrossValidation
from waypost.tune.journal import Journal, Task, TrialRow
from waypost.tune.searchers import Proposals, make_searcher
from waypost.tune.select import choose, finalists, given
from waypost.tune.space import SearchSpace
from waypost.tune.trial import fit
from waypost.tune.trial_queue import TrialQueue

logger = logging.getLogger(__name__)

BEST = "best"
TRIALS = "trials.jsonl"
TENSORBOARD = "tensorboard"
RAY = "ray"

_NOT_SUBJECT = {"budget", "resources", "finalists", "repeats", "encoder"}
"""Config keys that can change between two runs of the same sweep."""


def refit(
    config: TuneConfig,
    parameters: Mapping[str, Any],
    tuning: Mapping[str, Any],
    data: Path,
    target: Path,
    schedule: list[Any] | None = None,
) -> None:
    """Train a setting as ``waypost train`` does and write its artifact.

    Args:
        config: The sweep.
        parameters: Parameters of the router.
        tuning: Facts of the sweep for the manifest's metrics; JSON-able.
        data: Routing-data folder.
        target: Folder of the artifact.
        schedule: Changes of parameters during training; see `trial.fit`.

    Raises:
        WaypostError: See `train`.
    """
    wanted = TrainConfig(
        router=config.router,
        parameters=dict(parameters),
        encoder=config.encoder,
        seed=config.seed,
        folds=0,
    )
    by = partial(fit, schedule=schedule or [])
    train(wanted, data, target, further={"tuning": dict(tuning)}, fit=by)


def on_test(
    config: TuneConfig, data: Path, tuned: Path, default: Path | None, trials: int
) -> dict[str, Any] | None:
    """Measure the tuned router, and the default if it differs, on the test split.

    Args:
        config: The sweep.
        data: Routing-data folder.
        tuned: Artifact of the winner.
        default: Artifact of the default; None if the default won.
        trials: Number of trials of the search.

    Returns:
        Numbers by router, and tuned less default with paired 95 % intervals; None without a test
        split.
    """
    if not split_path(data, "test").is_file():
        return None
    artifacts = (tuned, default) if default is not None else (tuned,)
    asked = EvaluateConfig(
        routers=tuple(str(path.absolute()) for path in artifacts),
        encoder=config.encoder,
        seed=config.seed,
    )
    done = evaluate(asked, data)
    labels = ("tuned", "default")
    routers: dict[str, Measured] = dict(zip(labels, done.routers.values(), strict=False))
    if done.report["failed"] or len(routers) < len(artifacts):
        return {
            "queries": len(done.comparison.test),
            "trials": trials,
            "failed": done.report["failed"],
        }
    found: dict[str, Any] = {"queries": len(done.comparison.test), "trials": trials}
    shown = {name: one.numbers for name, one in routers.items()}
    single = done.reference["best_single"].numbers
    for key in ("quality", "aiq", "cost_usd_per_1k"):
        found[key] = {name: numbers.get(key) for name, numbers in shown.items()}
        found[key]["best single LLM"] = single.get(key)
    if default is not None:
        for key, prefix in (("quality", ""), ("aiq", "aiq_")):
            found |= _difference(routers["tuned"], routers["default"], key, prefix)
    return found


def _difference(
    tuned: Measured, default: Measured, key: str, prefix: str
) -> dict[str, float | None]:
    """Return tuned less default; bootstrap draws are paired, as they have the same questions."""
    found: dict[str, float | None] = {
        f"{prefix}difference": tuned.numbers[key] - default.numbers[key],
        f"{prefix}low": None,
        f"{prefix}high": None,
    }
    if key in tuned.draws and key in default.draws:
        low, high = interval(np.asarray(tuned.draws[key]) - np.asarray(default.draws[key]))
        found |= {f"{prefix}low": low, f"{prefix}high": high}
    return found


@dataclass(frozen=True)
class SweepCallbacks:
    """Progress callbacks of a sweep.

    Attributes:
        embedded: Called with (done, total) texts.
        begun: Called before the first trial with the folder, the address of Ray's dashboard, the
            rows of earlier runs, and the mode ("max" or "min").
        row: Called with each row, and the maximum number of trials.
        epoch: Called with an intermediate row of a running trial, and the maximum number of trials.
        step: Called with the name of a step outside the search.
    """

    embedded: Progress | None = None
    begun: Callable[[Path, str | None, list[TrialRow], str], None] = lambda *facts: None
    row: Callable[[TrialRow, int], None] = lambda row, total: None
    epoch: Callable[[TrialRow, int], None] = lambda row, total: None
    step: Callable[[str], None] = lambda what: None


def run_sweep(
    config: TuneConfig,
    data_folder: str | Place,
    out: str | Place,
    *,
    fresh: bool = False,
    dashboard: bool = False,
    command: str = "",
    callbacks: SweepCallbacks | None = None,
) -> dict[str, Any]:
    """Search, choose, fit the winner, test it once, and write the results.

    Rows in ``out`` of the same sweep are not measured again.

    Args:
        config: A checked config; see `read_sweep`.
        data_folder: Routing data; a path or URI.
        out: Folder of the results; a path or URI.
        fresh: Delete an earlier sweep's results in ``out`` first.
        dashboard: Whether a Ray started here has a dashboard.
        command: Command line, for the report.
        callbacks: Progress callbacks.

    Returns:
        The content of report.json.

    Raises:
        ConfigError: ``out`` has another sweep or other files, or a trial needs more than Ray has.
        SchemaError: The data is invalid or too small, or every trial failed (with one reason).
        MissingExtraError, WeightsError, StorageError: See their docstrings.
    """
    require_matplotlib()
    with mirrored(out) as folder, local_copy(data_folder) as data:
        _clear(folder, fresh)
        sweep = _Sweep(config, data, folder, command, callbacks or SweepCallbacks())
        try:
            return sweep.run(dashboard)
        finally:
            sweep.journal.close()


def _clear(folder: Path, fresh: bool) -> None:
    """Check that the folder is empty or has a sweep; with ``fresh`` delete the sweep."""
    if not folder.exists() or not any(folder.iterdir()):
        return
    if not (folder / TRIALS).is_file():
        problem = "has other files than those of a sweep; give the name of a new folder"
        raise ConfigError([Fault(str(folder), problem)])
    if fresh:
        for name in (TENSORBOARD, RAY, BEST):
            shutil.rmtree(folder / name, ignore_errors=True)
        for path in folder.iterdir():
            if path.suffix in {".jsonl", ".json", ".md", ".png", ".parquet"}:
                path.unlink()


class _Sweep:
    def __init__(
        self, config: TuneConfig, data: Path, folder: Path, command: str, callbacks: SweepCallbacks
    ) -> None:
        self.config, self.data, self.folder = config, data, folder
        self.command, self.callbacks = command, callbacks
        self.sign = 1.0 if config.mode == "max" else -1.0
        self.space = SearchSpace(config, defaults_of(config))
        encoder = make_encoder(config.encoder)
        compares = getattr(router_class(config.router), "needs_responses", False)
        training = read_routing_data(data, "train", responses=compares)
        subject = {
            **config.model_dump(mode="json", by_alias=True, exclude=_NOT_SUBJECT),
            "encoder": encoder.id,
            "data": training.digest,
        }
        self.journal = Journal(folder / TRIALS, subject)
        try:
            vectors = query_embeddings(training.queries, encoder, data, callbacks.embedded)
            training = training.with_embeddings(vectors, encoder.id)
            self.cv = CrossValidation.of(config, training, settings().plugin_paths)
            self.events = EventWriter(folder / TENSORBOARD, config.metric.label)
        except BaseException:
            self.journal.close()
            raise
        self.proposals = Proposals(
            self.space, make_searcher(config, self.space), self.journal, config.budget.trials,
            self.sign,
        )  # fmt: skip

    def run(self, dashboard: bool) -> dict[str, Any]:
        self._measure(dashboard)
        rows = self.journal.search()
        again = [row for row in self.journal.rows.values() if row.deal]
        choice = choose(rows, again, self.sign, self.config.seed)
        for row in again:
            if row.status == "failed":
                logger.warning("trial %d failed when measured again: %s", row.number, row.error)
        tuning = {
            "trials": len(rows),
            "trial": choice.row.number,
            "metric": self.config.metric.label,
            "cross_validated": choice.score,
            "default_cross_validated": choice.default_score,
            "gain": choice.gain,
            "gain_se": choice.gain_se,
            "chosen_gain": choice.chosen_gain,
            "why": choice.why,
            "setting": choice.row.setting,
            "data_digest": self.cv.data.digest,
        }
        facts = {
            "data_digest": self.cv.data.digest,
            "queries": len(self.cv.data),
            "llms": list(self.cv.data.names),
            "command": self.command,
        }
        found = reports.describe(self.config, self.space, rows, choice, facts)
        found["test"] = self._finish(found["taken"], tuning)
        self.callbacks.step("writing the report")
        return reports.write(
            self.folder, found, self.config, self.space, list(self.journal.rows.values())
        )

    def _measure(self, dashboard: bool) -> None:
        """Run all trials that the journal lacks."""
        limit = self.config.budget.time_s
        search = TrialQueue(self.journal, 1, proposals=self.proposals, time_s=limit)
        if search.is_done and not self._finalist_tasks():
            self._begun(None)
            return
        threads = max(int(self.config.resources.cpu), 1)
        tell = self.callbacks.step
        with ray_session(dashboard=dashboard, threads=threads, tell=tell) as address:
            from waypost.tune.ray_tune import measure_packed, trial_runner, workers_of

            workers, folder = workers_of(self.config.resources), self.folder / RAY
            self._begun(address)
            queue = self._desk(workers)
            if not queue.is_done:
                untrained = self.cv.router_of(self.config.fixed)
                trial_runner(self.config, untrained, folder)(self.cv, queue)
            if tasks := self._begin_final():
                queue = TrialQueue(
                    self.journal, workers, tasks, on_row=self._on_row, on_epoch=self._on_epoch
                )
                measure_packed(self.cv, queue, self.config.resources, folder)
        shutil.rmtree(self.folder / RAY, ignore_errors=True)

    def _desk(self, workers: int) -> TrialQueue:
        """Return the queue of the search; for fifo it also holds the finalists' tasks."""
        return TrialQueue(
            self.journal,
            workers,
            proposals=self.proposals,
            time_s=self.config.budget.time_s,
            after=self._begin_final if self.config.scheduler == "fifo" else None,
            on_row=self._on_row,
            on_epoch=self._on_epoch,
        )

    def _begun(self, address: str | None) -> None:
        self.callbacks.begun(self.folder, address, self.journal.search(), self.config.mode)

    def _begin_final(self) -> list[Task]:
        if tasks := self._finalist_tasks():
            self.callbacks.step("measuring the best ones and the default again")
        return tasks

    def _finalist_tasks(self) -> list[Task]:
        chosen = finalists(self.journal.search(), self.sign, self.config.finalists)
        return [
            Task(row.number, row.key, row.setting, self._trained(row), deal, row.schedule)
            for row in (chosen if len(chosen) > 1 else [])
            for deal in range(1, self.config.repeats + 1)
            if (row.key, deal) not in self.journal.rows
        ]

    def _trained(self, row: TrialRow) -> dict[str, Any]:
        """Return the parameters of the router of a row."""
        return self.space.parameters(given(row))

    def _on_row(self, row: TrialRow) -> None:
        self.events.write(row)
        self.callbacks.row(row, self.config.budget.trials)

    def _on_epoch(self, row: TrialRow) -> None:
        self.events.write_epochs(row)
        self.callbacks.epoch(row, self.config.budget.trials)

    def _finish(self, taken: dict[str, Any], tuning: dict[str, Any]) -> dict[str, Any] | None:
        """Fit the winner, unless its artifact exists, and test it beside the default."""
        best = self.folder / BEST
        if not _is_of(best, tuning):
            self.callbacks.step("fitting the winner on the whole training split")
            schedule = taken["schedule"]
            refit(self.config, taken["parameters"], tuning, self.data, best, schedule)
        self.callbacks.step("testing it")
        if taken["is_default"]:
            return on_test(self.config, self.data, best, None, tuning["trials"])
        with tempfile.TemporaryDirectory() as work:
            default = Path(work) / "default"
            try:
                refit(self.config, self.config.fixed, {}, self.data, default)
            except WaypostError as error:
                logger.warning("the default cannot be fitted: %s", error)
                return on_test(self.config, self.data, best, None, tuning["trials"])
            return on_test(self.config, self.data, best, default, tuning["trials"])


def _is_of(artifact: Path, tuning: dict[str, Any]) -> bool:
    if not (artifact / MANIFEST).is_file():
        return False
    try:
        return bool(read_manifest(artifact).metrics.get("tuning") == tuning)
    except WaypostError:
        return False
