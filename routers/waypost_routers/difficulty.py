"""Send questions that look hard to a strong LLM and the others to a weak one, without training.

A threshold router in the manner of RouteLLM (arXiv 2406.18665) for LLMs of which nothing is known
but their prices. What it knows of questions comes with the package: it was learned on questions and
answers that this repository made (`waypost_routers._difficulty.making`).
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from waypost.contracts.errors import SchemaError, names
from waypost.contracts.parameters import Real, Text
from waypost.contracts.router import Prediction, QueryBatch, ScoreRouter
from waypost.contracts.routing_data import RoutingData
from waypost.contracts.types import Floats
from waypost_routers._difficulty.model import POINTS, shipped


class DifficultyRouter(ScoreRouter):
    """One difficulty per query, and a threshold between a weak and a strong LLM.

    The difficulty d of a query is the share of reference questions that look easier, from 0 to 1:
    longer ones, and those with more numbers, code, LaTeX and arithmetic, look harder. The weak LLM
    has the score 1 - d, the strong one 1 - threshold, the others lie between by their strength. At
    lambda 0 a query goes to the strong LLM where d is above the threshold, so for about a share
    1 - threshold of the queries; a larger lambda sends fewer there. The scores are no measured
    qualities.

    Strength is the training mean where data has scores, else the price. It cannot tell which LLM is
    good at what: only outcomes can. The reference questions are those of the package.

    When to take it:
        Before there is any data, for a pool with a cheap and an expensive LLM.

    Args:
        threshold: Difficulty above which the strong LLM is asked, 0 to 1.
        strong: Name of the strong LLM; None takes the best training mean, else the dearest.
        weak: Name of the weak LLM; None takes the lowest training mean, else the cheapest.

    Learned by ``fit``:
        known_: Whether the data has scores.
    """

    name = "difficulty"
    needs_embeddings = False
    needs_data = False
    new_model_support = "zero-shot"
    parameter_constraints: ClassVar = {
        "threshold": Real(0, 1),
        "strong": Text(optional=True),
        "weak": Text(optional=True),
    }

    known_: bool

    def __init__(
        self, threshold: float = 0.5, strong: str | None = None, weak: str | None = None
    ) -> None:
        self.threshold = threshold
        self.strong = strong
        self.weak = weak

    def _fit(self, data: RoutingData) -> None:
        named = [name for name in (self.strong, self.weak) if name is not None]
        if unknown := [name for name in named if name not in data.names]:
            raise SchemaError(f"{self.name}: strong and weak: there is no LLM {names(unknown)}")
        if len(named) == 2 and self.strong == self.weak:
            raise SchemaError(f"{self.name}: strong and weak are the same LLM")
        self.known_ = len(data) > 0
        self._strengths()

    def _strengths(self) -> Floats:
        """Return the LLMs' strengths, (n_llms,): 0 for the weakest, 1 for the strongest."""
        by = self.mean_quality_ if self.known_ else self._prices()
        unknown = np.isnan(by)
        if unknown.all() and len(by) > 1 and (self.strong is None or self.weak is None):
            raise SchemaError(
                f"{self.name}: no LLM has prices (input_price and output_price): add them, or name "
                "the parameters strong and weak"
            )
        order = np.argsort(np.where(unknown, -np.inf, by), kind="stable")
        strengths = np.empty(len(by))
        strengths[order] = np.linspace(0.0, 1.0, len(by)) if len(by) > 1 else 1.0
        known = self.model_names
        if self.weak is not None:
            strengths[known.index(self.weak)] = -1.0
        if self.strong is not None:
            strengths[known.index(self.strong)] = 2.0
        places = np.argsort(np.argsort(strengths, kind="stable"), kind="stable")
        return np.asarray(places / max(len(by) - 1, 1)) if len(by) > 1 else np.ones(1)

    def _prices(self) -> Floats:
        prices = self.cost_model_.prices
        return np.asarray((3 * prices[:, 0] + prices[:, 1]) / 4)

    def difficulty(self, texts: list[str]) -> Floats:
        """Return the difficulty of texts, (n,), from 0 to 1.

        Raises:
            NotFittedError: before `fit`.
        """
        self._require_fitted()
        model, shares = shipped(), np.linspace(0.0, 1.0, POINTS)
        return np.interp(model.scores(texts), model.quantiles, shares)

    def _predict(self, batch: QueryBatch) -> Prediction:
        hard = self.difficulty([query.text for query in batch.queries])[:, None]
        strength = self._strengths()[None, :]
        return Prediction(quality=1.0 - (1.0 - strength) * hard - strength * self.threshold)
