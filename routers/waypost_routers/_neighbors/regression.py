"""k-nearest-neighbour regression on measured scores, shared by the routers that decide by it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from waypost.contracts.cost import column_mean
from waypost.contracts.parameters import Integer, OneOf, Real
from waypost.contracts.records import LLMInfo
from waypost.contracts.router import Prediction, QueryBatch, ScoreRouter
from waypost.contracts.routing_data import RoutingData
from waypost.contracts.types import Floats
from waypost_routers._neighbors.index import Index
from waypost_routers._neighbors.memory import (
    Neighbours,
    nearest,
    neighbour_mean,
    neighbours,
    similarity_floor,
)

K_GRID = (5, 10, 20, 40, 80, 160, 320)
MAX_HELD_OUT = 2048
"""Maximum number of questions used to choose k and the similarity floor: a seeded sample."""

INDEX_ABOVE = 50_000
"""Number of training questions above which ``index: auto`` builds an index."""

_AMONG_BEST = 1e-6
_CELLS = 100_000
"""Neighbours' scores averaged at once: as many as fit the processor's cache."""
_UNLIKE = 1e-6


class NeighbourRegression(ScoreRouter):
    """Predicts each LLM's mean score on the training questions nearest to a query.

    Parameters and learned attributes are those of the router ``knnrouter``.
    """

    new_model_support = "few-shot"
    row_count_parameters = ("k", "kappa")
    state_parts: ClassVar = {**ScoreRouter.state_parts, "index_": Index}
    parameter_constraints: ClassVar = {
        "k": Integer(1, optional=True),
        "weights": OneOf(("uniform", "softmax")),
        "tau": Real(0, open_low=True),
        "kappa": Real(0),
        "ood_quantile": Real(0, 0.5),
        "index": OneOf(("auto", "exact", "ivf")),
    }

    memory_: NDArray[np.float32]
    scores_: NDArray[np.float32]
    highest_: NDArray[np.float32]
    tokens_: NDArray[np.float32]
    dollars_: NDArray[np.float32]
    best_share_: Floats
    k_: int
    similarity_floor_: float
    index_: Index | None

    def __init__(
        self,
        k: int | None = None,
        weights: str = "softmax",
        tau: float = 0.1,
        kappa: float = 1.0,
        ood_quantile: float = 0.005,
        index: str = "auto",
    ) -> None:
        self.k = k
        self.weights = weights
        self.tau = tau
        self.kappa = kappa
        self.ood_quantile = ood_quantile
        self.index = index

    def _fit(self, data: RoutingData) -> None:
        rows = np.flatnonzero(~np.isnan(data.quality).all(axis=1))
        data = data.select(rows)
        assert data.embeddings is not None  # checked by `fit`
        self.memory_ = np.ascontiguousarray(data.embeddings, np.float32)
        self.scores_ = data.quality.astype(np.float32)
        self.tokens_ = _where_recorded(data.output_tokens)
        self.dollars_ = _where_recorded(data.cost_usd)
        self.highest_ = _highest(self.scores_)
        best = _among_best(data.quality, _highest(data.quality)[:, None])
        self.best_share_ = np.nan_to_num(column_mean(best.astype(np.float64)))
        wanted = self.index == "ivf" or (self.index == "auto" and len(rows) > INDEX_ABOVE)
        self.index_ = Index.build(self.memory_) if wanted else None
        held_out = _held_out(len(rows))
        others = nearest(
            self.memory_, self.memory_[held_out], self.k or K_GRID[-1], other_questions_only=True
        )
        self.k_ = self._choose_k(held_out, others) if self.k is None else min(self.k, len(rows))
        self.similarity_floor_ = similarity_floor(
            self.memory_[held_out], others.nearest_similarity, self.ood_quantile
        )

    def _choose_k(self, held_out: NDArray[np.intp], others: Neighbours) -> int:
        grid = [k for k in K_GRID if k < len(self.memory_)] or [len(self.memory_)]
        scores = self.scores_[held_out].astype(np.float64)
        earned = np.stack([_earned(self._quality(others.take(k)), scores) for k in grid])
        best = int(np.argmax(earned.mean(axis=1)))
        lost = earned[best] - earned
        error = lost.std(axis=1) / np.sqrt(lost.shape[1])
        # The best of noisy estimates is partly chance; a larger k that is as good within the noise
        # varies less on new questions.
        return max(k for k, m, e in zip(grid, lost.mean(axis=1), error, strict=True) if m <= e)

    def set_state(
        self, llms: Sequence[LLMInfo], arrays: Mapping[str, NDArray[Any]], values: Mapping[str, Any]
    ) -> None:
        """Set the learned state; see `TrainableRouter.set_state`."""
        super().set_state(llms, arrays, values)
        if "highest_" not in arrays:  # older artifacts lack it
            self.highest_ = _highest(self.scores_)

    def _predict(self, batch: QueryBatch) -> Prediction:
        assert batch.embeddings is not None  # checked by `predict`
        if self.index_ is None:
            found = neighbours(batch, self.memory_, self.k_)
        else:
            found = self.index_.nearest(self.memory_, batch.embeddings, self.k_)
        said = [self._average(part) for part in found.parts(_CELLS // len(self.llms_))]
        quality, tokens, dollars, confidence = zip(*said, strict=True)
        return Prediction(
            quality=np.concatenate(quality),
            output_tokens=None if tokens[0] is None else np.concatenate(tokens),
            recorded_usd=None if dollars[0] is None else np.concatenate(dollars),
            confidence=np.concatenate(confidence),
            out_of_distribution=found.nearest_similarity < self.similarity_floor_ - _UNLIKE,
        )

    def _average(self, found: Neighbours) -> tuple[Floats, Floats | None, Floats | None, Floats]:
        """Return quality, tokens, dollars and confidence."""
        cost, kappa = self.cost_model_, self.kappa
        scores = self.scores_[found.index]
        best = _among_best(scores, self.highest_[found.index][:, :, None])
        columns = [(scores, self.mean_quality_, kappa), (best, self.best_share_, 0.0)]
        recorded = [(self.tokens_, cost.output_tokens)]
        recorded += [(self.dollars_, cost.recorded_usd)] if cost.asks_recorded else []
        columns += [(of[found.index], prior, kappa) for of, prior in recorded if len(of)]
        # one mean of all columns: for one query the overhead of each product dominates
        values, priors, kappas = zip(*columns, strict=True)
        means = neighbour_mean(
            np.concatenate(values, axis=2),
            self._weights(found),
            np.concatenate(priors),
            np.repeat(kappas, len(self.llms_)),
        )
        quality, confidence, *more = np.split(means, len(columns), axis=1)
        tokens = more.pop(0) if len(self.tokens_) else None
        return quality.clip(0, 1), tokens, more.pop() if more else None, confidence.clip(0, 1)

    def _weights(self, found: Neighbours) -> Floats:
        if self.weights == "uniform":
            return found.share
        behind = found.similarity - found.nearest_similarity[:, None]
        return found.share * np.exp(behind / self.tau)

    def _quality(self, found: Neighbours) -> Floats:
        parts = found.parts(_CELLS // len(self.llms_))
        return np.concatenate(
            [self._mean_quality(self.scores_[part.index], self._weights(part)) for part in parts]
        )

    def _mean_quality(self, scores: NDArray[np.floating[Any]], weights: Floats) -> Floats:
        return neighbour_mean(scores, weights, self.mean_quality_, self.kappa).clip(0, 1)


def _where_recorded(values: Floats) -> NDArray[np.float32]:
    return (values[:0] if np.isnan(values).all() else values).astype(np.float32)


def _highest(scores: NDArray[Any]) -> NDArray[Any]:
    """Return the highest measured score of each row, (n_rows,); each row has one."""
    return np.asarray(np.fmax.reduce(scores, axis=1))


def _among_best(scores: NDArray[Any], highest: NDArray[Any]) -> NDArray[np.float32]:
    """Return 1 for LLMs among the best measured of their row, 0 for others, NaN if unmeasured."""
    best = np.asarray(scores >= highest - _AMONG_BEST, np.float32)
    unmeasured = np.isnan(scores)
    if unmeasured.any():
        best[unmeasured] = np.nan
    return best


def _held_out(n_rows: int) -> NDArray[np.intp]:
    if n_rows <= MAX_HELD_OUT:
        return np.arange(n_rows)
    return np.sort(np.random.default_rng(0).choice(n_rows, MAX_HELD_OUT, replace=False))


def _earned(quality: Floats, scores: Floats) -> Floats:
    """Return the score of the measured LLM with the highest prediction, for each question.

    Tied LLMs give their mean score, so that the order of the LLMs has no effect.
    """
    predicted = np.where(np.isnan(scores), -np.inf, quality)
    chosen = predicted >= predicted.max(axis=1, keepdims=True) - _AMONG_BEST
    return np.asarray(np.where(chosen, scores, 0.0).sum(axis=1) / chosen.sum(axis=1))
