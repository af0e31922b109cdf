"""Exact nearest neighbours by cosine, the same alone, in any batch and in any row order.

Matrix products are taken in float32 to find the candidates, for a block of queries at once; their
similarities are then computed again in float64, one query at a time (where that costs more, all
products are float64), so that the size of a batch cannot move a neighbour in or out. Rows that are
equally similar to a query at the k-th place share what is left of the k, rather than the order of
the file choosing among them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from waypost.contracts.records import QueryBatch
from waypost.contracts.types import Floats, Floats32

TIE = 1e-9
"""Float64 similarities closer than this are equal."""

SAME = 1.0 - 1e-5
"""Rows more similar than this are one question asked twice."""

FLOAT32_ERROR = 1e-5
_BLOCK_BYTES = 16e6
_LARGEST_GROUP = 16
_LARGEST_COPY = 64e6
_LEFT_OUT = -2.0


@dataclass(frozen=True, eq=False)
class Neighbours:
    """The nearest rows of each query, padded to one width.

    Those that `nearest` found come nearest first.

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
        """Return the nearest ``k`` of what `nearest` found for that many or more."""
        if self.similarity.shape[1] == 0:
            return self
        filled = self.share > 0
        places = np.clip(filled.sum(axis=1), 1, k)
        last = self.similarity[np.arange(len(places)), places - 1]
        share = _shares(self.similarity, filled, last, k)
        used = np.s_[:, : int((share > 0).sum(axis=1).max(initial=0))]
        return Neighbours(self.index[used], self.similarity[used], share[used])

    def parts(self, cells: int) -> Iterator[Neighbours]:
        """Cut it into parts of some queries each, with at most so many neighbours in all."""
        size = max(cells // max(self.index.shape[1], 1), 1)
        for start in range(0, len(self.index), size):
            rows = slice(start, start + size)
            yield Neighbours(self.index[rows], self.similarity[rows], self.share[rows])

    @property
    def nearest_similarity(self) -> Floats:
        """Similarity of each query's nearest row, (n_queries,); -1 where it has none."""
        if self.similarity.shape[1] == 0:
            return np.full(len(self.similarity), -1.0)
        return np.asarray(self.similarity.max(axis=1))


def nearest(
    memory: Floats32, queries: Floats32, k: int, *, other_questions_only: bool = False
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
    if _doubles_pay(memory, len(queries), k):
        memory, queries = memory.astype(np.float64), queries.astype(np.float64)
    size = block_size(memory)
    parts = [queries[start : start + size] for start in range(0, len(queries), size)]
    return joined([_search(memory, part, k, other_questions_only) for part in parts], k)


def block_size(memory: NDArray[Any]) -> int:
    """Return of how many queries at once the products with all rows are taken."""
    return max(1, int(_BLOCK_BYTES / (memory.itemsize * len(memory))))


def _doubles_pay(memory: Floats32, n_queries: int, k: int) -> bool:
    """Say whether float64 products with all rows cost less than float32 ones and k again.

    A product costs a thirtieth of reading a row for a query alone; the memory is copied first.
    """
    n_rows, dimension = memory.shape
    spared = k - n_rows / 32  # in rows read for one query
    return bool(n_rows * dimension * 8 <= _LARGEST_COPY and n_queries * spared > 2 * n_rows)


Ranked = tuple[NDArray[np.intp], Floats]
"""Rows of some queries and their similarities, (n_queries, width); -inf is padding."""


def _search(
    memory: NDArray[Any], queries: NDArray[Any], k: int, other_questions_only: bool
) -> Ranked:
    """Search float32 or float64 rows."""
    product = queries @ memory.T
    if other_questions_only:
        product[product > SAME] = _LEFT_OUT
    least = np.maximum(bound(product, k), product.dtype.type(_LEFT_OUT / 2)) - FLOAT32_ERROR
    # nonzero of a flat mask: half as long as of one with rows
    place = np.flatnonzero(product >= least[:, None])
    query, row = np.divmod(place, product.shape[1])
    if product.dtype == np.float64:
        return ranked(len(queries), query, row, product.ravel()[place], k)
    return ranked(len(queries), query, row, exactly(memory, queries, query, row), k)


def bound(values: NDArray[Any], k: int) -> NDArray[Any]:
    """Return a number for each row that its k-th highest value is not below, (n,).

    The highest of each of more than k groups, and of these the k-th: a group that has it or more
    has a value that high. With several values a group it is a small part of a full selection.
    """
    n = values.shape[1]
    of_a_group = min(max(n // (2 * k), 1), _LARGEST_GROUP)
    groups = n // of_a_group
    highest = values
    if of_a_group > 1:
        cut = values[:, : groups * of_a_group].reshape(len(values), of_a_group, groups)
        highest = cut.max(axis=1)
    return np.partition(highest, groups - k, axis=1)[:, groups - k]


def exactly(
    memory: Floats32, queries: Floats32, query: NDArray[np.intp], row: NDArray[np.intp]
) -> Floats:
    """Return float64 similarities of pairs, in the order of their queries, (n_pairs,)."""
    similarity = np.empty(len(query))
    bounds = np.searchsorted(query, np.arange(len(queries) + 1)).tolist()
    for (start, end), one in zip(pairwise(bounds), queries.astype(np.float64), strict=True):
        np.dot(memory[row[start:end]].astype(np.float64), one, out=similarity[start:end])
    return similarity


def ranked(
    n_queries: int, query: NDArray[np.intp], row: NDArray[np.intp], similarity: Floats, k: int
) -> Ranked:
    """Order each query's candidates; keep k and all that tie with the k-th.

    Args:
        n_queries: Queries, some of which may have no candidate.
        query: Whose candidate it is, (n_candidates,), ascending.
        row: Which row of the memory it is, (n_candidates,), ascending for each query.
        similarity: (n_candidates,), float64.
        k: Rows to keep of each query, where there are so many.
    """
    return ordered(*padded(n_queries, query, row, similarity), k)


def padded(
    n_queries: int, query: NDArray[np.intp], row: NDArray[np.intp], similarity: Floats
) -> Ranked:
    """Give each query a row of its candidates, in their order; arguments as of `ranked`."""
    counts = np.bincount(query, minlength=n_queries)
    shape = (n_queries, int(counts.max(initial=0)))
    if n_queries * shape[1] == len(query):  # all have as many, as one alone always has
        return row.reshape(shape), similarity.reshape(shape)
    index, filled = np.zeros(shape, np.intp), np.full(shape, -np.inf)
    column = np.arange(len(query)) - np.repeat(np.cumsum(counts) - counts, counts)
    index[query, column], filled[query, column] = row, similarity
    return index, filled


def ordered(index: NDArray[np.intp], similarity: Floats, k: int) -> Ranked:
    """Sort each query's candidates; keep k and all that tie with the k-th."""
    if similarity.shape[1] == 0:
        return index, similarity
    row_of = np.arange(len(index))[:, None]  # take_along_axis would cost much of a decision
    order = np.argsort(-similarity, axis=1, kind="stable")
    index, similarity = index[row_of, order], similarity[row_of, order]
    places = np.clip((similarity > -np.inf).sum(axis=1), 1, k) - 1
    similarity[similarity < similarity[row_of, places[:, None]] - TIE] = -np.inf
    most = int((similarity > -np.inf).sum(axis=1).max())
    return index[:, :most], similarity[:, :most]


def joined(parts: Sequence[Ranked], k: int) -> Neighbours:
    """Put the queries of several searches below each other, padded to one width.

    Args:
        parts: Of each query its k nearest rows and those that tie with the k-th.
        k: Rows searched for.
    """
    if len(parts) == 1 and not np.isinf(parts[0][1]).any():
        filled = np.ones(parts[0][0].shape, bool)
        return _shared(*parts[0], filled, k)
    width = max((index.shape[1] for index, _ in parts), default=0)
    n_queries = sum(len(index) for index, _ in parts)
    index, similarity = np.zeros((n_queries, width), np.intp), np.full((n_queries, width), -1.0)
    filled = np.zeros((n_queries, width), bool)
    start = 0
    for rows, similarities in parts:
        place = np.s_[start : start + len(rows), : rows.shape[1]]
        known = similarities > -np.inf
        filled[place] = known
        index[place] = np.where(known, rows, 0)
        similarity[place] = np.where(known, similarities, -1.0)
        start += len(rows)
    return _shared(index, similarity, filled, k)


def _shared(
    index: NDArray[np.intp], similarity: Floats, filled: NDArray[np.bool_], k: int
) -> Neighbours:
    last = similarity.min(axis=1, initial=2.0, where=filled)
    return Neighbours(index, similarity, _shares(similarity, filled, last, k))


def _shares(similarity: Floats, filled: NDArray[np.bool_], last: Floats, k: int) -> Floats:
    """Give each neighbour its share of k places; those that tie with the last one split it."""
    count, last = filled.sum(axis=1, keepdims=True), last[:, None]
    inside = filled & (similarity > last + TIE)
    tied = filled & (np.abs(similarity - last) <= TIE)
    left = np.minimum(k, count) - inside.sum(axis=1, keepdims=True)
    share: Floats = inside + tied * (left / np.maximum(tied.sum(axis=1, keepdims=True), 1))
    return share


def neighbour_mean(
    values: NDArray[np.floating[Any]], weights: Floats, prior: Floats, kappa: float | Floats
) -> Floats:
    """Average the neighbours' values, shrunk towards a prior; unknown values have no part.

    Args:
        values: Of each query's neighbours, (n_queries, width, n_columns); NaN where unknown.
        weights: (n_queries, width), at least 0.
        prior: (n_columns,), what a query without any known neighbour gets; NaN where unknown.
        kappa: Weight of the prior, counted in neighbours; one for all columns or of each.

    Returns:
        (n_queries, n_columns); NaN only where neither a neighbour's value nor the prior is known.
    """
    known = ~np.isnan(values)
    rows = weights[:, None, :]
    # not einsum, whose own cost counts beside the few rows of one request
    if known.all():
        total = (rows @ values)[:, 0, :]
        count = np.repeat(weights.sum(axis=1)[:, None], values.shape[2], axis=1)
    else:
        total = (rows @ np.where(known, values, 0.0))[:, 0, :]
        count = (rows @ known)[:, 0, :]
    without = np.isnan(prior)
    pull = np.where(without, 0.0, np.where(count > 0, kappa, 1.0))
    total += pull * np.where(without, 0.0, prior)
    count += pull
    mean: Floats = np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)
    return mean


def similarity_floor(rows: Floats32, nearest_similarity: Floats, quantile: float) -> float:
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


def neighbours(batch: QueryBatch, memory: Floats32, k: int) -> Neighbours:
    """Find the ``k`` most similar rows of ``memory`` for each query of the batch.

    Routers that are asked with one batch and hold one memory share its products, where these are
    few enough to be kept: a product with all rows is most of what a decision costs.

    Args:
        batch: With embeddings, unit rows of ``memory``'s width.
        memory: float32 (n_rows, d), unit rows.
        k: At least 1; capped at n_rows.
    """
    assert batch.embeddings is not None  # `predict` looked
    queries, k, size = batch.embeddings, min(k, len(memory)), block_size(memory)
    if len(queries) <= size:
        product = batch.once(memory, lambda: queries @ memory.T)
        return joined([_nearest_by(memory, queries, product, k)], k)
    blocks = (queries[start : start + size] for start in range(0, len(queries), size))
    return joined([_nearest_by(memory, block, block @ memory.T, k) for block in blocks], k)


def _nearest_by(
    memory: Floats32, queries: Floats32, product: NDArray[np.float32], k: int
) -> Ranked:
    least = bound(product, k) - 2 * FLOAT32_ERROR
    place = np.flatnonzero(product >= least[:, None])
    query, row = np.divmod(place, product.shape[1])
    values = product.ravel()[place].astype(np.float64)
    index, similarity = padded(len(queries), query, row, values)
    # What is above the k-th product by more than both may be wrong is near for certain.
    query, column = np.nonzero(np.abs(similarity - _last_of(similarity, k)) <= 2 * FLOAT32_ERROR)
    similarity[query, column] = _similarities(memory[index[query, column]], queries[query])
    query, column = np.nonzero(similarity >= _last_of(similarity, k) - TIE)
    return padded(len(queries), query, index[query, column], similarity[query, column])


def _last_of(similarity: Floats, k: int) -> Floats:
    """Return each query's k-th highest similarity, (n_queries, 1)."""
    place = similarity.shape[1] - k
    return np.partition(similarity, place, axis=1)[:, place, None]


def _similarities(rows: Floats32, queries: Floats32) -> Floats:
    # a sum for each pair, so that what else is searched for moves none of them
    products: NDArray[Any] = rows.astype(np.float64) * queries
    return np.asarray(products.sum(axis=1))
