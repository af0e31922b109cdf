"""Average each LLM's scores over the clusters of training questions nearest to the query.

Avengers-Pro (arXiv 2508.12631): k-means on the embeddings, a table of scores by cluster and LLM,
and the few nearest clusters at inference, without gradient training.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from waypost.contracts.parameters import Integer, Real
from waypost.contracts.router import QueryBatch
from waypost.contracts.routing_data import RoutingData
from waypost.contracts.types import Floats
from waypost_routers._learned import HeldOutRouter, embeddings_of
from waypost_routers._neighbors.kmeans import distinct_rows, fit_centroids, nearest_centroid
from waypost_routers._shared import contrast_error

K_GRID = (10, 20, 40, 80, 160)
FEWEST_IN_A_CLUSTER = 5
"""Minimum mean number of questions per cluster for a k to be tried."""

_USUAL_K = 60
_EDGE = 1e-3
_BLOCK = 1024


class ClusterRouter(HeldOutRouter):
    """A weighted mean of each LLM's measured scores in the nearest k-means clusters.

    The weight of a cluster is linear in its similarity to the query: 1 for the nearest cluster,
    nearly 0 for the first one after the ``nearest`` most similar. So scores are continuous where
    two clusters change places. Avengers-Pro weights the clusters equally, with k = 60.

    When to take it:
        With many training questions: memory and decision time grow with the number of clusters,
        and a new LLM needs few outcomes.

    Args:
        k: Number of clusters; None chooses it at fit (10 to 160), by the error of differences
            between LLMs on held-out questions.
        nearest: Number of clusters averaged.
        kappa: Weight of each LLM's training mean, counted in questions.
        seed: Seed of the first centroids and the held-out questions.

    Learned by ``fit`` (k_ clusters, n_llms candidates):
        k_: Number of clusters requested; fewer are kept if there are fewer distinct questions.
        centroids_: float32 (k_, d), unit rows.
        sums_: float32 (k_, n_llms), sum of the measured scores of each cluster's questions.
        counts_: float32 (k_, n_llms), number of those scores.
    """

    name = "clusterrouter"
    new_model_support = "few-shot"
    link = "identity"
    row_count_parameters = ("kappa",)
    parameter_constraints: ClassVar = {
        "k": Integer(1, optional=True),
        "nearest": Integer(1),
        "kappa": Real(0),
        "seed": Integer(0),
    }

    k_: int
    centroids_: NDArray[np.float32]
    sums_: NDArray[np.float32]
    counts_: NDArray[np.float32]

    def __init__(
        self, k: int | None = None, nearest: int = 8, kappa: float = 5.0, seed: int = 0
    ) -> None:
        self.k = k
        self.nearest = nearest
        self.kappa = kappa
        self.seed = seed

    def _fit(self, data: RoutingData) -> None:
        self.k_ = self.k or 0
        super()._fit(data)

    def _learn(self, data: RoutingData, held_out: RoutingData | None) -> None:
        rows = distinct_rows(embeddings_of(data), self.seed)
        most = max(len(rows) // FEWEST_IN_A_CLUSTER, 1)
        if self.k_ == 0 and held_out is not None:
            errors = {}
            for k in [k for k in K_GRID if k <= most] or [most]:
                self._cluster(data, fit_centroids(rows, k, self.seed))
                scores = self._scores(embeddings_of(held_out))
                errors[k] = contrast_error(scores, held_out.quality)
            self.k_ = min(errors, key=lambda k: errors[k])
        self.k_ = self.k_ or min(_USUAL_K, most)
        self._cluster(data, fit_centroids(rows, self.k_, self.seed))

    def _cluster(self, data: RoutingData, centroids: NDArray[np.float32]) -> None:
        rows = embeddings_of(data)
        members = np.zeros((len(centroids), len(rows)), np.float32)
        members[nearest_centroid(rows, centroids), np.arange(len(rows))] = 1.0
        known = ~np.isnan(data.quality)
        self.centroids_ = centroids
        self.sums_ = members @ np.where(known, data.quality, 0.0).astype(np.float32)
        self.counts_ = members @ known.astype(np.float32)

    def _raw(self, batch: QueryBatch) -> Floats:
        assert batch.embeddings is not None  # checked by `predict`
        return self._scores(batch.embeddings)

    def _scores(self, rows: NDArray[np.float32]) -> Floats:
        # Blocks that fit the processor's cache: three times as fast.
        blocks = [self._block(rows[i : i + _BLOCK]) for i in range(0, len(rows), _BLOCK)]
        return np.concatenate(blocks).astype(np.float64)

    def _block(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        weights = self._weights(rows @ self.centroids_.T)
        # with kappa 0, an LLM measured in no near cluster gets its mean
        pull = np.float32(max(self.kappa, 1e-6))
        total = weights @ self.sums_ + pull * self.mean_quality_.astype(np.float32)
        return np.asarray(total / (weights @ self.counts_ + pull))

    def _weights(self, similarity: NDArray[np.float32]) -> NDArray[np.float32]:
        k = similarity.shape[1]
        if k == 1:
            return np.ones_like(similarity)
        place = k - 1 - min(self.nearest, k - 1)
        ahead = similarity - np.partition(similarity, place, axis=1)[:, place, None]
        ahead += np.float32(_EDGE)
        np.maximum(ahead, 0, out=ahead)
        return np.asarray(ahead / ahead.max(axis=1, keepdims=True))
