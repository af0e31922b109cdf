"""Neighbours at many models and many training questions: by the index, and exactly."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from waypost.bench.routers.data import made_up
from waypost.bench.routers.timing import fitted, memory_mb, singles
from waypost.contracts.records import Query

ROUTER = "knnrouter"
_COMPARED = 200
"""Queries that recall is measured on, at most."""


@dataclass(frozen=True)
class Large:
    """One way to search.

    Attributes:
        fit_s: Of the whole fit, the index and the choice of k included.
        p50_ms, p99_ms: Of one decision.
        memory_mb: Bytes of the learned arrays, the index included, in millions.
        k: Neighbours.
        recall: Share of an exact search's k neighbours that are found.
        same_choice: Share of queries for which the same LLM is chosen as by an exact search.
    """

    fit_s: float
    p50_ms: float
    p99_ms: float
    memory_mb: float
    k: int
    recall: float
    same_choice: float


def time_large(
    n: int, llms: int, dimension: int, alone: int, seed: int
) -> tuple[dict[str, Large], float]:
    """Fit and ask neighbours both ways, on data of `made_up`.

    Args:
        n: Training questions.
        llms: LLMs.
        dimension: Of the embeddings.
        alone: Queries decided alone.
        seed: Of the data.

    Returns:
        ``index`` and ``exact``; and the megabytes of the index alone.
    """
    data = made_up(n + alone, llms, dimension, seed)
    asked = data.select(np.arange(n, n + alone))
    data = data.select(np.arange(n))
    queries = tuple(Query(text) for text in asked.queries)
    rows = np.asarray(asked.embeddings)
    found: dict[str, Large] = {}
    chosen: dict[str, list[str]] = {}
    index_mb = 0.0
    for name, kind in (("exact", "exact"), ("index", "ivf")):
        router, fit_s = fitted(ROUTER, {"index": kind}, data)
        each: Any = router

        def ask(i: int, router: Any = router) -> Any:
            return router.decide(queries[i : i + 1], rows[i : i + 1])[0]

        p50, p99 = singles(ask, alone)
        chosen[name] = [ask(i).model for i in range(min(alone, _COMPARED))]
        recall = 1.0
        if each.index_ is not None:
            index_mb = sum(a.nbytes for a in each.index_.to_arrays().values()) / 1e6
            recall = _recall(each, rows[:_COMPARED])
        same = np.mean([a == b for a, b in zip(chosen[name], chosen["exact"], strict=True)])
        found[name] = Large(fit_s, p50, p99, memory_mb(router), each.k_, recall, float(same))
    return found, index_mb


def _recall(router: Any, rows: NDArray[np.float32]) -> float:
    k = router.k_
    near = router.index_.nearest(router.memory_, rows, k)
    product = rows @ router.memory_.T
    best = np.argpartition(product, product.shape[1] - k, axis=1)[:, -k:]
    shares = [
        np.isin(exact, index[share > 0]).mean()
        for exact, index, share in zip(best, near.index, near.share, strict=True)
    ]
    return float(np.mean(shares))
