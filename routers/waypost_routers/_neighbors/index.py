"""Candidates among many rows, by faiss: inverted lists of vectors in 8 bits a number.

The lists nearest to a query are read instead of all rows. What they give is ranked again by the
vectors themselves in float64, as an exact search ranks its own candidates, so that similarities,
ties and shares are those of an exact search over the rows that were found.
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
"""Lists read for a query: an eighth of 100,000 rows."""

_LISTS = 1.6
"""Lists, in square roots of the number of rows."""

_ROUNDS = 10
_LEARNED_FROM = 64
"""Rows that the centre of a list is learned from, on average, at most."""

_SPARE = 6
"""Rows read for each that is asked for, at least; where k is so large, the search is exact."""

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
        """Cut the memory into lists; the same rows give the same lists.

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
        faiss.omp_set_num_threads(1)  # sums do not depend on how many cores there are
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
        """Find about the ``k`` most similar rows for each query; see `_memory.nearest`.

        Args:
            memory: What the index was built from.
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
        wanted = min(k + max(k // 2, 32), len(memory))  # 8 bits may misplace some of them
        queries = np.ascontiguousarray(queries, np.float32)
        # one product a query: a list at the border is read or not whatever else is asked
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
        # Where nothing was left over, rows as similar as the last may not have been found.
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
        """Return faiss's own bytes; no code is among them."""
        return {"lists": _faiss().serialize_index(self.lists)}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Index:
        """Rebuild it from `to_arrays`.

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
