"""Exact nearest neighbours by cosine, independent of batch size and row order.

Float32 matrix products find the candidates for a block of queries. The candidates' similarities are
then computed again in float64, one query at a time, so that the batch size does not change the
neighbours. (If float64 products of all rows cost less, they are used instead.) Rows tied at the
k-th place share the remaining places equally, so that row order does not choose among them.
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
"""Rows more similar than this are duplicates of one question."""

FLOAT32_ERROR = 1e-5
_BLOCK_BYTES = 16e6
_LARGEST_GROUP = 16
_LARGEST_COPY = 64e6
_LEFT_OUT = -2.0


@dataclass(frozen=True, eq=False)
class Neighbours:
    """The nearest rows of each query, padded to one width.

    Rows from `nearest` are sorted, nearest first.

    Attributes:
        index: Rows of the memory, (n_queries, width); 0 where ``share`` is 0.
        similarity: Cosine, (n_queries, width); -1 where ``share`` is 0.
        share: (n_queries, width), in [0, 1]: 1 for a neighbour, less for rows tied at the k-th
            place, 0 for padding. A query's shares sum to k, or to the number of rows if fewer.
    """

    index: NDArray[np.intp]
    similarity: Floats
    share: Floats

    def take(self, k: int) -> Neighbours:
        """Return the nearest ``k``; this must be a result of `nearest` for at least ``k``."""
        if self.similarity.shape[1] == 0:
            return self
        filled = self.share > 0
        places = np.clip(filled.sum(axis=1), 1, k)
        last = self.similarity[np.arange(len(places)), places - 1]
        share = _shares(self.similarity, filled, last, k)
        used = np.s_[:, : int((share > 0).sum(axis=1).max(initial=0))]
        return Neighbours(self.index[used], self.similarity[used], share[used])

    def parts(self, cells: int) -> Iterator[Neighbours]:
        """Yield parts of some queries each, with at most ``cells`` neighbours per part."""
        size = max(cells // max(self.index.shape[1], 1), 1)
        for start in range(0, len(self.index), size):
            rows = slice(start, start + size)
            yield Neighbours(self.index[rows], self.similarity[rows], self.share[rows])

    @property
    def nearest_similarity(self) -> Floats:
        """Similarity of each query's nearest row, (n_queries,); -1 if there is none."""
        if self.similarity.shape[1] == 0:
            return np.full(len(self.similarity), -1.0)
        return np.asarray(self.similarity.max(axis=1))


def nearest(
    memory: Floats32, queries: Floats32, k: int, *, other_questions_only: bool = False
) -> Neighbours:
    """Return the ``k`` most similar rows of ``memory`` for each query.

    Args:
        memory: float32 (n_rows, d), unit rows.
        queries: float32 (n_queries, d), unit rows.
        k: At least 1; capped at n_rows.
        other_questions_only: Leave out the query and its duplicates (`SAME`), for leave-one-out
            estimates.
    """
    k = min(k, len(memory))
    if _doubles_pay(memory, len(queries), k):
        memory, queries = memory.astype(np.float64), queries.astype(np.float64)
    size = block_size(memory)
    parts = [queries[start : start + size] for start in range(0, len(queries), size)]
    return joined([_search(memory, part, k, other_questions_only) for part in parts], k)


def block_size(memory: NDArray[Any]) -> int:
    """Return the number of queries per block of products with all rows."""
    return max(1, int(_BLOCK_BYTES / (memory.itemsize * len(memory))))


def _doubles_pay(memory: Floats32, n_queries: int, k: int) -> bool:
    """Return whether float64 products cost less than float32 ones plus k recomputed in float64.

    A product in a block costs a thirtieth of one for a single query. The float64 copy costs extra.
    """
    n_rows, dimension = memory.shape
    spared = k - n_rows / 32  # in single products per query
    return bool(n_rows * dimension * 8 <= _LARGEST_COPY and n_queries * spared > 2 * n_rows)


Ranked = tuple[NDArray[np.intp], Floats]
"""Neighbours' row indices and similarities, (n_queries, width); similarity -inf is padding."""


def _search(
    memory: NDArray[Any], queries: NDArray[Any], k: int, other_questions_only: bool
) -> Ranked:
    """Return the neighbours of ``queries`` among float32 or float64 rows."""
    product = queries @ memory.T
    if other_questions_only:
        product[product > SAME] = _LEFT_OUT
    least = np.maximum(bound(product, k), product.dtype.type(_LEFT_OUT / 2)) - FLOAT32_ERROR
    # nonzero of a flat mask is twice as fast
    place = np.flatnonzero(product >= least[:, None])
    query, row = np.divmod(place, product.shape[1])
    if product.dtype == np.float64:
        return ranked(len(queries), query, row, product.ravel()[place], k)
    return ranked(len(queries), query, row, exactly(memory, queries, query, row), k)


def bound(values: NDArray[Any], k: int) -> NDArray[Any]:
    """Return a lower bound of each row's k-th highest value, (n,).

    The values are cut into at least k groups. The bound is the k-th highest group maximum, which is
    cheaper than selecting among all values.
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
    """Return float64 similarities of pairs, (n_pairs,); ``query`` is ascending."""
    similarity = np.empty(len(query))
    bounds = np.searchsorted(query, np.arange(len(queries) + 1)).tolist()
    for (start, end), one in zip(pairwise(bounds), queries.astype(np.float64), strict=True):
        np.dot(memory[row[start:end]].astype(np.float64), one, out=similarity[start:end])
    return similarity


def ranked(
    n_queries: int, query: NDArray[np.intp], row: NDArray[np.intp], similarity: Floats, k: int
) -> Ranked:
    """Sort each query's candidates; keep the first k and all ties with the k-th.

    Args:
        n_queries: Number of queries; a query may have no candidate.
        query: Query of each candidate, (n_candidates,), ascending.
        row: Memory row of each candidate, (n_candidates,), ascending within a query.
        similarity: (n_candidates,), float64.
        k: Maximum number of rows per query, without ties.
    """
    return ordered(*padded(n_queries, query, row, similarity), k)


def padded(
    n_queries: int, query: NDArray[np.intp], row: NDArray[np.intp], similarity: Floats
) -> Ranked:
    """Return each query's candidates as one padded row, in their order; see `ranked`."""
    counts = np.bincount(query, minlength=n_queries)
    shape = (n_queries, int(counts.max(initial=0)))
    if n_queries * shape[1] == len(query):  # equal counts, as always for a single query
        return row.reshape(shape), similarity.reshape(shape)
    index, filled = np.zeros(shape, np.intp), np.full(shape, -np.inf)
    column = np.arange(len(query)) - np.repeat(np.cumsum(counts) - counts, counts)
    index[query, column], filled[query, column] = row, similarity
    return index, filled


def ordered(index: NDArray[np.intp], similarity: Floats, k: int) -> Ranked:
    """Sort each query's candidates; keep the first k and all ties with the k-th."""
    if similarity.shape[1] == 0:
        return index, similarity
    row_of = np.arange(len(index))[:, None]  # faster than take_along_axis for one query
    order = np.argsort(-similarity, axis=1, kind="stable")
    index, similarity = index[row_of, order], similarity[row_of, order]
    places = np.clip((similarity > -np.inf).sum(axis=1), 1, k) - 1
    similarity[similarity < similarity[row_of, places[:, None]] - TIE] = -np.inf
    most = int((similarity > -np.inf).sum(axis=1).max())
    return index[:, :most], similarity[:, :most]


def joined(parts: Sequence[Ranked], k: int) -> Neighbours:
    """Concatenate the results of several searches, padded to one width.

    Args:
        parts: For each query its k nearest rows and all ties with the k-th.
        k: Number of rows searched for.
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
    """Return each neighbour's share of k places; rows tied with the last one split the rest."""
    count, last = filled.sum(axis=1, keepdims=True), last[:, None]
    inside = filled & (similarity > last + TIE)
    tied = filled & (np.abs(similarity - last) <= TIE)
    left = np.minimum(k, count) - inside.sum(axis=1, keepdims=True)
    share: Floats = inside + tied * (left / np.maximum(tied.sum(axis=1, keepdims=True), 1))
    return share


def neighbour_mean(
    values: NDArray[np.floating[Any]], weights: Floats, prior: Floats, kappa: float | Floats
) -> Floats:
    """Return the mean of the neighbours' known values, shrunk towards a prior.

    Args:
        values: (n_queries, width, n_columns) values of the neighbours; NaN where unknown.
        weights: (n_queries, width), at least 0.
        prior: (n_columns,), the result without any known neighbour; NaN where unknown.
        kappa: Weight of the prior, counted in neighbours; a scalar or (n_columns,).

    Returns:
        (n_queries, n_columns); NaN only where neither a neighbour's value nor the prior is known.
    """
    known = ~np.isnan(values)
    rows = weights[:, None, :]
    # einsum has more overhead, which matters for the few rows of one request
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
    """Return the similarity below which a query is out of distribution.

    Args:
        rows: Training rows, (n, d). Duplicate rows count once, so that a frequent question does
            not dominate.
        nearest_similarity: (n,) similarity of each row to the nearest other question; -1 if there
            is none.
        quantile: Share of the distinct rows below the floor.

    Returns:
        The floor; -1, which flags nothing, if there are fewer than two questions.
    """
    _, first = np.unique(np.round(rows, 5), axis=0, return_index=True)
    known = nearest_similarity[first]
    known = known[known > -1.0]
    return float(np.quantile(known, quantile)) if len(known) else -1.0


def neighbours(batch: QueryBatch, memory: Floats32, k: int) -> Neighbours:
    """Return the ``k`` most similar rows of ``memory`` for each query of the batch.

    Routers with the same memory share the products of a batch if they fit one block: the products
    with all rows are most of a decision's cost.

    Args:
        batch: With embeddings, unit rows of ``memory``'s width.
        memory: float32 (n_rows, d), unit rows.
        k: At least 1; capped at n_rows.
    """
    assert batch.embeddings is not None  # checked by `predict`
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
    # Only products within twice the float32 error of the k-th can be on the wrong side of it.
    query, column = np.nonzero(np.abs(similarity - _last_of(similarity, k)) <= 2 * FLOAT32_ERROR)
    similarity[query, column] = _similarities(memory[index[query, column]], queries[query])
    query, column = np.nonzero(similarity >= _last_of(similarity, k) - TIE)
    return padded(len(queries), query, index[query, column], similarity[query, column])


def _last_of(similarity: Floats, k: int) -> Floats:
    """Return each query's k-th highest similarity, (n_queries, 1)."""
    place = similarity.shape[1] - k
    return np.partition(similarity, place, axis=1)[:, place, None]


def _similarities(rows: Floats32, queries: Floats32) -> Floats:
    # one sum per pair, so that results do not depend on the batch
    products: NDArray[Any] = rows.astype(np.float64) * queries
    return np.asarray(products.sum(axis=1))
