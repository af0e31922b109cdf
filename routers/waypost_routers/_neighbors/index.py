"""Approximate nearest neighbours by faiss: inverted lists of 8-bit quantized vectors.

Only the lists nearest to a query are read. Their rows are ranked again by float64 products of the
original vectors, as in the exact search. So similarities, ties and shares are those of an exact
search over the rows found.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from waypost.contracts.errors import MissingExtraError
from waypost.contracts.types import Floats32
from waypost_routers._neighbors.memory import Neighbours, Ranked, exactly, joined, nearest, ranked

LISTS_READ = 64
"""Number of lists read for a query: an eighth of the lists for 100,000 rows."""

_LISTS = 1.6
"""Number of lists over the square root of the number of rows."""

_ROUNDS = 10
_LEARNED_FROM = 64
"""Maximum mean number of training rows per list centre."""

_SPARE = 6
"""Minimum number of rows read per neighbour requested; with fewer, the search is exact."""

_BLOCK = 256


@dataclass(frozen=True, eq=False)
class Index:
    """Inverted lists over the rows of a memory.

    Attributes:
        lists: A ``faiss.IndexIVFScalarQuantizer``.
        centres: float32 (n_lists, d), the lists' centres.
    """

    lists: Any
    centres: Floats32

    @classmethod
    def build(cls, memory: Floats32, seed: int = 0) -> Index:
        """Build the lists; the same rows give the same lists.

        Raises:
            MissingExtraError: faiss is not installed.
        """
        faiss = _faiss()
        n_rows, dimension = memory.shape
        count = min(max(1, round(_LISTS * n_rows**0.5)), n_rows)
        product = faiss.METRIC_INNER_PRODUCT
        lists = faiss.IndexIVFScalarQuantizer(
            faiss.IndexFlatIP(dimension), dimension, count, faiss.ScalarQuantizer.QT_8bit, product
        )
        lists.cp.seed, lists.cp.niter = seed, _ROUNDS
        lists.cp.min_points_per_centroid, lists.cp.max_points_per_centroid = 1, _LEARNED_FROM
        threads = faiss.omp_get_max_threads()
        faiss.omp_set_num_threads(1)  # rounding must not depend on the number of cores
        try:
            lists.train(memory)
            lists.add(memory)
        finally:
            faiss.omp_set_num_threads(threads)
        return cls._of(lists)

    @classmethod
    def _of(cls, lists: Any) -> Index:
        lists.nprobe = min(LISTS_READ, lists.nlist)
        return cls(lists, lists.quantizer.reconstruct_n(0, lists.nlist))

    def nearest(self, memory: Floats32, queries: Floats32, k: int) -> Neighbours:
        """Return approximately the ``k`` most similar rows for each query; see `memory.nearest`.

        Args:
            memory: Rows that the index was built from.
            queries: float32 (n_queries, d), unit rows.
            k: At least 1; capped at the number of rows.
        """
        k = min(k, len(memory))
        read = self.lists.nprobe * len(memory) / self.lists.nlist
        if self.lists.nprobe < self.lists.nlist and read < _SPARE * k:
            return nearest(memory, queries, k)
        starts = range(0, len(queries), _BLOCK)
        return joined([self._search(memory, queries[i : i + _BLOCK], k) for i in starts], k)

    def _search(self, memory: Floats32, queries: Floats32, k: int) -> Ranked:
        wanted = min(k + max(k // 2, 32), len(memory))  # quantization may misrank some rows
        queries = np.ascontiguousarray(queries, np.float32)
        # one product per query, so that the lists read do not depend on the batch
        near = np.stack([self.centres @ query for query in queries])
        place = near.shape[1] - self.lists.nprobe
        read = np.argpartition(near, place, axis=1)[:, place:]
        products = np.take_along_axis(near, read, axis=1)
        _, found = self.lists.search_preassigned(queries, wanted, read, products)
        found = np.sort(found, axis=1)
        query, column = np.nonzero(found >= 0)
        row = found[query, column]
        similar = exactly(memory, queries, query, row)
        index, similarity = ranked(len(queries), query, row, similar, k)
        kept, had = (similarity > -np.inf).sum(axis=1), (found >= 0).sum(axis=1)
        # If no candidate was left over, rows tied with the last one may be missing.
        short = np.flatnonzero((kept == had) & (had < len(memory)))
        if len(short) == 0:
            return index, similarity
        exact = nearest(memory, queries[short], k)
        width = max(index.shape[1], exact.index.shape[1])
        wide = ((0, 0), (0, width - index.shape[1]))
        index, similarity = np.pad(index, wide), np.pad(similarity, wide, constant_values=-np.inf)
        index[short], similarity[short] = 0, -np.inf
        found_there = exact.share > 0
        index[short, : exact.index.shape[1]] = exact.index
        similarity[short, : exact.index.shape[1]] = np.where(found_there, exact.similarity, -np.inf)
        return index, similarity

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Return the index as faiss's serialized bytes, which contain no code."""
        return {"lists": _faiss().serialize_index(self.lists)}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Index:
        """Rebuild the index from `to_arrays`.

        Raises:
            MissingExtraError: faiss is not installed.
        """
        return cls._of(_faiss().deserialize_index(np.ascontiguousarray(arrays["lists"])))


def _faiss() -> Any:
    try:
        import faiss
    except ImportError:
        raise MissingExtraError("faiss", "train") from None
    return faiss
