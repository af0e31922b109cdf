"""What every router is, and what every router that learns shares."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from waypost.contracts.cost import CostModel, column_mean
from waypost.contracts.encoder import Encoder
from waypost.contracts.errors import NotFittedError, SchemaError, names
from waypost.contracts.parameters import Parametrized
from waypost.contracts.policy import PolicySettings
from waypost.contracts.prediction import Prediction, QueryBatch
from waypost.contracts.records import Decision, LLMInfo, Query, QueryLike, RouterFamily, RouterKind
from waypost.contracts.routing_data import RoutingData


class StatePart(Protocol):
    """A part of a router's learned state that is an object: it goes to arrays and back."""

    def to_arrays(self) -> dict[str, NDArray[Any]]: ...  # noqa: D102

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Any: ...  # noqa: D102


class MetaRouter(ABC):
    """Chooses an LLM for a query."""

    name: ClassVar[str] = ""
    """Registry name; for built-in routers the name of their module."""

    kind: ClassVar[RouterKind] = "meta"
    """How it decides; its artifacts are of this kind."""

    router_family: ClassVar[RouterFamily] = "single-round"
    """What a request to it is. A listing reads it from the source: a plain string in the class."""

    version: str = ""
    """Version of the trained artifact; empty for an untrained router."""

    candidates: tuple[LLMInfo, ...] = ()
    """Facts of the LLMs that are served, for a router that learns nothing: set before it is
    asked. Routers that learn have their own, ``llms_``."""

    @abstractmethod
    def route_single(self, query: QueryLike) -> Decision:
        """Decide one query.

        Args:
            query: A text, or a mapping with at least ``query``; optional keys: query_id,
                task_name, user_id, session_id, allowed_models, lambda, max_cost_usd.

        Raises:
            SchemaError: the query is not of that form.
            PolicyError: no model may be chosen (see `EmptyPoolError`, `BudgetError`).
        """

    def route_batch(self, queries: Sequence[QueryLike]) -> list[Decision]:
        """Decide several queries; the results are those of `route_single`, in order."""
        return [self.route_single(query) for query in queries]


class TrainableRouter(Parametrized, MetaRouter):
    """A router that learns from routing data.

    A subclass writes ``__init__`` (stores its parameters) and `_fit`, and lists what its
    parameters may be in `parameter_constraints`. Checking, saving and loading are here.

    Learned by `fit`, in every router:
        llms_: Facts of the n_llms candidates, in the order of all columns.
        n_features_in_: Width of the embeddings it was fitted on; 0 without.
        mean_quality_: (n_llms,) training mean of each LLM's measured scores.
        cost_model_: Predicts dollars.
    """

    needs_embeddings: ClassVar[bool] = True
    """False for routers that never look at the query's embedding."""

    needs_weights: ClassVar[Literal["encoder", "causal"] | None] = None
    """Kind of pretrained model that the parameter ``model`` names and that `fit` fine-tunes: then
    both fitting and predicting read real weights and take their time. None is no such model."""

    trial_parameters: ClassVar[Mapping[str, Any]] = {}
    """Parameters of a quick first try, where a fit with the defaults takes minutes."""

    validates_itself: ClassVar[bool] = False
    """True where `fit` measures its choice out of sample: ``report_`` then says how it did."""

    learns: ClassVar[bool] = True
    """False where `fit` only notes who the candidates are and what their calls cost."""

    new_model_support: ClassVar[str] = "refit"
    """What a new LLM needs: ``refit``, ``few-shot`` or ``zero-shot``; a removed one is masked."""

    state_parts: ClassVar[Mapping[str, type[StatePart]]] = {"cost_model_": CostModel}
    """Learned attributes that are objects of their own, and their classes."""

    policy: PolicySettings = PolicySettings()
    encoder: Encoder | None = None

    llms_: tuple[LLMInfo, ...]
    n_features_in_: int
    mean_quality_: NDArray[np.float64]
    cost_model_: CostModel
    report_: dict[str, Any]  # of those that validate themselves

    # -- fit ----------------------------------------------------------------------------------

    def fit(self, data: RoutingData) -> Self:
        """Learn from measured outcomes.

        Args:
            data: Training data; with embeddings where `needs_embeddings` is true.

        Returns:
            The router itself. The same data, parameters and seed give the same router.

        Raises:
            ConfigError: a parameter is out of range.
            SchemaError: no query, no LLM, an LLM without a score, or no embeddings.
        """
        self._prepare(data)
        self._fit(data)
        return self

    def _prepare(self, data: RoutingData) -> None:
        """Check parameters and data, and set what every router learns."""
        self.check_params(self.get_params())
        if len(data) == 0 or not data.llms:
            raise SchemaError("fit: the routing data holds no query or no LLM")
        mean_quality = column_mean(data.quality)
        if np.isnan(mean_quality).any():
            unmeasured = [n for n, q in zip(data.names, mean_quality, strict=True) if np.isnan(q)]
            raise SchemaError(f"fit: no score at all for {names(unmeasured)}; leave it out")
        if self.needs_embeddings and data.embeddings is None:
            raise SchemaError(f"fit: {self.name} needs query embeddings; the data has none")
        self.llms_ = data.llms
        self.mean_quality_ = mean_quality
        self.cost_model_ = CostModel.fit(data)
        used = self.needs_embeddings and data.embeddings is not None
        self.n_features_in_ = data.embeddings.shape[1] if used else 0  # type: ignore[union-attr]

    @abstractmethod
    def _fit(self, data: RoutingData) -> None:
        """Learn; the data was checked and the shared state is set."""

    @property
    def model_names(self) -> tuple[str, ...]:
        """Names of the candidates, in the order of all columns.

        Raises:
            NotFittedError: before `fit`.
        """
        self._require_fitted()
        return tuple(llm.name for llm in self.llms_)

    def _require_fitted(self) -> None:
        if getattr(self, "llms_", None) is None:
            raise NotFittedError(
                f"{self.name or type(self).__name__} is not fitted; call fit first"
            )

    def decide(
        self, queries: Sequence[Query], embeddings: NDArray[np.float32] | None = None
    ) -> list[Decision]:
        """Decide queries whose embeddings are at hand (float32, (n, d), or None if not needed).

        Here for routers that use none; the others override it.
        """
        return self.route_batch(queries)

    def predict_cost(
        self, batch: QueryBatch, prediction: Prediction | None = None
    ) -> NDArray[np.float64]:
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
        """Registry names of the routers it is made of: its own, and those of its members.

        An artifact holds the source of those that are plug-in folders.
        """
        return (self.name,)

    # -- state --------------------------------------------------------------------------------

    def get_state(self) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """Return the learned state: arrays by name, and JSON-able values by name.

        Everything learned is an attribute that ends in ``_``; the candidates and parameters
        are kept by the artifact's manifest, not here.

        Raises:
            NotFittedError: before `fit`.
        """
        self._require_fitted()
        arrays: dict[str, NDArray[Any]] = {}
        values: dict[str, Any] = {}
        for name, value in vars(self).items():
            if not name.endswith("_") or name.startswith("_") or name == "llms_":
                continue
            if name in self.state_parts:
                if value is not None:
                    arrays |= {f"{name}.{key}": part for key, part in value.to_arrays().items()}
            elif isinstance(value, np.ndarray):
                arrays[name] = value
            else:
                values[name] = value.item() if isinstance(value, np.generic) else value
        return arrays, values

    def set_state(
        self, llms: Sequence[LLMInfo], arrays: Mapping[str, NDArray[Any]], values: Mapping[str, Any]
    ) -> None:
        """Take over a state that `get_state` returned, fitted on ``llms``.

        A part without arrays is None, as it was when it was saved.
        """
        self.llms_ = tuple(llms)
        for name, part in self.state_parts.items():
            own = {k.removeprefix(f"{name}."): v for k, v in arrays.items() if k.startswith(name)}
            setattr(self, name, part.from_arrays(own) if own else None)
        for name, value in {**arrays, **values}.items():
            if name.partition(".")[0] not in self.state_parts:
                setattr(self, name, value)

    def with_prices(self, prices: Mapping[str, tuple[float, float]]) -> None:
        """Replace some LLMs' prices (USD per million prompt and generated tokens).

        Raises:
            SchemaError: a name the router does not know.
        """
        if unknown := [name for name in prices if name not in self.model_names]:
            raise SchemaError(f"prices: the router does not know {names(unknown)}")
        self.cost_model_ = self.cost_model_.with_prices(prices, self.model_names)
