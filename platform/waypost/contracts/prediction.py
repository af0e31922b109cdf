"""What a score router is asked, and what it answers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from waypost.contracts.records import Query

FloatMatrix: TypeAlias = "NDArray[np.floating[Any]]"
T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class QueryBatch:
    """Queries as a router sees them.

    Attributes:
        queries: The n queries.
        embeddings: float32 (n, d), unit rows; None for routers that need none.
    """

    queries: tuple[Query, ...]
    embeddings: NDArray[np.float32] | None = None
    _known: dict[int, tuple[object, Any]] = field(default_factory=dict, init=False, repr=False)

    def __len__(self) -> int:
        return len(self.queries)

    def once(self, owner: object, make: Callable[[], T]) -> T:
        """Compute what follows from this batch and ``owner``, or return it where somebody has.

        So the members of an ensemble, which are asked with one batch, share what they have in
        common.

        Args:
            owner: What it is computed with besides the batch, known by identity: an array, a
                part of a router's state, a function. One owner has one value.
            make: Computes it; nobody changes the value afterwards.
        """
        known = self._known.get(id(owner))
        # held here, so that no other object takes its place in memory
        if known is None or known[0] is not owner:
            known = self._known[id(owner)] = (owner, make())
        value: T = known[1]
        return value


@dataclass(frozen=True, eq=False)
class Prediction:
    """What a score router says of a batch; every matrix has shape (n_queries, n_llms).

    Attributes:
        quality: Expected score in [0, 1] of each LLM.
        output_tokens: Expected generated tokens; None takes each LLM's training mean.
        recorded_usd: Expected recorded dollars, used where prices are unknown; None likewise, and
            where every price is known (`CostModel.asks_recorded`).
        confidence: In [0, 1]: how sure it is that this LLM is among the best; None where the
            router has no notion of it.
        out_of_distribution: Shape (n_queries,), True where the query is unlike the training
            data; such a row is decided by the LLMs' training means. None is nowhere.
    """

    quality: FloatMatrix
    output_tokens: FloatMatrix | None = None
    recorded_usd: FloatMatrix | None = None
    confidence: FloatMatrix | None = None
    out_of_distribution: NDArray[np.bool_] | None = None
