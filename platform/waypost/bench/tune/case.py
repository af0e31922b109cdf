"""What is measured: a router, made-up data, and settings that take about the same time."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from waypost.bench.routers.data import made_up
from waypost.tune.config import TuneConfig, check_sweep, defaults_of
from waypost.tune.folds import Problem
from waypost.tune.journal import Journal, Task
from waypost.tune.searchers import Proposals, make_searcher
from waypost.tune.space import SearchSpace

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
"""Searched parameters that change how long a fit takes little: what is measured is the sweep."""


@dataclass(frozen=True)
class Case:
    """Fits to make.

    Attributes:
        router: One of `SPACES`.
        n, llms, dimension: Size of the made-up data.
        trials: Settings.
        folds: Fits of each.
        seed: Of data and settings.
    """

    router: str
    n: int
    trials: int
    folds: int
    llms: int = 9
    dimension: int = 384
    seed: int = 0

    def config(self) -> TuneConfig:
        """Return the sweep."""
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

    def problem(self) -> Problem:
        """Make the data and deal the questions."""
        data = made_up(self.n, self.llms, self.dimension, self.seed)
        return Problem.of(self.config(), data, ())

    def tasks(self, folder: Path) -> list[Task]:
        """Propose all settings, the same each time."""
        config = self.config()
        space = SearchSpace(config, defaults_of(config))
        journal = Journal(folder / "proposed.jsonl", {})
        proposals = Proposals(space, make_searcher(config, space), journal, self.trials, 1.0)
        found = []
        while (task := proposals.next()) is not None:
            found.append(task)
        journal.close()
        return found
