"""The kinds of router, and what is implemented once for all of them.

    MetaRouter         route_single, route_batch: enough for a plug-in
      TrainableRouter  learns from routing data; its state goes into an artifact
        ScoreRouter    predicts quality (and tokens) of each LLM; the policy decides
      StepRouter       acts step by step (delegate, answer); see `step_router`

A router predicts; it never calls an LLM. Parameters are stored by ``__init__`` and nothing
else happens there; learned state ends in ``_``.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from waypost.contracts import deciding, policy
from waypost.contracts.deciding import Ranked
from waypost.contracts.errors import NotFittedError, SchemaError
from waypost.contracts.prediction import FloatMatrix, Prediction, QueryBatch
from waypost.contracts.records import Decision, Query, QueryLike, RouterKind
from waypost.contracts.trainable import MetaRouter, StatePart, TrainableRouter

__all__ = ["MetaRouter", "Prediction", "QueryBatch", "ScoreRouter", "StatePart", "TrainableRouter"]


class ScoreRouter(TrainableRouter):
    """A router that predicts the score each LLM would earn; the policy does the rest.

    A subclass writes ``__init__``, `_fit` and `_predict`. Routing, cost, ties, budgets and
    exploration are here.
    """

    kind: ClassVar[RouterKind] = "score"

    forced_exploration: ClassVar[float] = 0.0
    """Least share of queries sent to a uniformly drawn LLM, whatever the policy says."""

    row_count_parameters: ClassVar[tuple[str, ...]] = ()
    """Parameters counted in training rows: where every row stands twice they are doubled."""

    @abstractmethod
    def _predict(self, batch: QueryBatch) -> Prediction:
        """Predict a checked batch of at least one query; pure and deterministic."""

    # -- predict ------------------------------------------------------------------------------

    def predict(self, batch: QueryBatch) -> Prediction:
        """Predict what each LLM would do with each query.

        A row depends on its own query only. Pure: no network, no clock, no random draw.

        Raises:
            NotFittedError: before `fit`.
            SchemaError: embeddings missing or not of width ``n_features_in_``.
        """
        self._require_fitted()
        if self.needs_embeddings:
            shape = None if batch.embeddings is None else batch.embeddings.shape
            if shape != (len(batch), self.n_features_in_):
                raise SchemaError(
                    f"{self.name}: embeddings have shape {shape}; "
                    f"expected {(len(batch), self.n_features_in_)}"
                )
        return self._predict(batch)

    def predict_quality(self, batch: QueryBatch) -> NDArray[np.float32]:
        """Predict the score each LLM would earn on each query.

        Returns float32 (n_queries, n_llms), columns as in ``llms_``, values in [0, 1].

        Raises:
            NotFittedError, SchemaError: as `predict`.
        """
        return np.asarray(self.predict(batch).quality, dtype=np.float32)

    # -- route --------------------------------------------------------------------------------

    def route_single(self, query: QueryLike) -> Decision:
        """Decide one query; see `MetaRouter.route_single`."""
        return self.route_batch([query])[0]

    def route_batch(self, queries: Sequence[QueryLike]) -> list[Decision]:
        """Decide several queries with one embedding and one prediction for all of them."""
        parsed = tuple(Query.of(query) for query in queries)
        if not parsed:
            return []
        return self.decide(parsed, self._embed(parsed))

    def decide(
        self, queries: Sequence[Query], embeddings: NDArray[np.float32] | None = None
    ) -> list[Decision]:
        """Decide queries whose embeddings are at hand (float32, (n, d), or None if not needed).

        Where only one LLM may be chosen the router is not consulted.

        Raises:
            PolicyError: of the first query for which no model may be chosen.
        """
        queries = tuple(queries)
        known = self.model_names
        allowed = deciding.allowed_mask(queries, self.policy, known)
        free = np.flatnonzero(allowed.sum(axis=1) > 1)
        prediction = None
        quality = np.repeat(self.mean_quality_[None, :], len(queries), axis=0)
        cost = (
            np.empty(quality.shape)
            if len(free) == len(queries)
            else self.predict_cost(QueryBatch(queries))
        )
        if len(free):
            batch = QueryBatch(
                tuple(queries[i] for i in free), None if embeddings is None else embeddings[free]
            )
            prediction = self.predict(batch)
            quality[free] = deciding.decision_quality(prediction, self.mean_quality_)
            cost[free] = self.predict_cost(batch, prediction)
        lam = deciding.cost_weights(queries, self.policy)
        order = policy.rank(
            quality,
            cost,
            known,
            lam=lam,
            cost_ref=self.cost_model_.cost_ref,
            allowed=allowed,
            max_cost_usd=deciding.cost_limits(queries, self.policy),
        )
        order, propensity, drawn = self.explore(order, queries)
        confidence, unlike = _spread(prediction, free, allowed.shape)
        consulted = np.zeros(len(queries), bool)
        consulted[free] = True
        return [
            Ranked(
                order=order[i],
                quality=quality[i],
                cost_usd=cost[i],
                lam=float(lam[i]),
                propensity=float(propensity[i]),
                drawn=bool(drawn[i]),
                consulted=bool(consulted[i]),
                confidence=confidence[i] if consulted[i] and confidence is not None else None,
                unlike=bool(unlike[i]),
            ).decision(known, self.name, self.version)
            for i in range(len(queries))
        ]

    def explore(
        self, order: NDArray[np.intp], queries: Sequence[Query]
    ) -> tuple[NDArray[np.intp], NDArray[np.float64], NDArray[np.bool_]]:
        """Put a drawn LLM first for this router's share of the queries; see `policy.explore`."""
        rate = max(self.policy.exploration, self.forced_exploration)
        own = getattr(self, "seed", None)
        seed = own if isinstance(own, int) and self.forced_exploration else self.policy.seed
        return policy.explore(order, self.model_names, [q.text for q in queries], rate, seed)

    def _embed(self, queries: tuple[Query, ...]) -> NDArray[np.float32] | None:
        self._require_fitted()
        if not self.needs_embeddings:
            return None
        if self.encoder is None:
            raise NotFittedError(
                f"{self.name} has no query encoder: load it with load_router, or set .encoder"
            )
        return self.encoder.encode([query.text for query in queries])


def _spread(
    prediction: Prediction | None, rows: NDArray[np.intp], shape: tuple[int, ...]
) -> tuple[FloatMatrix | None, NDArray[np.bool_]]:
    # Confidence and the unlike-flag of the rows that were predicted, placed among all rows.
    unlike = np.zeros(shape[0], bool)
    if prediction is None:
        return None, unlike
    if prediction.out_of_distribution is not None:
        unlike[rows] = prediction.out_of_distribution
    if prediction.confidence is None:
        return None, unlike
    confidence = np.full(shape, np.nan)
    confidence[rows] = prediction.confidence
    return confidence, unlike
