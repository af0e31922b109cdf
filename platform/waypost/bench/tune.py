"""Time sweeps on Ray beside a plain loop over the same fits.

Many cheap trials show the overhead of a sweep per trial. Trials whose fits take over a second show
the speed-up of more workers. Each way runs in its own process, with its own Ray.

Example: waypost bench tune --quick; waypost bench tune --costly none
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic import Field

from waypost.bench import harness
from waypost.bench._made_up import made_up
from waypost.bench._processes import Watched, watched
from waypost.bench.harness import Aim, BenchError, Result, Table, Tell, at_least, at_most
from waypost.contracts.errors import RegistryError
from waypost.report.numbers import fixed, percent
from waypost.tune.config import TuneConfig, check_sweep, defaults_of
from waypost.tune.folds import CrossValidation
from waypost.tune.journal import Journal, Task, TrialRow
from waypost.tune.searchers import Proposals, make_searcher
from waypost.tune.space import SearchSpace
from waypost.tune.trial_queue import TrialQueue

SPACES: dict[str, dict[str, Any]] = {
    "knnrouter": {
        "k": {"type": "randint", "low": 5, "high": 60},
        "weights": {"type": "choice", "values": ["uniform", "softmax"]},
        "kappa": {"type": "uniform", "low": 0, "high": 10},
    },
    "linearrouter": {"penalty": {"type": "loguniform", "low": 0.01, "high": 100}},
    "mlprouter": {"weight_decay": {"type": "loguniform", "low": 0.05, "high": 1}},
    "graphrouter": {"weight_decay": {"type": "loguniform", "low": 0.0001, "high": 0.01}},
}
"""Searched parameters, chosen so that they hardly change the time of a fit."""

LOOP = "plain loop"
NONE = "none"
_EVERY_S = 0.2

Figures = dict[str, float]


class Options(harness.Options):
    """Options of ``waypost bench tune``.

    Attributes:
        cheap_n, costly_n: Number of made-up questions.
        cheap_folds, costly_folds: Number of fits of a trial.
        llms, dim: Number of LLMs and dimension of the embeddings of the made-up data.
    """

    cheap: str = Field("knnrouter", description="Router of the cheap trials, or none.")
    cheap_trials: int = Field(200, ge=2, description="Number of cheap trials.")
    costly: str = Field("mlprouter", description="Router of the costly trials, or none.")
    costly_trials: int = Field(16, ge=2, description="Number of costly trials.")
    workers: int = Field(2, ge=1, description="Number of Ray workers.")
    cheap_n: int = 1000
    cheap_folds: int = 5
    costly_n: int = 3000
    costly_folds: int = 2
    llms: int = 9
    dim: int = 384


QUICK = {
    "cheap_trials": 12, "costly_trials": 4, "cheap_n": 150, "costly_n": 150, "cheap_folds": 2,
    "llms": 3, "dim": 16,
}  # fmt: skip


@dataclass(frozen=True)
class Case:
    """The fits of a measurement: a router, made-up data, and settings of similar cost.

    Attributes:
        router: A key of `SPACES`.
        n, llms, dimension: Size of the made-up data.
        trials: Number of settings.
        folds: Number of fits of each setting.
        seed: Seed of data and settings.
    """

    router: str
    n: int
    trials: int
    folds: int
    llms: int = 9
    dimension: int = 384
    seed: int = 0

    def config(self) -> TuneConfig:
        """Return the config of the sweep."""
        return check_sweep(
            {
                "router": self.router,
                "space": SPACES[self.router],
                "budget": {"trials": self.trials},
                "folds": self.folds,
                "repeats": 0,
                "encoder": "hashing",  # vectors are given
                "seed": self.seed,
            },
            "bench tune",
        )

    def problem(self) -> CrossValidation:
        """Return the cross-validation on the made-up data."""
        data = made_up(self.n, self.llms, self.dimension, self.seed)
        return CrossValidation.of(self.config(), data, ())

    def tasks(self, folder: Path) -> list[Task]:
        """Return tasks for all settings, the same ones on every call."""
        config = self.config()
        space = SearchSpace(config, defaults_of(config))
        journal = Journal(folder / "proposed.jsonl", {})
        proposals = Proposals(space, make_searcher(config, space), journal, self.trials, 1.0)
        found = []
        while (task := proposals.next()) is not None:
            found.append(task)
        journal.close()
        return found


def run(options: Options, tell: Tell) -> Result:
    """Measure both cases, each in a plain loop and on Ray, one process after another.

    Returns:
        Figures: ``cases`` (``cheap`` and ``costly``: ``case``, ``ways`` by name and ``compared``
        with the loop).

    Raises:
        BenchError: A process failed, or the ways' scores differ.
        RegistryError: The bench has no settings for a router.
    """
    given, size = options.model_dump(), {"llms": options.llms, "dimension": options.dim}
    cases = {
        name: Case(given[name], *(given[name + of] for of in ("_n", "_trials", "_folds")), **size)
        for name in ("cheap", "costly")
        if given[name] != NONE
    }
    for case in cases.values():
        if case.router not in SPACES:
            known = ", ".join(SPACES)
            raise RegistryError(f"{case.router}: no settings to measure; expected one of {known}")
    return result({name: _case(name, case, options.workers, tell) for name, case in cases.items()})


def _case(name: str, case: Case, workers: int, tell: Tell) -> dict[str, Any]:
    counts = {LOOP: 0}
    for count in sorted({1, workers}):
        counts[f"Ray Tune, {count} worker{'s' if count > 1 else ''}"] = count
    seen: dict[str, Watched] = {}
    for way, count in counts.items():
        tell(f"{name}: {case.trials} trials of {case.router}, {way}")
        words = ["--case", json.dumps(asdict(case)), "--workers", str(count)]
        one_thread = {"OMP_NUM_THREADS": "1"}
        seen[way] = watched("waypost.bench.tune", words, _EVERY_S, one_thread)
    check_same(seen)
    ways = {way: figures(one, max(counts[way], 1)) for way, one in seen.items()}
    return {
        "case": asdict(case),
        "ways": ways,
        "compared": {way: compared(ways[LOOP], one) for way, one in ways.items() if way != LOOP},
    }


# -- one way, in its own process ------------------------------------------------------------------


def measure(case: Case, workers: int, folder: Path) -> dict[str, Any]:
    """Measure all settings of a case; 0 workers is a plain loop.

    Returns:
        Times in monotonic seconds: ``ready``, data and settings exist; ``first``, the workers
        begin to fit (mean over workers); ``last``, the last row is recorded; ``end``, Ray has
        stopped. Also ``fit_seconds`` of all trials, ``trials`` done, ``scores`` by setting.
    """
    from waypost.ray_session import ray_session
    from waypost.tune.ray_tune import measure_packed
    from waypost.tune.trial import measure_here

    problem, tasks = case.problem(), case.tasks(folder)
    journal = Journal(folder / "trials.jsonl", {})
    ready = time.monotonic()
    queue, began = timed_queue(journal, max(workers, 1), tasks)
    if workers:
        with ray_session(threads=1):
            measure_packed(problem, queue, case.config().resources, folder / "ray")
            last = time.monotonic()
    else:
        measure_here(problem, queue)
        last = time.monotonic()
    end = time.monotonic()
    rows = journal.search()
    journal.close()
    if failed := [row.error for row in rows if row.status != "done"]:
        raise SystemExit(f"{len(failed)} trials failed; the first: {failed[0]}")
    return {
        "ready": ready,
        "first": sum(began) / len(began),
        "last": last,
        "end": end,
        "trials": len(rows),
        "fit_seconds": sum(row.seconds for row in rows),
        "scores": {row.key: row.score for row in rows},
    }


def timed_queue(
    journal: Journal,
    workers: int,
    tasks: Sequence[Task],
    now: Callable[[], float] = time.monotonic,
) -> tuple[TrialQueue, list[float]]:
    """Return a trial queue and a list that receives the time of each worker's first fit.

    The first batches go to different workers, one each. A worker's start is the time of its first
    rows less the seconds of their fits.
    """
    batches: list[set[tuple[str, int]]] = []
    began: list[float] = []

    class TimedTrialQueue(TrialQueue):
        def take(self) -> list[Task]:
            found = super().take()
            if found and len(began) + len(batches) < workers:
                batches.append({task.place for task in found})
            return found

        def record(self, rows: Iterable[TrialRow]) -> None:
            rows = list(rows)
            for batch in list(batches):
                own = [row.seconds for row in rows if row.place in batch]
                if own:
                    began.append(now() - sum(own))
                    batches.remove(batch)
            super().record(rows)

    return TimedTrialQueue(journal, workers, tasks), began


# -- figures --------------------------------------------------------------------------------------


def figures(seen: Watched, workers: int) -> Figures:
    """Return the times of one way.

    Args:
        seen: Measurement of the way's process; see `measure`.
        workers: Number of processes that fit; 1 for the loop.

    Returns:
        ``trials``; ``seconds`` from ``ready`` to ``end``, ``start_s`` from ``ready`` to
        ``first``, ``fitting_s`` from ``first`` to ``last``; ``per_s`` and ``fitting_per_s``,
        trials per second of ``seconds`` and of ``fitting_s``; ``idle_ms``, time of a worker
        outside fits during ``fitting_s``, per trial; ``cpu_s`` and ``fitting_cpu_s``, CPU seconds
        of all processes during ``seconds`` and ``fitting_s``; ``trial_ms``, mean time of a
        trial's fits.
    """
    said = seen.said
    trials, fits = said["trials"], said["fit_seconds"]
    seconds, fitting = said["end"] - said["ready"], said["last"] - said["first"]
    return {
        "trials": trials,
        "workers": workers,
        "seconds": seconds,
        "start_s": said["first"] - said["ready"],
        "fitting_s": fitting,
        "per_s": trials / seconds,
        "fitting_per_s": trials / fitting,
        "idle_ms": 1000 * (workers * fitting - fits) / trials,
        "trial_ms": 1000 * fits / trials,
        "cpu_s": seen.cpu_between(said["ready"], said["end"]),
        "fitting_cpu_s": seen.cpu_between(said["first"], said["last"]),
    }


def check_same(ways: Mapping[str, Watched]) -> None:
    """Check that every way found the same scores.

    Raises:
        BenchError: A way has other scores, so its fits were not the same.
    """
    first, *others = ways
    known = ways[first].said["scores"]
    for name in others:
        scores = ways[name].said["scores"]
        if scores.keys() != known.keys() or any(
            abs(scores[key] - score) > 1e-6 for key, score in known.items()
        ):
            raise BenchError(f"{name}: its scores are not those of the {first}")


def compared(loop: Figures, ray: Figures) -> Figures:
    """Compare a way on Ray with the loop.

    Returns:
        ``ratio`` of Ray's seconds to the loop's, start-up included, and ``fitting_ratio``
        without start-up; ``speed_up``, 1 / ``fitting_ratio``; ``of_linear``, the speed-up over
        the number of workers; ``overhead_ms``, additional CPU milliseconds per trial without
        start-up; ``start_cpu_s``, CPU seconds of the start-up.
    """
    speed_up = loop["fitting_s"] / ray["fitting_s"]
    extra = ray["fitting_cpu_s"] - loop["fitting_cpu_s"]
    return {
        "ratio": ray["seconds"] / loop["seconds"],
        "fitting_ratio": 1 / speed_up,
        "speed_up": speed_up,
        "of_linear": speed_up / ray["workers"],
        "overhead_ms": 1000 * extra / ray["trials"],
        "start_cpu_s": ray["cpu_s"] - ray["fitting_cpu_s"],
    }


def aims(cases: Mapping[str, Mapping[str, Any]]) -> list[Aim]:
    """Compare the figures with the aims.

    Args:
        cases: The measured ones of ``cheap`` and ``costly``, each with ``compared`` by way; the
            way with the most workers is last.
    """

    def last(name: str, key: str) -> float | None:
        return list(cases[name]["compared"].values())[-1][key] if name in cases else None

    ratio, share = last("cheap", "ratio"), last("costly", "of_linear")
    return [
        at_most("cheap trials: Ray's time, start-up included, over the loop's", ratio, 1.15),
        at_least("costly trials: speed-up over the number of workers", share, 0.8),
    ]


COLUMNS = (
    ("s", "seconds", 1),
    ("of loop's", "ratio", 2),
    ("trials/s", "per_s", 2),
    ("start-up s", "start_s", 1),
    ("without it: of loop's", "fitting_ratio", 2),
    ("trials/s", "fitting_per_s", 2),
    ("speed-up", "speed_up", 2),
    ("of linear", "of_linear", None),
    ("CPU s", "cpu_s", 1),
    ("of start-up", "start_cpu_s", 1),
    ("CPU ms/trial over loop", "overhead_ms", 1),
    ("idle ms/trial", "idle_ms", 1),
)
"""Head, key of `figures` or of `compared`, decimals (None: a percentage)."""


def result(cases: Mapping[str, Mapping[str, Any]]) -> Result:
    """Return the result of these figures."""
    tables = []
    for name, one in cases.items():
        case, ways = one["case"], one["ways"]
        each = next(iter(ways.values()))["trial_ms"]
        title = (
            f"{case['trials']} {name} trials of {case['router']}, {case['folds']} fits each, "
            f"{case['n']} made-up questions x {case['llms']} LLMs; a trial takes {each:.0f} ms"
        )
        found = {way: {**own, **one["compared"].get(way, {})} for way, own in ways.items()}
        rows = [[way, *(_cell(f, *rest) for _, *rest in COLUMNS)] for way, f in found.items()]
        tables.append(Table(title, ("way", *(head for head, *_ in COLUMNS)), rows))
    facts = (
        "One thread of linear algebra in each process. The loop makes the same fits on the same "
        "folds in one process, and every way finds the same scores. Time runs from data at hand to "
        "the last row, with Ray's start and end; without start-up it runs from when the workers "
        "began to fit, their mean. Idle is a worker's time beside its fits."
    )
    return Result(tables, facts, aims(cases), {"cases": cases})


def _cell(one: Mapping[str, float], key: str, places: int | None) -> str:
    value = one.get(key)
    return percent(value) if places is None else fixed(value, places)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--case", required=True)
    parser.add_argument("--workers", type=int, required=True)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="waypost-bench-") as place:
        json.dump(measure(Case(**json.loads(given.case)), given.workers, Path(place)), sys.stdout)
