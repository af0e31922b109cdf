"""Predict each LLM's score by a linear map of query features."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from waypost.contracts.parameters import OneOf, Real
from waypost.contracts.router import QueryBatch
from waypost.contracts.routing_data import RoutingData
from waypost.contracts.types import Floats
from waypost_routers._learned import LearnedRouter
from waypost_routers._linear.ridge import PENALTIES, Ridge, fit_ridge, folds_of
from waypost_routers._linear.text import form_features, text_features, word_features


class LinearRouter(LearnedRouter):
    """Ridge regression of the measured scores, one output per LLM.

    The prediction is the mean estimate of LinUCB (arXiv 1003.0146), without its exploration bonus.

    When to take it:
        When decisions must be as fast as possible, or when there are only a few hundred questions.
        ``words`` and ``form`` need no trained encoder.

    Args:
        features: ``embedding``; ``words``: hashed words and word pairs; ``form``: hashed character
            n-grams with letters and digits masked; or ``all`` three concatenated.
        penalty: Ridge penalty above 0, in hundredths of the total squared distance of the training
            features from their mean; None chooses it at fit by cross-validation.

    Learned by ``fit``:
        ridge_: The fitted linear map.
    """

    name = "linearrouter"
    new_model_support = "few-shot"
    link = "identity"
    state_parts: ClassVar = {**LearnedRouter.state_parts, "ridge_": Ridge}
    parameter_constraints: ClassVar = {
        "features": OneOf(("embedding", "words", "form", "all")),
        "penalty": Real(0, open_low=True, optional=True),
    }

    ridge_: Ridge

    def __init__(self, features: str = "embedding", penalty: float | None = None) -> None:
        self.features = features
        self.penalty = penalty

    def _learn_out_of_sample(self, data: RoutingData) -> tuple[NDArray[np.intp], Floats]:
        penalties = PENALTIES if self.penalty is None else (self.penalty,)
        rows = self._features(data.batch())
        self.ridge_, outside = fit_ridge(
            rows, data.quality, folds_of(data), penalties, contrasts=True
        )
        return np.arange(len(data)), outside

    def _raw(self, batch: QueryBatch) -> Floats:
        return self.ridge_.predict(self._features(batch))

    def _features(self, batch: QueryBatch) -> NDArray[Any]:
        embedding: NDArray[Any] = np.asarray(batch.embeddings)
        if self.features == "embedding":
            return embedding
        if self.features == "words":
            return text_features(batch, word_features)
        if self.features == "form":
            return text_features(batch, form_features)
        of_text = [text_features(batch, kind) for kind in (word_features, form_features)]
        return np.concatenate([embedding, *of_text], axis=1)
