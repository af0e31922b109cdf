"""What a trial's choices are worth: the metric, and how much of it each block of questions gives.

The questions are dealt to `BLOCKS` blocks, near-duplicates together. With theta the metric on all J
blocks and theta_j without block j, the pseudo-value of block j is J theta - (J - 1) theta_j
(Quenouille, 1956; Tukey, 1958). For a mean it is the mean of the block; it exists for areas
under curves just as well, so that every metric has standard errors, paired differences and
bootstraps by the same few lines.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from waypost.contracts.cost import column_mean
from waypost.contracts.errors import SchemaError
from waypost.contracts.routing_data import RoutingData
from waypost.contracts.splits import fold_of
from waypost.contracts.types import Floats
from waypost.metrics.costs import costs_of
from waypost.metrics.curves import Hull, Singles, hull
from waypost.pipelines.evaluation.ground import MOST_UNKNOWN
from waypost.pipelines.sweep import lambda_grid
from waypost.tune.space import Metric

BLOCKS = 50


@dataclass(frozen=True, eq=False)
class Judge:
    """Computes the metric of choices.

    Attributes:
        metric: Which.
        lambdas: Cost weights that choices are needed at.
        block: Of each question, (n,).
        quality: (n, n_llms) measured scores.
        usd: (n, n_llms) dollars of each call, NaN where unknown.
        cost_ref: Mean dollars of the dearest LLM; NaN where no cost is known.
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
    def of(cls, data: RoutingData, metric: Metric, seed: int) -> Judge:
        """Take from the training split what judging needs.

        Raises:
            SchemaError: the metric needs costs, and the data has none, or not of all calls.
        """
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

    def judge(self, quality: Floats, cost: Floats) -> tuple[float, Floats]:
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
        if name == "quality":
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
        """Mean of each column over all rows, then without each block: (1 + n_blocks, k)."""
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
    """Return the least cost at which each hull has this quality; NaN where it never has."""
    found = np.full(len(quality), np.nan)
    for row, (x, y, wanted) in enumerate(zip(curves.cost, curves.quality, quality, strict=True)):
        rising = np.concatenate([[True], np.diff(y) > 0]) & ~np.isnan(y)
        x, y = x[rising], y[rising]
        if len(y) and y[-1] >= wanted - 1e-12:
            found[row] = np.interp(wanted, y, x)
    return found
