"""Always the LLM with the most parameters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from numpy.typing import NDArray

from waypost.contracts.records import LLMInfo
from waypost.contracts.router import Prediction, QueryBatch, ScoreRouter
from waypost.contracts.routing_data import RoutingData
from waypost_routers._ranks import rows_of, scores_by_rank, sizes


class LargestLLM(ScoreRouter):
    """Orders the LLMs by total parameters, the most first.

    Largest is not best: compare best_single. A mixture such as 8x22B counts all its experts.
    LLMs of unknown size come last, with a warning when the router is fitted or loaded. Equal
    sizes are ties, which the policy gives to the cheaper call, then to the lower name. The
    quality scores state the order only.
    """

    name = "largest_llm"
    needs_embeddings = False
    new_model_support = "zero-shot"

    def _fit(self, data: RoutingData) -> None:
        self._order()

    def set_state(
        self, llms: Sequence[LLMInfo], arrays: Mapping[str, NDArray[Any]], values: Mapping[str, Any]
    ) -> None:
        """Take over a state; see `ScoreRouter.set_state`."""
        super().set_state(llms, arrays, values)
        self._order()

    def _order(self) -> None:
        self.scores_ = scores_by_rank(-sizes(self.llms_, self.name))

    def _predict(self, batch: QueryBatch) -> Prediction:
        return Prediction(quality=rows_of(self.scores_, len(batch)))
