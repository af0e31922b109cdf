"""The same settings through Ray Tune and in a plain loop: what the first costs over the second."""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from waypost.contracts.routing_data import RoutingData
from waypost.tune.space import TuneConfig
from waypost.tune.sweep.desk import Desk
from waypost.tune.sweep.journal import Journal
from waypost.tune.sweep.measuring import measure_here
from waypost.tune.sweep.problem import Problem
from waypost.tune.sweep.proposals import Proposals
from waypost.tune.sweep.reading import defaults_of
from waypost.tune.sweep.searchers import make_searcher
from waypost.tune.sweep.settings import SearchSpace


@dataclass(frozen=True)
class Timing:
    """One way to measure a sweep's trials.

    Attributes:
        trials: How many were measured.
        seconds: From the first proposal to the last row, Ray's own start not counted.
        fit_s: Sum of the trials' own seconds, over all workers.
        workers: Trials at a time.
    """

    trials: int
    seconds: float
    fit_s: float
    workers: int


def time_search(config: TuneConfig, data: RoutingData, *, on_ray: bool) -> Timing:
    """Measure a search's trials, and nothing else.

    Args:
        config: The sweep, of the scheduler fifo.
        data: The training split, embedded.
        on_ray: In Ray Tune's trials, on the Ray that is initialised; else one after another here.
    """
    problem = Problem.of(config, data, ())
    space = SearchSpace(config, defaults_of(config))
    with tempfile.TemporaryDirectory() as work:
        journal = Journal(Path(work) / "trials.jsonl", {})
        sign = 1.0 if config.mode == "max" else -1.0
        made = Proposals(space, make_searcher(config, space), journal, config.budget.trials, sign)
        workers, start = 1, time.perf_counter()
        try:
            if on_ray:
                from waypost.tune.sweep.tuner import measure_packed, workers_of

                workers = workers_of(config.resources)
                desk = Desk(journal, workers, proposals=made)
                measure_packed(problem, desk, config.resources, Path(work) / "ray")
            else:
                measure_here(problem, Desk(journal, 1, proposals=made))
        finally:
            journal.close()
        seconds = time.perf_counter() - start
        rows = journal.search()
    return Timing(len(rows), seconds, sum(row.seconds for row in rows), workers)
