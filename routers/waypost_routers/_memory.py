"""Exact nearest neighbours by cosine, the same alone, in any batch and in any row order.

Matrix products are taken in float32 to find the candidates; their similarities are then
computed again in float64, one query at a time, so that the size of a batch cannot move a
neighbour in or out. Rows that are equally similar to a query at the k-th place share what is
left of the k, rather than the order of the file choosing among them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.float32]
Floats = NDArray[np.float64]

TIE = 1e-9
"""Float64 similarities closer than this are equal."""

SAME = 1.0 - 1e-5
"""Rows more similar than this are one question asked twice."""

_FLOAT32_ERROR = 1e-5
_BLOCK_BYTES = 64e6
_LEFT_OUT = -2.0


@dataclass(frozen=True, eq=False)
class Neighbours:
    """The nearest rows of each query, nearest first, padded to one width.

    Attributes:
        index: Rows of the memory, (n_queries, width); 0 where ``share`` is 0.
        similarity: Cosine, (n_queries, width); -1 where ``share`` is 0.
        share: In [0, 1]: 1 for a neighbour, less for those tied at the k-th place, 0 for
            padding. A query's shares sum to k, or to the number of rows there were.
    """

    index: NDArray[np.intp]
    similarity: Floats
    share: Floats

    def take(self, k: int) -> Neighbours:
        """Return the nearest ``k`` of these; ``k`` is at most the number searched for."""
        return Neighbours(self.index, self.similarity, _shares(self.similarity, self.share > 0, k))

    @property
    def nearest_similarity(self) -> Floats:
        """Similarity of each query's nearest row, (n_queries,); -1 where it has none."""
        if self.similarity.shape[1] == 0:
            return np.full(len(self.similarity), -1.0)
        return self.similarity[:, 0]


def nearest(
    memory: Rows, queries: Rows, k: int, *, other_questions_only: bool = False
) -> Neighbours:
    """Find the ``k`` most similar rows of ``memory`` for each query.

    Args:
        memory: float32 (n_rows, d), unit rows.
        queries: float32 (n_queries, d), unit rows.
        k: At least 1; capped at n_rows.
        other_questions_only: Leave out rows that are the query itself (`SAME`), as
            leave-one-out estimates must where a question stands in the data twice.
    """
    k = min(k, len(memory))
    found = [
        _one(memory, query, similarity, k, other_questions_only)
        for query, similarity in _similarities(memory, queries)
    ]
    shape = (len(found), max((len(index) for index, _ in found), default=0))
    index, similarity, filled = (
        np.zeros(shape, np.intp),
        np.full(shape, -1.0),
        np.zeros(shape, bool),
    )
    for row, (rows, similarities) in enumerate(found):
        index[row, : len(rows)] = rows
        similarity[row, : len(rows)] = similarities
        filled[row, : len(rows)] = True
    return Neighbours(index, similarity, _shares(similarity, filled, k))


def _similarities(memory: Rows, queries: Rows) -> Iterator[tuple[Rows, Rows]]:
    block = max(1, int(_BLOCK_BYTES / (4 * len(memory))))
    for start in range(0, len(queries), block):
        part = queries[start : start + block]
        yield from zip(part, part @ memory.T, strict=True)


def _one(
    memory: Rows, query: Rows, approximate: Rows, k: int, other_questions_only: bool
) -> tuple[NDArray[np.intp], Floats]:
    """Return the k nearest rows and all that tie with the k-th, nearest first."""
    if other_questions_only:
        approximate = np.where(approximate > SAME, np.float32(_LEFT_OUT), approximate)
    kth = np.partition(approximate, -k)[-k]
    floor = max(kth - _FLOAT32_ERROR, _LEFT_OUT / 2 - _FLOAT32_ERROR)
    candidates = np.flatnonzero(approximate >= floor)
    exact = memory[candidates].astype(np.float64) @ query.astype(np.float64)
    order = np.argsort(-exact, kind="stable")
    similarity = exact[order]
    kept = similarity >= similarity[min(k, len(order)) - 1] - TIE if len(order) else slice(0)
    return candidates[order][kept], similarity[kept]


def _shares(similarity: Floats, filled: NDArray[np.bool_], k: int) -> Floats:
    """Give each of the sorted neighbours its share of k places; ties at the last one split it."""
    if similarity.shape[1] == 0:
        return np.zeros(similarity.shape)
    places = np.minimum(k, filled.sum(axis=1))
    last = similarity[np.arange(len(similarity)), np.maximum(places, 1) - 1][:, None]
    inside = filled & (similarity > last + TIE)
    tied = filled & ~inside & (similarity >= last - TIE)
    part = (places - inside.sum(axis=1)) / np.maximum(tied.sum(axis=1), 1)
    return np.where(inside, 1.0, np.where(tied, part[:, None], 0.0))


def neighbour_mean(
    values: NDArray[np.floating[Any]], weights: Floats, prior: Floats, kappa: float
) -> Floats:
    """Average the neighbours' values, shrunk towards a prior; unknown values have no part.

    Args:
        values: Of each query's neighbours, (n_queries, width, n_llms); NaN where unknown.
        weights: (n_queries, width), at least 0.
        prior: (n_llms,), what a query without any known neighbour gets; NaN where unknown.
        kappa: Weight of the prior, counted in neighbours.

    Returns:
        (n_queries, n_llms); NaN only where neither a neighbour's value nor the prior is known.
    """
    known = ~np.isnan(values)
    rows = weights[:, None, :]
    # not einsum, whose own cost counts beside the few rows of one request
    total = (rows @ np.where(known, values, 0.0))[:, 0, :]
    count = (rows @ known)[:, 0, :]
    without = np.isnan(prior)
    pull = np.where(without, 0.0, np.where(count > 0, kappa, 1.0))
    total += pull * np.where(without, 0.0, prior)
    count += pull
    mean: Floats = np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)
    return mean


def similarity_floor(rows: Rows, nearest_similarity: Floats, quantile: float) -> float:
    """Learn how near the nearest training question usually is.

    Args:
        rows: Training rows, (n, d). A row that stands there several times counts once, so
            that a question asked a thousand times does not decide alone.
        nearest_similarity: (n,) similarity of each to the nearest other question; -1 where
            there is none.
        quantile: Share of the distinct rows below the floor.

    Returns:
        The floor; -1, which nothing is below, where there are no two questions.
    """
    _, first = np.unique(np.round(rows, 5), axis=0, return_index=True)
    known = nearest_similarity[first]
    known = known[known > -1.0]
    return float(np.quantile(known, quantile)) if len(known) else -1.0
