"""A uniformly random LLM: the baseline that needs no knowledge at all."""

from __future__ import annotations

from typing import ClassVar

from waypost.contracts.parameters import Integer
from waypost.contracts.router import Prediction, QueryBatch, ScoreRouter
from waypost.contracts.routing_data import RoutingData
from waypost_routers._ranks import rows_of


class RandomRouter(ScoreRouter):
    """Draws uniformly among the LLMs a query may use, whatever its cost weight.

    The draw is a hash of seed and text, so one text always gets the same LLM. Behind the drawn
    one the ranking follows the training means.

    When to take it:
        To gather outcomes that favour no LLM, and as the baseline of all baselines.

    Args:
        seed: Of the draws.
    """

    name = "randomrouter"
    needs_embeddings = False
    forced_exploration = 1.0
    new_model_support = "zero-shot"
    parameter_constraints: ClassVar = {"seed": Integer(0)}

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed

    def _fit(self, data: RoutingData) -> None:
        """Nothing: it draws."""

    def _predict(self, batch: QueryBatch) -> Prediction:
        return Prediction(quality=rows_of(self.mean_quality_, len(batch)))
