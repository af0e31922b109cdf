"""Prediction of each LLM's output tokens, or dollars of a call, from the query's embedding.

The method is ridge regression of the logarithm (CARROT, arXiv 2502.03261, also predicts both
quality and cost). Duan's smearing factor (1983) turns the mean of the logarithm into a mean.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from waypost.contracts.records import QueryBatch
from waypost.contracts.routing_data import RoutingData
from waypost.contracts.types import Floats
from waypost_routers._linear.ridge import Ridge, fit_ridge, folds_of


@dataclass(frozen=True, eq=False)
class Lengths:
    """A regression of one positive number per LLM.

    Attributes:
        ridge: Regression of the logarithm.
        smearing: (n_llms,) mean of exp(residual).
        low, high: (n_llms,) range of the training values; predictions are clipped to it.
        measured: (n_llms,) whether the LLM has any value; without one the prediction is NaN.
    """

    ridge: Ridge
    smearing: Floats
    low: Floats
    high: Floats
    measured: NDArray[np.bool_]

    def predict(self, batch: QueryBatch) -> Floats:
        """Return expected values, (n_queries, n_llms)."""
        return batch.once(self, lambda: self._of(batch.embeddings))

    def _of(self, rows: NDArray[np.float32] | None) -> Floats:
        assert rows is not None  # routers that predict lengths need embeddings
        value = np.exp(self.ridge.predict(rows)) * self.smearing
        value = np.minimum(np.maximum(value, self.low), self.high)
        return np.where(self.measured, value, np.nan)

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Return the state as named arrays."""
        return {
            **self.ridge.to_arrays(),
            "smearing": self.smearing,
            "low": self.low,
            "high": self.high,
            "measured": self.measured,
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Lengths:
        """Rebuild the regression from `to_arrays`."""
        ridge = Ridge.from_arrays(arrays)
        smearing, low, high = (arrays[name] for name in ("smearing", "low", "high"))
        return cls(ridge, smearing, low, high, arrays["measured"].astype(bool))


def fit_tokens(data: RoutingData) -> Lengths | None:
    """Fit output tokens; return None if none were recorded or there are no embeddings."""
    return _fit(data, data.output_tokens, least=1.0)


def fit_dollars(data: RoutingData) -> Lengths | None:
    """Fit recorded dollars; return None if none were recorded or there are no embeddings."""
    return _fit(data, data.cost_usd, least=1e-9)


def _fit(data: RoutingData, values: Floats, least: float) -> Lengths | None:
    known = ~np.isnan(values)
    measured: NDArray[np.bool_] = np.asarray(known.any(axis=0))
    if not measured.any() or data.embeddings is None:
        return None
    # a column without values is fitted to a constant; `measured` then masks its predictions
    logs = np.log(np.maximum(np.where(measured, values, 1.0), least))
    ridge, outside = fit_ridge(data.embeddings, logs, folds_of(data), same_penalty=False)
    residual = np.where(known, logs - outside, np.nan)
    ones = np.ones(values.shape[1])
    smearing, low, high = ones.copy(), ones.copy(), ones.copy()
    for j in np.flatnonzero(measured):
        smearing[j] = np.exp(np.clip(residual[known[:, j], j], -4, 4)).mean()
        low[j], high[j] = values[known[:, j], j].min(), values[known[:, j], j].max()
    return Lengths(ridge, smearing, low, high, measured)
