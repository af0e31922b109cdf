"""Training data in one form, whatever the order of rows and LLMs and however often a row stands.

Iterative fits amplify rounding. Given the same numbers in the same order they repeat exactly, so
that a permuted pool or a file written twice cannot change what is learned.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from waypost.contracts.routing_data import RoutingData
from waypost.contracts.types import Floats


@dataclass(frozen=True, eq=False)
class Distinct:
    """The distinct embeddings, sorted, and the LLMs by name.

    Attributes:
        rows: float32 (n, d).
        scores: (n, n_llms), mean measured score; 0 where not measured.
        weights: (n, n_llms), share of the LLM's measured cells that are of this row: each column
            sums to 1.
        columns: (n_llms,), the data's column of each LLM here.
        row_of: (n_data,), the row here of each row of the data.
    """

    rows: NDArray[np.float32]
    scores: Floats
    weights: Floats
    columns: NDArray[np.intp]
    row_of: NDArray[np.intp]

    @property
    def known(self) -> NDArray[np.bool_]:
        """Where a score was measured, (n, n_llms)."""
        return self.weights > 0

    def in_data_order(self, values: Floats) -> Floats:
        """Return values whose last axis is the LLMs here in the order of the data's columns."""
        ordered = np.empty_like(values)
        ordered[..., self.columns] = values
        return ordered


def distinct(data: RoutingData) -> Distinct:
    """Merge rows of equal embeddings, sort them, and sort the LLMs by name.

    Args:
        data: With embeddings; each LLM has at least one score.
    """
    assert data.embeddings is not None
    columns = np.array(sorted(range(len(data.llms)), key=lambda j: data.names[j]), np.intp)
    quality = data.quality[:, columns]
    rows, row_of = np.unique(data.embeddings, axis=0, return_inverse=True)
    row_of = row_of.reshape(-1)
    shape = (len(rows), len(columns))
    counts, sums = np.zeros(shape), np.zeros(shape)
    np.add.at(counts, row_of, ~np.isnan(quality))
    np.add.at(sums, row_of, np.nan_to_num(quality))
    return Distinct(
        rows=np.ascontiguousarray(rows, np.float32),
        scores=sums / np.maximum(counts, 1),
        weights=counts / counts.sum(axis=0),
        columns=columns,
        row_of=row_of,
    )
