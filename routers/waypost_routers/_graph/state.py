"""The inference state of a trained graph: a projection, node states, and dot products."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from waypost.contracts.types import Floats, Floats32
from waypost_routers._neighbors.memory import Neighbours


@dataclass(frozen=True, eq=False)
class GraphState:
    """A scorer by one projection, the nearest training queries and one dot product per LLM.

    Attributes:
        memory: float32 (n, d), embeddings of the training queries.
        near: float32 (n, hidden), message of each training query to a query near it.
        projection: float32 (d, hidden).
        bias: (hidden,).
        llms: (n_llms, hidden).
        level: (n_llms,).
        tau: (1,), temperature of the neighbours' weights.
    """

    memory: Floats32
    near: Floats32
    projection: Floats32
    bias: Floats
    llms: Floats
    level: Floats
    tau: Floats

    def logits(self, rows: Floats32, found: Neighbours) -> Floats:
        """Return the logits of the scores, (n_rows, n_llms), for rows and their neighbours."""
        behind = found.similarity - found.nearest_similarity[:, None]
        weights = found.share * np.exp(behind / self.tau[0])
        weights /= weights.sum(axis=1, keepdims=True)
        near = (weights[:, None, :] @ self.near[found.index].astype(np.float64))[:, 0, :]
        own = rows.astype(np.float64) @ self.projection.astype(np.float64)
        state = np.maximum(own + near + self.bias, 0.0)
        return np.asarray(state @ self.llms.T + self.level)

    def in_order(self, order: NDArray[np.intp]) -> GraphState:
        """Return the state with LLM ``order[k]`` at place k."""
        return replace(self, llms=self.llms[order], level=self.level[order])

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Return the state as named arrays."""
        return dict(vars(self))

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> GraphState:
        """Rebuild the state from `to_arrays`."""
        return cls(**arrays)
