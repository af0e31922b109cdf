"""What every trial of a sweep is measured on. One value: it goes to the workers once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from waypost.contracts.epochs import EpochRouter
from waypost.contracts.errors import SchemaError
from waypost.contracts.router import TrainableRouter
from waypost.contracts.routing_data import RoutingData
from waypost.contracts.splits import fold_of
from waypost.contracts.types import Floats
from waypost.pipelines.sweep import Sweep
from waypost.pipelines.train import TrainConfig, new_router
from waypost.registry import router_class, searching
from waypost.tune.space import TuneConfig
from waypost.tune.sweep.judging import Judge

MOST_KEPT_BYTES = 400_000_000
"""Folds of a deal are kept from trial to trial where they are smaller: with them what routers
compute of a training split once, such as its near-duplicates."""


@dataclass(frozen=True, eq=False)
class Part:
    """One fold of a deal.

    Attributes:
        rows: Numbers of the questions kept back.
        training: The others.
        held_out: They; their ``cost_usd`` is what the judge counts.
    """

    rows: NDArray[np.intp]
    training: RoutingData
    held_out: RoutingData


@dataclass(frozen=True, eq=False)
class Problem:
    """A training split, its folds, and the judge.

    Attributes:
        router: Registry name.
        data: The training split, embedded where the router needs it.
        judge: Of the choices.
        folds: Of each question, (1 + repeats, n): row 0 is the search's deal, the others those of
            the finalists.
        seed: Of routers that have one.
        plugin_paths: Where plug-ins are searched for.
        by_epochs: Whether the router trains by epochs.
    """

    router: str
    data: RoutingData
    judge: Judge
    folds: NDArray[np.intp]
    seed: int
    plugin_paths: tuple[str, ...]
    by_epochs: bool
    _kept: dict[int, list[Part]] = field(default_factory=dict, repr=False)

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the folds: every process cuts its own."""
        return {**self.__dict__, "_kept": {}}

    @classmethod
    def of(cls, config: TuneConfig, data: RoutingData, plugin_paths: tuple[Path, ...]) -> Problem:
        """Deal the questions.

        Raises:
            SchemaError: too few questions to leave some out, or see `Judge.of`.
        """
        deals = [
            fold_of(data.queries, config.folds, config.seed + deal, data.groups)
            for deal in range(1 + config.repeats)
        ]
        for fold in deals:
            for one in range(config.folds):
                if not (fold == one).any() or np.isnan(data.quality[fold != one]).all(0).any():
                    raise SchemaError(
                        f"{len(data)} training questions are too few for {config.folds} folds: one "
                        "is empty, or an LLM has no score outside one; take fewer folds"
                    )
        return cls(
            router=config.router,
            data=data,
            judge=Judge.of(data, config.metric, config.seed),
            folds=np.stack(deals),
            seed=config.seed,
            plugin_paths=tuple(str(path) for path in plugin_paths),
            by_epochs=issubclass(router_class(config.router), EpochRouter),
        )

    def parts(self, deal: int) -> Iterator[Part]:
        """Yield the folds of a deal."""
        if deal in self._kept:
            yield from self._kept[deal]
            return
        parts = []
        vectors = 0 if self.data.embeddings is None else self.data.embeddings.nbytes
        count = int(self.folds[deal].max()) + 1
        keep = count * (vectors + 6 * self.data.quality.nbytes) < MOST_KEPT_BYTES
        for part in self._cut(deal):
            yield part
            if keep:
                parts.append(part)
        if keep:
            self._kept.clear()
            self._kept[deal] = parts

    def _cut(self, deal: int) -> Iterator[Part]:
        fold = self.folds[deal]
        for one in range(int(fold.max()) + 1):
            rows = np.flatnonzero(fold == one)
            held_out = replace(self.data.select(rows), cost_usd=self.judge.usd[rows])
            yield Part(rows, self.data.select(np.flatnonzero(fold != one)), held_out)

    def router_of(self, parameters: Mapping[str, Any]) -> TrainableRouter:
        """Build an untrained router.

        Raises:
            ConfigError, RegistryError, PluginError, MissingExtraError: see `make_trainable`.
        """
        given = dict(parameters)
        with searching([Path(path) for path in self.plugin_paths]):
            return new_router(TrainConfig(router=self.router, parameters=given, seed=self.seed))


class Choices:
    """What choices on all questions came to, filled fold by fold.

    Args:
        n: Questions.
    """

    def __init__(self, n: int) -> None:
        self._n = n
        self.quality: Floats = np.empty((n, 0))
        self.cost: Floats = np.empty((n, 0))

    def add(self, rows: NDArray[np.intp], swept: Sweep) -> None:
        """Take the choices of some questions, at each weight."""
        if not self.quality.size:
            shape = (self._n, len(swept.outcomes))
            self.quality, self.cost = np.full(shape, np.nan), np.full(shape, np.nan)
        self.quality[rows] = np.column_stack([one.quality for one in swept.outcomes])
        self.cost[rows] = np.column_stack([one.cost_usd for one in swept.outcomes])
