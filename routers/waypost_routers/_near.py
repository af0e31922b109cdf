"""The neighbours that a decision goes by: the right rows, their similarities in float32.

Which rows are the nearest is settled as in `_memory.nearest`, ties at the last place included; but
only rows so near to the k-th that float32 cannot tell them apart are read again, a few instead of
some hundred. The other similarities keep the rounding of the product, about 1e-7: whoever takes
fewer of the neighbours, as fits do, searches with `_memory.nearest`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from waypost.contracts.prediction import QueryBatch
from waypost.contracts.types import Floats, Floats32
from waypost_routers._memory import (
    FLOAT32_ERROR,
    TIE,
    Neighbours,
    Ranked,
    block_size,
    bound,
    joined,
    padded,
)


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
        return joined([_search(memory, queries, product, k)], k)
    blocks = (queries[start : start + size] for start in range(0, len(queries), size))
    return joined([_search(memory, block, block @ memory.T, k) for block in blocks], k)


def _search(memory: Floats32, queries: Floats32, product: NDArray[np.float32], k: int) -> Ranked:
    least = bound(product, k) - 2 * FLOAT32_ERROR
    place = np.flatnonzero(product >= least[:, None])
    query, row = np.divmod(place, product.shape[1])
    values = product.ravel()[place].astype(np.float64)
    index, similarity = padded(len(queries), query, row, values)
    # What is above the k-th product by more than both may be wrong is near for certain.
    query, column = np.nonzero(np.abs(similarity - _last(similarity, k)) <= 2 * FLOAT32_ERROR)
    similarity[query, column] = _exactly(memory[index[query, column]], queries[query])
    query, column = np.nonzero(similarity >= _last(similarity, k) - TIE)
    return padded(len(queries), query, index[query, column], similarity[query, column])


def _last(similarity: Floats, k: int) -> Floats:
    """Return each query's k-th highest similarity, (n_queries, 1)."""
    place = similarity.shape[1] - k
    return np.partition(similarity, place, axis=1)[:, place, None]


def _exactly(rows: Floats32, queries: Floats32) -> Floats:
    # a sum for each pair, so that what else is searched for moves none of them
    products: NDArray[Any] = rows.astype(np.float64) * queries
    return np.asarray(products.sum(axis=1))
