"""Always choose the LLM with the highest mean training score: the baseline to beat."""

from __future__ import annotations

from waypost.contracts.router import Prediction, QueryBatch, ScoreRouter
from waypost.contracts.routing_data import RoutingData
from waypost_routers._ranks import rows_of


class BestSingle(ScoreRouter):
    """A constant prediction: each LLM's mean training score, whatever the query.

    With a cost weight above 0 the policy subtracts each call's predicted cost from the means, so
    the choice is the best single LLM at that lambda.

    When to take it:
        As the baseline that every other router has to beat, and where there are too few measured
        questions to learn more than a mean.
    """

    name = "best_single"
    needs_embeddings = False
    new_model_support = "few-shot"

    def _fit(self, data: RoutingData) -> None:
        """Learn nothing beyond the training means, which the base class computes."""

    def _predict(self, batch: QueryBatch) -> Prediction:
        return Prediction(quality=rows_of(self.mean_quality_, len(batch)))
