"""Base classes of routers.

    MetaRouter         route_single, route_batch: enough for a plug-in
      TrainableRouter  learns from routing data; its state goes into an artifact
        ScoreRouter    predicts quality (and tokens) of each LLM; the policy decides
      StepRouter       acts step by step (delegate, answer); see `step_router`

A router predicts; it never calls an LLM. Parameters are stored by ``__init__`` and nothing
else happens there; learned state ends in ``_``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray

from waypost.contracts import policy, staying
from waypost.contracts.cost import CostModel, PricesLike, column_mean
from waypost.contracts.encoder import Encoder
from waypost.contracts.errors import NotFittedError, SchemaError, names
from waypost.contracts.learned import Learned
from waypost.contracts.parameters import StatePart
from waypost.contracts.policy import PolicySettings, Ranked
from waypost.contracts.records import (
    Decision,
    LLMInfo,
    Prediction,
    Query,
    QueryBatch,
    QueryLike,
    RouterFamily,
    RouterKind,
)
from waypost.contracts.routing_data import RoutingData, read_routing_data
from waypost.contracts.types import Floats
from waypost.contracts.user_state import StateOf, Users

__all__ = ["MetaRouter", "Prediction", "QueryBatch", "ScoreRouter", "StatePart", "TrainableRouter"]


UNKNOWN_QUALITY = 0.5
"""Mean score of an LLM of which no outcome is known, where a router is fitted without any."""


class MetaRouter(ABC):
    """Chooses an LLM for a query."""

    name: ClassVar[str] = ""
    """Registry name; for built-in routers the name of their module."""

    kind: ClassVar[RouterKind] = "meta"
    """How it decides; the kind of its artifacts."""

    router_family: ClassVar[RouterFamily] = "single-round"
    """What a request leads to. A listing reads this from the source, so it is a literal string."""

    artifact_commands: ClassVar[str] = "`waypost train`"
    """Commands that write its artifacts, for messages."""

    version: str = ""
    """Version of the trained artifact; empty for an untrained router."""

    candidates: tuple[LLMInfo, ...] = ()
    """Facts of the served LLMs for a router without ``llms_``; set before its first decision."""

    @abstractmethod
    def route_single(self, query: QueryLike) -> Decision:
        """Decide one query.

        Args:
            query: A text, or a mapping with at least ``query``; optional keys: query_id,
                task_name, user_id, session_id, allowed_models, lambda, max_cost_usd, session.

        Raises:
            SchemaError: the query is not of that form.
            PolicyError: no model may be chosen (see `EmptyPoolError`, `BudgetError`).
        """

    def route_batch(self, queries: Sequence[QueryLike]) -> list[Decision]:
        """Decide several queries; the results are those of `route_single`, in order."""
        return [self.route_single(query) for query in queries]


class TrainableRouter(Learned, MetaRouter):
    """A router that learns from routing data.

    A subclass writes ``__init__`` (stores its parameters) and `_fit`, and lists the allowed values
    of its parameters in `parameter_constraints`. This class checks, saves and loads.

    Learned by `fit`, in every router:
        llms_: Facts of the n_llms candidates, in the order of all columns.
        n_features_in_: Width of the embeddings it was fitted on; 0 without embeddings.
        mean_quality_: (n_llms,) training mean of each LLM's measured scores.
        cost_model_: Predicts dollars.
    """

    needs_embeddings: ClassVar[bool] = True
    """False for routers that do not use the query's embedding."""

    needs_responses: ClassVar[bool] = False
    """True for routers that compare the recorded answers of the LLMs."""

    needs_weights: ClassVar[Literal["encoder", "causal"] | None] = None
    """Kind of pretrained model that the parameter ``model`` names and that `fit` fine-tunes.
    Fitting and predicting then read real weights and are slow. None means no such model."""

    trial_parameters: ClassVar[Mapping[str, Any]] = {}
    """Parameters of a quick first try, where a fit with the defaults takes minutes."""

    validates_itself: ClassVar[bool] = False
    """True where `fit` evaluates its choice out of sample; ``report_`` holds the result."""

    learns: ClassVar[bool] = True
    """False where `fit` only stores the candidates and the cost of their calls."""

    needs_data: ClassVar[bool] = True
    """False where `fit` also takes LLMs without queries: such a router needs no artifact to be
    served (``router: NAME``)."""

    new_model_support: ClassVar[str] = "refit"
    """What a new LLM needs: ``refit``, ``few-shot`` or ``zero-shot``. A removed LLM is masked."""

    state_parts: ClassVar[Mapping[str, type[StatePart]]] = {"cost_model_": CostModel}
    """Learned attributes that are objects of their own, and their classes."""

    policy: PolicySettings = PolicySettings()
    encoder: Encoder | None = None

    llms_: tuple[LLMInfo, ...]
    n_features_in_: int
    mean_quality_: Floats
    cost_model_: CostModel
    report_: dict[str, Any]  # where `fit` evaluates out of sample

    def fit(self, data: RoutingData | str | Path) -> Self:
        """Learn from measured outcomes.

        Args:
            data: Training data, or its folder, whose training split is read. Where
                `needs_embeddings` is true and it has none, `encoder` embeds its queries.

        Returns:
            The router itself. The same data, parameters and seed give the same router.

        Raises:
            ConfigError: a parameter is out of range.
            SchemaError: no query, no LLM, an LLM without a score, or no embeddings and no encoder.
        """
        data = self._embedded(data if isinstance(data, RoutingData) else read_routing_data(data))
        self._prepare(data)
        self._fit(data)
        return self

    def _embedded(self, data: RoutingData) -> RoutingData:
        """Return the data with embeddings where the router needs them and can make them."""
        if not self.needs_embeddings or self.encoder is None:
            return data
        if data.embeddings is None:
            return data.with_embeddings(self.encoder.encode(data.queries), self.encoder.id)
        if data.encoder_id not in (None, self.encoder.id):
            self.encoder = None  # it would embed queries otherwise than the data is embedded
        return data

    def _prepare(self, data: RoutingData) -> None:
        """Check parameters and data, and set what every router learns."""
        self.check_params(self.get_params())
        if not data.llms or (len(data) == 0 and self.needs_data):
            raise SchemaError("fit: the routing data holds no query or no LLM")
        mean_quality = column_mean(data.quality)
        if len(data) == 0:
            mean_quality = np.full(len(data.llms), UNKNOWN_QUALITY)
        if np.isnan(mean_quality).any():
            unmeasured = [n for n, q in zip(data.names, mean_quality, strict=True) if np.isnan(q)]
            raise SchemaError(f"fit: no score at all for {names(unmeasured)}; leave it out")
        if self.needs_embeddings and data.embeddings is None:
            raise SchemaError(
                f"fit: {self.name} needs query embeddings, and the data has none: set .encoder "
                f'before, or call waypost.train("{self.name}", data), which embeds'
            )
        self.llms_ = data.llms
        self.mean_quality_ = mean_quality
        self.cost_model_ = CostModel.fit(data)
        used = self.needs_embeddings and data.embeddings is not None
        self.n_features_in_ = data.embeddings.shape[1] if used else 0  # type: ignore[union-attr]

    @abstractmethod
    def _fit(self, data: RoutingData) -> None:
        """Learn. The data is checked and the shared state is set."""

    def decide(
        self,
        queries: Sequence[Query],
        embeddings: NDArray[np.float32] | None = None,
        users: Users = None,
    ) -> list[Decision]:
        """Decide queries with given embeddings (float32, (n, d), or None if not needed).

        This version is for routers without embeddings; the others override it.
        """
        return self.route_batch(queries)

    def predict_cost(self, batch: QueryBatch, prediction: Prediction | None = None) -> Floats:
        """Predict dollars of one call, shape (n_queries, n_llms); NaN where unknown."""
        self._require_fitted()
        characters = np.array([len(query.text) for query in batch.queries], dtype=np.float64)
        counted = np.array(
            [np.nan if q.input_tokens is None else q.input_tokens for q in batch.queries]
        )
        return self.cost_model_.predict(
            characters,
            input_tokens=counted,
            output_tokens=None if prediction is None else prediction.output_tokens,
            recorded_usd=None if prediction is None else prediction.recorded_usd,
        )

    def plugin_names(self) -> tuple[str, ...]:
        """Return the registry names of this router and its members; plug-ins are packed."""
        return (self.name,)

    def with_prices(self, prices: Mapping[str, PricesLike]) -> None:
        """Replace some LLMs' prices: a list, or (prompt, generated) USD per million tokens.

        Raises:
            SchemaError: a name is not one of the router's LLMs.
        """
        if unknown := [name for name in prices if name not in self.model_names]:
            raise SchemaError(f"prices: the router does not know {names(unknown)}")
        self.cost_model_ = self.cost_model_.with_prices(prices, self.model_names)


class ScoreRouter(TrainableRouter):
    """A router that predicts the score of each LLM; the policy decides from it.

    A subclass writes ``__init__``, `_fit` and `_predict`. This class handles routing, cost, ties,
    budgets and exploration.
    """

    kind: ClassVar[RouterKind] = "score"

    forced_exploration: ClassVar[float] = 0.0
    """Least share of queries sent to a uniformly drawn LLM; the policy may set a higher one."""

    row_count_parameters: ClassVar[tuple[str, ...]] = ()
    """Parameters that count training rows; they double where every row is repeated twice."""

    @abstractmethod
    def _predict(self, batch: QueryBatch) -> Prediction:
        """Predict a checked batch of at least one query; pure and deterministic."""

    def predict(self, batch: QueryBatch) -> Prediction:
        """Predict quality, and optionally tokens and dollars, of each LLM for each query.

        A row depends on its own query only. Pure: no network, no clock, no random draw.

        Raises:
            NotFittedError, SchemaError: before `fit`; embeddings not of width ``n_features_in_``.
        """
        self._require_fitted()
        if self.needs_embeddings:
            shape = None if batch.embeddings is None else batch.embeddings.shape
            wanted = (len(batch), self.n_features_in_)
            if shape != wanted:
                raise SchemaError(f"{self.name}: embeddings have shape {shape}; expected {wanted}")
        return self._predict(batch)

    def predict_quality(self, batch: QueryBatch) -> NDArray[np.float32]:
        """Predict the score of each LLM on each query; raises as `predict`.

        Returns float32 (n_queries, n_llms), columns as in ``llms_``, values in [0, 1].
        """
        return np.asarray(self.predict(batch).quality, dtype=np.float32)

    def route_single(self, query: QueryLike) -> Decision:
        """Decide one query; see `MetaRouter.route_single`."""
        return self.route_batch([query])[0]

    def route_batch(self, queries: Sequence[QueryLike]) -> list[Decision]:
        """Decide several queries with one embedding and one prediction for all of them."""
        return self.route_for([Query.of(query) for query in queries])[0]

    def route_for(
        self, queries: Sequence[Query], state_of: StateOf | None = None
    ) -> tuple[list[Decision], NDArray[np.float32] | None]:
        """Decide queries, each for the state of its user; also return the queries' embeddings."""
        if not queries:
            return [], None
        asked, rows = staying.with_earlier(tuple(queries), keeps=self.kind != "step")
        vectors = self.embed(asked)
        users = None if state_of is None else [state_of(query.user_id) for query in asked]
        made = self.decide(asked, vectors, users)
        if rows is None:
            return made, vectors
        return [made[row] for row in rows], None if vectors is None else vectors[rows]

    def decide(
        self,
        queries: Sequence[Query],
        embeddings: NDArray[np.float32] | None = None,
        users: Users = None,
    ) -> list[Decision]:
        """Decide queries with given embeddings (float32, (n, d), or None if not needed).

        Where only one LLM is allowed, no prediction is made.

        Raises:
            PolicyError: no model may be chosen; the error is that of the first such query.
        """
        queries = tuple(queries)
        known = self.model_names
        allowed = policy.allowed_mask(queries, self.policy, known)
        free = np.flatnonzero(allowed.sum(axis=1) > 1)
        confidence, unlike = None, np.zeros(len(queries), bool)
        quality = np.repeat(self.mean_quality_[None, :], len(queries), axis=0)
        cost = (
            np.empty(quality.shape)
            if len(free) == len(queries)
            else self.predict_cost(QueryBatch(queries))
        )
        if len(free):
            batch = QueryBatch(
                tuple(queries[i] for i in free),
                None if embeddings is None else embeddings[free],
                None if users is None else tuple(users[i] for i in free.tolist()),
            )
            prediction = self.predict(batch)
            quality[free] = policy.decision_quality(prediction, self.mean_quality_)
            cost[free] = self.predict_cost(batch, prediction)
            confidence, unlike = prediction.spread(free, allowed.shape)
        lam = policy.cost_weights(queries, self.policy)
        order, stays = staying.rank(
            quality, cost, queries, known, self.policy, self.cost_model_, allowed, lam=lam
        )
        order, propensity, drawn = self.explore(order, queries)
        consulted = np.zeros(len(queries), bool)
        consulted[free] = True
        made = [
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
        return staying.told(made, stays, drawn)

    def explore(
        self, order: NDArray[np.intp], queries: Sequence[Query]
    ) -> tuple[NDArray[np.intp], Floats, NDArray[np.bool_]]:
        """Put a random LLM first for this router's share of the queries; see `policy.explore`."""
        rate = max(self.policy.exploration, self.forced_exploration)
        own = getattr(self, "seed", None)
        seed = own if isinstance(own, int) and self.forced_exploration else self.policy.seed
        return policy.explore(order, self.model_names, staying.draw_keys(queries), rate, seed)

    def embed(self, queries: Sequence[Query]) -> NDArray[np.float32] | None:
        """Embed queries, float32 (n, d); None where the router needs no embeddings."""
        self._require_fitted()
        if not self.needs_embeddings:
            return None
        if self.encoder is None:
            raise NotFittedError(
                f"{self.name} has no query encoder: load it with load_router, or set .encoder"
            )
        return self.encoder.encode([query.text for query in queries])
