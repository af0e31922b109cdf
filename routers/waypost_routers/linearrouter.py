"""A linear map from the query's embedding to each LLM's score."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from waypost.contracts.parameters import Real
from waypost.contracts.router import QueryBatch
from waypost.contracts.routing_data import RoutingData
from waypost_routers._learned import Floats, LearnedRouter, embeddings_of
from waypost_routers._ridge import PENALTIES, Ridge, fit_ridge, folds_of


class LinearRouter(LearnedRouter):
    """Ridge regression of the measured scores, one column an LLM (the mean of LinUCB).

    Args:
        penalty: In hundredths of the training questions' total squared distance from their mean;
            None chooses it at fit by cross-validation.

    Learned by ``fit``:
        ridge_: The map.
    """

    name = "linearrouter"
    new_model_support = "few-shot"
    link = "identity"
    state_parts: ClassVar = {**LearnedRouter.state_parts, "ridge_": Ridge}
    parameter_constraints: ClassVar = {"penalty": Real(0, open_low=True, optional=True)}

    ridge_: Ridge

    def __init__(self, penalty: float | None = None) -> None:
        self.penalty = penalty

    def _learn_out_of_sample(self, data: RoutingData) -> tuple[NDArray[np.intp], Floats]:
        penalties = PENALTIES if self.penalty is None else (self.penalty,)
        fold = folds_of(data)
        self.ridge_, outside = fit_ridge(embeddings_of(data), data.quality, fold, penalties)
        return np.arange(len(data)), outside

    def _raw(self, batch: QueryBatch) -> Floats:
        embeddings: NDArray[Any] = np.asarray(batch.embeddings)
        return self.ridge_.predict(embeddings)
