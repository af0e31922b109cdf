"""Scores of routers that order the LLMs independently of the query."""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from waypost.contracts.errors import SchemaError, names
from waypost.contracts.records import LLMInfo
from waypost.contracts.router import Prediction, QueryBatch, ScoreRouter
from waypost.contracts.routing_data import RoutingData

logger = logging.getLogger(__name__)


def scores_by_rank(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Turn an order into quality scores.

    Args:
        values: (n_llms,), lower is better, NaN where unknown.

    Returns:
        (n_llms,): the v distinct known values get 1, (v-1)/v, ..., 1/v. Equal values get the same
        score, so that the policy breaks the tie (cheaper first, then by name). Unknown values get
        0 and are chosen only if nothing else is allowed.
    """
    known = ~np.isnan(values)
    distinct, place = np.unique(values[known], return_inverse=True)
    scores = np.zeros(len(values))
    scores[known] = 1.0 - place / max(len(distinct), 1)
    return scores


def rows_of(values: NDArray[np.float64], n_queries: int) -> NDArray[np.float64]:
    """Repeat one row of scores for each query, shape (n_queries, n_llms)."""
    return np.repeat(values[None, :], n_queries, axis=0)


class SizeRouter(ScoreRouter):
    """A fixed ranking of the LLMs by total parameters; a subclass sets the direction.

    A mixture such as 8x22B counts all its experts. LLMs of unknown size come last, with a
    warning when the router is fitted or loaded. Equal sizes are ties, which the policy gives
    to the cheaper call, then to the first name. The quality scores encode only the order.
    """

    needs_embeddings = False
    new_model_support = "zero-shot"
    needs_data = False

    scores_: NDArray[np.float64]

    @abstractmethod
    def _order(self, sizes: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return sort keys, lowest first, from total parameters in billions."""

    def _fit(self, data: RoutingData) -> None:
        self._score()

    def set_state(
        self, llms: Sequence[LLMInfo], arrays: Mapping[str, NDArray[Any]], values: Mapping[str, Any]
    ) -> None:
        """Set the learned state; see `ScoreRouter.set_state`."""
        super().set_state(llms, arrays, values)
        self._score()

    def _score(self) -> None:
        sizes = np.array([np.nan if llm.size_b is None else llm.size_b for llm in self.llms_])
        if np.isnan(sizes).all():
            raise SchemaError(
                f"{self.name}: no LLM has a size (such as size: 7B or 8x22B); add sizes, or use "
                "cheapest_llm, which ranks by price"
            )
        unknown = [llm.name for llm in self.llms_ if llm.size_b is None]
        if unknown:
            logger.warning("%s: size unknown, never preferred: %s", self.name, names(unknown))
        self.scores_ = scores_by_rank(self._order(sizes))

    def _predict(self, batch: QueryBatch) -> Prediction:
        return Prediction(quality=rows_of(self.scores_, len(batch)))
