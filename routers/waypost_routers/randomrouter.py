"""Choose an LLM uniformly at random: the chance-level baseline."""

from __future__ import annotations

from typing import ClassVar

from waypost.contracts.parameters import Integer
from waypost.contracts.router import Prediction, QueryBatch, ScoreRouter
from waypost.contracts.routing_data import RoutingData
from waypost_routers._ranks import rows_of


class RandomRouter(ScoreRouter):
    """A uniform draw among the LLMs allowed for a query, whatever its cost weight.

    The draw is a hash of seed and query text, so the same text always gets the same LLM. Below the
    drawn LLM the ranking follows the training means.

    When to take it:
        To collect outcomes without bias towards any LLM, and as the chance-level baseline.

    Args:
        seed: Seed of the draws.
    """

    name = "randomrouter"
    needs_embeddings = False
    forced_exploration = 1.0
    new_model_support = "zero-shot"
    needs_data = False
    parameter_constraints: ClassVar = {"seed": Integer(0)}

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed

    def _fit(self, data: RoutingData) -> None:
        """Learn nothing: the policy draws."""

    def _predict(self, batch: QueryBatch) -> Prediction:
        return Prediction(quality=rows_of(self.mean_quality_, len(batch)))
