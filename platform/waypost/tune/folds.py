"""Cross-validation of a sweep: folds of the training split, and the metric with pseudo-values.

Questions are grouped into `BLOCKS` blocks that keep near-duplicates together. With theta the metric
on all J blocks and theta_j without block j, the pseudo-value of block j is
J theta - (J - 1) theta_j (Quenouille, 1956; Tukey, 1958). For a mean it is the mean of the block.
It is defined for areas under curves too, so every metric gets standard errors, paired differences
and bootstraps from the same code.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from waypost.contracts.cost import column_mean
from waypost.contracts.epochs import EpochRouter
from waypost.contracts.errors import SchemaError
from waypost.contracts.router import TrainableRouter
from waypost.contracts.routing_data import RoutingData
from waypost.contracts.splits import fold_of
from waypost.contracts.types import Floats
from waypost.metrics.comparison import MOST_UNKNOWN, Outcomes, Sweep, lambda_grid
from waypost.metrics.costs import costs_of
from waypost.metrics.curves import Hull, Singles, hull
from waypost.pipelines.evaluation.lambda_curve import sweep
from waypost.pipelines.train import TrainConfig, new_router
from waypost.registry import router_class, searching
from waypost.tune.config import Metric, TuneConfig
from waypost.tune.preference import foreseen

BLOCKS = 50


@dataclass(frozen=True, eq=False)
class MetricEvaluator:
    """The computation of the metric from the LLMs chosen for the questions.

    Attributes:
        metric: The metric.
        lambdas: Cost weights at which choices are needed.
        block: Block of each question, (n,).
        quality: (n, n_llms) measured scores.
        usd: (n, n_llms) dollars of each call, NaN where unknown.
        cost_ref: Mean dollars of the most expensive LLM; NaN if no cost is known.
        best: Column of the best single LLM.
    """

    metric: Metric
    lambdas: tuple[float, ...]
    block: NDArray[np.intp]
    quality: Floats
    usd: Floats
    cost_ref: float
    best: int

    @classmethod
    def of(cls, data: RoutingData, metric: Metric, seed: int) -> MetricEvaluator:
        """Build it from the training split.

        Raises:
            SchemaError: The metric needs costs, which are missing for too many calls, or feedback
                of users, which there is not.
        """
        if metric.name == "preference" and data.events is None:
            raise SchemaError(
                "metric preference: the training split has no feedback of users; take another "
                "metric, or make some (`waypost data users`, `waypost data from-feedback`)"
            )
        costs = costs_of(data)
        measured = ~np.isnan(data.quality)
        unknown = float(np.isnan(costs.usd[measured]).mean())
        if metric.needs_cost and unknown > MOST_UNKNOWN:
            raise SchemaError(
                f"metric {metric.name}: {100 * unknown:.0f} % of the training split's calls have "
                f"no known cost ({costs.basis}); take quality, or add costs, or prices and tokens"
            )
        usd = np.where(measured, costs.usd, np.nan)
        mean_usd = column_mean(usd)
        known = mean_usd[~np.isnan(mean_usd)]
        curve = metric.name in ("aiq", "cost_at_quality")
        groups = int(data.groups.max()) + 1
        return cls(
            metric=metric,
            lambdas=lambda_grid(mean_usd) if curve else (metric.lam,),
            block=fold_of(data.queries, min(BLOCKS, groups), seed, data.groups),
            quality=data.quality,
            usd=usd,
            cost_ref=float(known.max()) if len(known) else np.nan,
            best=int(np.nanargmax(column_mean(data.quality))),
        )

    def evaluate(self, quality: Floats, cost: Floats) -> tuple[float, Floats]:
        """Return the metric of choices, and the pseudo-value of each block, (n_blocks,).

        Args:
            quality: (n, n_lambdas) scores of the choices, NaN where not measured.
            cost: (n, n_lambdas) their dollars, NaN where unknown.
        """
        values = self._metric(quality, cost)
        whole, without = values[0], values[1:]
        count = len(without)
        return float(whole), count * whole - (count - 1) * without

    def _metric(self, quality: Floats, cost: Floats) -> Floats:
        """Return the metric on all questions, then without each block, (1 + n_blocks,)."""
        name = self.metric.name
        if name in ("quality", "preference"):
            return self._means(quality)[:, 0]
        if name == "cost":
            return self._means(cost)[:, 0]
        if name == "utility":
            spent = self.metric.lam * cost / self.cost_ref if self.metric.lam else 0.0
            return self._means(quality - spent)[:, 0]
        q, c = self._means(quality), self._means(cost)
        singles = self._means(self.quality)
        if name == "aiq":
            return Singles(self._means(self.usd), singles).aiq(c, q)
        return _cost_reaching(hull(c, q), self.metric.share * singles[:, self.best])

    def _means(self, values: Floats) -> Floats:
        """Return column means over all rows, then without each block, (1 + n_blocks, k)."""
        known = ~np.isnan(values)
        count = int(self.block.max()) + 1
        sums = np.zeros((count, values.shape[1]))
        sizes = np.zeros_like(sums)
        np.add.at(sums, self.block, np.where(known, values, 0.0))
        np.add.at(sizes, self.block, known)
        total, size = sums.sum(axis=0), sizes.sum(axis=0)
        sums, sizes = np.vstack([total, total - sums]), np.vstack([size, size - sizes])
        return np.asarray(np.divide(sums, sizes, out=np.full_like(sums, np.nan), where=sizes > 0))


def _cost_reaching(curves: Hull, quality: Floats) -> Floats:
    """Return the lowest cost at which each hull reaches a quality; NaN if it never does."""
    found = np.full(len(quality), np.nan)
    for row, (x, y, wanted) in enumerate(zip(curves.cost, curves.quality, quality, strict=True)):
        rising = np.concatenate([[True], np.diff(y) > 0]) & ~np.isnan(y)
        x, y = x[rising], y[rising]
        if len(y) and y[-1] >= wanted - 1e-12:
            found[row] = np.interp(wanted, y, x)
    return found


MOST_KEPT_BYTES = 400_000_000
"""Folds of a deal below this size are cached between trials, together with results that routers
compute once per training split, such as near-duplicates."""


@dataclass(frozen=True, eq=False)
class Fold:
    """One fold of a deal.

    Attributes:
        rows: Row numbers of the held-out questions.
        training: All other questions.
        held_out: The held-out questions; the metric uses their ``cost_usd`` column.
    """

    rows: NDArray[np.intp]
    training: RoutingData
    held_out: RoutingData


@dataclass(frozen=True, eq=False)
class CrossValidation:
    """The cross-validation of every trial: a training split, its folds, and the metric.

    A deal is one assignment of the questions to folds.

    Attributes:
        router: Registry name.
        data: The training split, with embeddings.
        evaluator: Computes the metric.
        folds: Fold of each question, (1 + repeats, n); row 0 is the deal of the search, the others
            those of the finalists.
        seed: Seed of routers that have one.
        plugin_paths: Folders searched for plug-ins.
        by_epochs: Whether the router trains by epochs.
    """

    router: str
    data: RoutingData
    evaluator: MetricEvaluator
    folds: NDArray[np.intp]
    seed: int
    plugin_paths: tuple[str, ...]
    by_epochs: bool
    _kept: dict[int, list[Fold]] = field(default_factory=dict, repr=False)

    def __getstate__(self) -> dict[str, Any]:
        """Return the state without the cached folds; every process builds its own."""
        return {**self.__dict__, "_kept": {}}

    @classmethod
    def of(
        cls, config: TuneConfig, data: RoutingData, plugin_paths: tuple[Path, ...]
    ) -> CrossValidation:
        """Assign the questions to folds.

        Raises:
            SchemaError: There are too few questions for the folds; see also `MetricEvaluator.of`.
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
            evaluator=MetricEvaluator.of(data, config.metric, config.seed),
            folds=np.stack(deals),
            seed=config.seed,
            plugin_paths=tuple(str(path) for path in plugin_paths),
            by_epochs=issubclass(router_class(config.router), EpochRouter),
        )

    def split(self, deal: int) -> Iterator[Fold]:
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

    def _cut(self, deal: int) -> Iterator[Fold]:
        fold = self.folds[deal]
        for one in range(int(fold.max()) + 1):
            rows = np.flatnonzero(fold == one)
            held_out = replace(self.data.select(rows), cost_usd=self.evaluator.usd[rows])
            yield Fold(rows, self.data.select(np.flatnonzero(fold != one)), held_out)

    def swept(self, router: TrainableRouter, part: Fold) -> Sweep:
        """Return what the metric needs of a router that was fitted on a fold.

        Raises:
            SchemaError: See `foreseen`.
        """
        if self.evaluator.metric.name == "preference":
            right = foreseen(router, part.training, part.held_out)
            unknown = np.full(len(right), np.nan)
            return Sweep((0.0,), (Outcomes(right, unknown, np.full(len(right), -1, np.intp)),))
        return sweep(router, part.held_out, self.evaluator.lambdas)

    def router_of(self, parameters: Mapping[str, Any]) -> TrainableRouter:
        """Build an untrained router.

        Raises:
            ConfigError, RegistryError, PluginError, MissingExtraError: See `make_trainable`.
        """
        given = dict(parameters)
        with searching([Path(path) for path in self.plugin_paths]):
            return new_router(TrainConfig(router=self.router, parameters=given, seed=self.seed))


class Choices:
    """Outcomes of the LLMs chosen for all questions, filled fold by fold.

    Args:
        n: Number of questions.
    """

    def __init__(self, n: int) -> None:
        self._n = n
        self.quality: Floats = np.empty((n, 0))
        self.cost: Floats = np.empty((n, 0))

    def add(self, rows: NDArray[np.intp], swept: Sweep) -> None:
        """Add the outcomes of some questions at each cost weight."""
        if not self.quality.size:
            shape = (self._n, len(swept.outcomes))
            self.quality, self.cost = np.full(shape, np.nan), np.full(shape, np.nan)
        self.quality[rows] = np.column_stack([one.quality for one in swept.outcomes])
        self.cost[rows] = np.column_stack([one.cost_usd for one in swept.outcomes])
