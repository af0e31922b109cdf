"""Always choose the LLM with the lowest price."""

from __future__ import annotations

import logging

import numpy as np
from numpy.typing import NDArray

from waypost.contracts.cost import DEFAULT_CHARACTERS
from waypost.contracts.errors import SchemaError, names
from waypost.contracts.router import Prediction, QueryBatch, ScoreRouter
from waypost.contracts.routing_data import RoutingData
from waypost_routers._ranks import rows_of, scores_by_rank

logger = logging.getLogger(__name__)


class CheapestLLM(ScoreRouter):
    """A fixed ranking of the LLMs by price, cheapest first.

    If every price is known, LLMs are compared by blended price (three input tokens for each output
    token). Otherwise they are compared by the dollars of a call of average length: from prices
    where they are known, else from recorded costs. LLMs with neither come last, with a warning at
    fit. Changed prices take effect without a new fit. The quality scores encode only the order.
    Ties go to the cheaper call, then to the first name in alphabetical order.

    When to take it:
        As the low-cost end of the quality-cost curve.

    Learned by ``fit``:
        mean_characters_: Mean length of the training queries, in characters; without queries
            `DEFAULT_CHARACTERS`.
    """

    name = "cheapest_llm"
    needs_embeddings = False
    new_model_support = "zero-shot"
    needs_data = False

    mean_characters_: float

    def _fit(self, data: RoutingData) -> None:
        lengths = [len(text) for text in data.queries]
        self.mean_characters_ = float(np.mean(lengths)) if lengths else DEFAULT_CHARACTERS
        unknown = np.isnan(self._prices())
        if unknown.all():
            raise SchemaError(
                f"{self.name}: no LLM has prices (input_price and output_price) or a recorded "
                "cost_usd; add either"
            )
        if unknown.any():
            without = [name for name, u in zip(data.names, unknown, strict=True) if u]
            logger.warning("%s: cost unknown, never preferred: %s", self.name, names(without))

    def _prices(self) -> NDArray[np.float64]:
        prices = self.cost_model_.prices
        if np.isnan(prices).any():
            return np.asarray(self.cost_model_.predict(np.array([self.mean_characters_]))[0])
        return np.asarray((3 * prices[:, 0] + prices[:, 1]) / 4)

    def _predict(self, batch: QueryBatch) -> Prediction:
        return Prediction(quality=rows_of(scores_by_rank(self._prices()), len(batch)))
