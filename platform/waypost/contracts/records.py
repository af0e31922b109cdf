"""Records that all packages share: LLMs, queries, predictions, decisions; and progress reports."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, fields
from typing import Any, Literal, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, Field, field_validator

from waypost.contracts.errors import SchemaError
from waypost.contracts.options import misspelt_option
from waypost.contracts.pricing import PriceList
from waypost.contracts.session import Session
from waypost.contracts.user_state import UserState

RouterKind: TypeAlias = Literal["score", "ensemble", "step", "meta"]
"""How a router decides: by its own scores, by those of the routers it is composed of, step by step,
or by a rule of its own."""

RouterFamily: TypeAlias = Literal["single-round", "multi-round", "personal", "agentic"]
"""The calls of one request: one call of the chosen LLM; several calls, where later ones can depend
on earlier answers; one call of an LLM chosen for the user; a plan of routed sub-questions."""

SessionState: TypeAlias = Literal["new", "kept", "moved"]

_SIZE = re.compile(
    r"(?:(?P<experts>\d+)\s*x\s*)?(?P<number>\d+(?:\.\d+)?)\s*(?P<unit>[KMBT])", re.I
)
_BILLIONS = {"K": 1e-6, "M": 1e-3, "B": 1.0, "T": 1e3}


def parse_size(text: str) -> float:
    """Read a parameter count such as ``135M``, ``7B``, ``8x22B`` or ``1T``.

    Returns total parameters in billions; for a mixture, experts times the size of one.

    Raises:
        SchemaError: where the text is not of that form.
    """
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise SchemaError(f"size {text!r}: expected a number and K, M, B or T, such as 7B or 8x22B")
    one = float(match["number"]) * _BILLIONS[match["unit"].upper()]
    return one * int(match["experts"] or 1)


class LLM(PriceList):
    """An LLM that can be called, and what a call costs.

    Attributes:
        engine: Name of its engine (`waypost.engines.engine_names`).
        config: Settings of the engine.
        priced_as: Provider and model of the price library, such as ``openai/gpt-4o``, where prices
            are omitted and the settings do not name both; null is ``base_url`` and ``model`` of
            ``config``.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    engine: str
    config: dict[str, Any] = Field(default_factory=dict)
    priced_as: str | None = Field(default=None, pattern=r"^[^/\s]+/\S+$")


class LLMInfo(PriceList):
    """Facts of one candidate LLM (an entry of ``llms.json``).

    Attributes:
        name: Its name in data, routers and pools.
        size: Parameter count as text (``parse_size`` reads it); None where it is not public.
        feature: Description in words.
        model: Name at the service, or of the weights.
        service: The service that serves it; its API keys are found by this name.
        api_endpoint: Base URL of an OpenAI-style API.
        context_length: Tokens of prompt and answer together.
    """

    model_config = ConfigDict(frozen=True, extra="allow", allow_inf_nan=False)

    name: str = Field(min_length=1)
    size: str | None = None
    feature: str = ""
    model: str | None = None
    service: str | None = None
    api_endpoint: str | None = None
    context_length: int | None = Field(default=None, gt=0)

    @field_validator("size", mode="before")
    @classmethod
    def _size_as_text(cls, value: Any) -> Any:
        return f"{value}B" if isinstance(value, int | float) else value or None

    @field_validator("feature", mode="before")
    @classmethod
    def _no_feature(cls, value: Any) -> Any:
        return "" if value is None else value

    @property
    def size_b(self) -> float | None:
        """Total parameters in billions, or None where the size is unknown or unreadable."""
        try:
            return None if self.size is None else parse_size(self.size)
        except SchemaError:
            return None

    @property
    def blended_price(self) -> float | None:
        """USD per million tokens at three prompt tokens for one generated; None if unknown."""
        if self.input_price is None or self.output_price is None:
            return None
        return (3 * self.input_price + self.output_price) / 4


QueryLike: TypeAlias = "str | Mapping[str, Any] | Query"
"""What `route_single` takes: a text, a mapping with at least ``query``, or a Query."""


@dataclass(frozen=True, slots=True)
class Query:
    """One question to route.

    Attributes:
        text: The text that is routed on; may be empty.
        query_id: Key of the question where it has one.
        task_name: Benchmark or task, where known.
        user_id: The user who asks, for personal routers.
        session_id: Dialogue it belongs to.
        allowed_models: Names to choose from; None is the whole pool.
        lam: Cost weight (lambda) of this request; None takes the policy's default.
        max_cost_usd: Limit on the predicted dollars of one call; None is no limit.
        input_tokens: Counted prompt tokens; None estimates them.
        session: What is known of the dialogue; None keeps no LLM.
    """

    text: str
    query_id: str | None = None
    task_name: str | None = None
    user_id: str | None = None
    session_id: str | None = None
    allowed_models: tuple[str, ...] | None = None
    lam: float | None = None
    max_cost_usd: float | None = None
    input_tokens: int | None = None
    session: Session | None = None

    @classmethod
    def of(cls, query: QueryLike) -> Query:
        """Read a query; keys of a mapping that routing does not use are ignored.

        Raises:
            SchemaError: where it is neither text nor a mapping with a text under ``query``,
                an option has the wrong type, or a key is nearly that of an option.
        """
        if isinstance(query, Query):
            return query
        if isinstance(query, str):
            return cls(query)
        if not isinstance(query, Mapping) or not isinstance(query.get("query"), str):
            raise SchemaError("query: expected a text, or a mapping with a text under 'query'")
        if problem := misspelt_option(query):
            raise SchemaError(f"query: {problem}")
        allowed = query.get("allowed_models")
        if isinstance(allowed, str) or not (allowed is None or _is_names(allowed)):
            raise SchemaError("query: allowed_models: expected a list of model names")
        return cls(
            text=query["query"],
            query_id=_optional_text(query, "query_id"),
            task_name=_optional_text(query, "task_name"),
            user_id=_optional_text(query, "user_id"),
            session_id=_optional_text(query, "session_id"),
            allowed_models=None if allowed is None else tuple(allowed),
            lam=_optional_number(query, "lambda" if "lambda" in query else "lam"),
            max_cost_usd=_optional_number(query, "max_cost_usd"),
            input_tokens=_optional_count(query, "input_tokens"),
            session=None if (of := query.get("session")) is None else Session.of(of),
        )

    def given(self) -> str | dict[str, Any]:
        """Return the form that `of` reads: the text, or a mapping where more is known."""
        more = {
            "lambda" if f.name == "lam" else f.name: getattr(self, f.name) for f in fields(self)
        }
        known = {key: value for key, value in more.items() if value is not None and key != "text"}
        if self.session is not None:
            known["session"] = self.session.to_dict()
        return {"query": self.text, **known} if known else self.text


def _is_names(value: Any) -> bool:
    return isinstance(value, list | tuple | set | frozenset) and all(
        isinstance(name, str) for name in value
    )


def _optional_text(query: Mapping[str, Any], key: str) -> str | None:
    value = query.get(key)
    return None if value is None else str(value)


def _optional_number(query: Mapping[str, Any], key: str) -> float | None:
    value = query.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not value >= 0:
        raise SchemaError(f"query: {key}: expected a number of at least 0")
    return float(value)


def _optional_count(query: Mapping[str, Any], key: str) -> int | None:
    value = query.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise SchemaError(f"query: {key}: expected a whole number of at least 0")
    return value


@dataclass(frozen=True, slots=True)
class Decision(Mapping[str, Any]):
    """Which LLM answers a query, and why.

    It also reads as a mapping (``decision["model_name"]``), as LLMRouter's results do.

    Attributes:
        model: Name of the chosen LLM.
        ranking: All eligible LLMs, best first; ``ranking[0]`` is `model`. Failover follows this
            order.
        quality: Predicted score in [0, 1] of each eligible LLM.
        cost_usd: Predicted dollars of one call of each eligible LLM; absent where unknown.
        confidence: Probability-like value in [0, 1] that the choice is among the best; None
            where the router does not estimate it.
        lam: Cost weight (lambda) that was applied.
        propensity: Probability with which this policy chooses `model` for this query.
        reason: One sentence for a human reader.
        router: Registry name of the router.
        router_version: Version of the router or artifact.
        session: Whether the session is ``new``, or `model` is that of its last turn (``kept``) or
            another (``moved``); None without a session.
        last_model: The LLM of the session's last turn; None where there is none.
        out_of_distribution: Whether the query is unlike the router's training data.
    """

    model: str
    ranking: tuple[str, ...]
    quality: Mapping[str, float] = field(default_factory=dict)
    cost_usd: Mapping[str, float] = field(default_factory=dict)
    confidence: float | None = None
    lam: float = 0.0
    propensity: float = 1.0
    reason: str = ""
    router: str = ""
    router_version: str = ""
    session: SessionState | None = None
    last_model: str | None = None
    out_of_distribution: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON-able data; ``model_name`` and ``predicted_llm`` repeat the model."""
        kept = {"session": self.session, "last_model": self.last_model}
        return {
            "model_name": self.model,
            "predicted_llm": self.model,
            "ranking": list(self.ranking),
            "quality": dict(self.quality),
            "cost_usd": dict(self.cost_usd),
            "confidence": self.confidence,
            "lambda": self.lam,
            "propensity": self.propensity,
            "reason": self.reason,
            "router": self.router,
            "router_version": self.router_version,
            "out_of_distribution": self.out_of_distribution,
            **({} if self.session is None else kept),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Decision:
        """Rebuild a decision from `to_dict`."""
        named = {**data, "model": data["model_name"], "lam": data["lambda"]}
        named["ranking"] = tuple(data["ranking"])
        return cls(**{one.name: named[one.name] for one in fields(cls) if one.name in named})

    def __getitem__(self, key: str) -> Any:
        return self.to_dict()[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self.to_dict())

    def __len__(self) -> int:
        return len(self.to_dict())


FloatMatrix: TypeAlias = "NDArray[np.floating[Any]]"
T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class QueryBatch:
    """The input of a router: queries and their embeddings.

    Attributes:
        queries: The n queries.
        embeddings: float32 (n, d), unit rows; None for routers that need none.
        users: The n users' states, None for an unknown user. Most routers ignore it.
    """

    queries: tuple[Query, ...]
    embeddings: NDArray[np.float32] | None = None
    users: tuple[UserState | None, ...] | None = None
    _known: dict[int, tuple[object, Any]] = field(default_factory=dict, init=False, repr=False)

    def __len__(self) -> int:
        return len(self.queries)

    def once(self, owner: object, make: Callable[[], T]) -> T:
        """Return the value for this batch and ``owner``; compute it at the first call only.

        The members of an ensemble, which predict on one batch, share intermediate results by this.

        Args:
            owner: What the value depends on besides the batch, compared by identity: an array, a
                part of a router's state, a function. One owner has one value.
            make: Computes the value, which must not be changed afterwards.
        """
        known = self._known.get(id(owner))
        # the owner is kept with its value, so that no other object can get its id
        if known is None or known[0] is not owner:
            known = self._known[id(owner)] = (owner, make())
        value: T = known[1]
        return value


@dataclass(frozen=True, eq=False)
class Prediction:
    """A score router's prediction for a batch; every matrix has shape (n_queries, n_llms).

    Attributes:
        quality: Expected score in [0, 1] of each LLM.
        output_tokens: Expected generated tokens; None takes each LLM's training mean.
        recorded_usd: Expected recorded dollars, used where prices are unknown. None takes each
            LLM's training mean, or means that every price is known (`CostModel.asks_recorded`).
        confidence: Estimate in [0, 1] that this LLM is among the best; None where the router
            makes none.
        out_of_distribution: Shape (n_queries,), True where the query is unlike the training
            data; such a row is decided by the LLMs' training means. None means no such row.
    """

    quality: FloatMatrix
    output_tokens: FloatMatrix | None = None
    recorded_usd: FloatMatrix | None = None
    confidence: FloatMatrix | None = None
    out_of_distribution: NDArray[np.bool_] | None = None

    def spread(
        self, rows: NDArray[np.intp], shape: tuple[int, ...]
    ) -> tuple[FloatMatrix | None, NDArray[np.bool_]]:
        """Return confidence and out-of-distribution flag, its rows spread over a whole batch."""
        unlike = np.zeros(shape[0], bool)
        if self.out_of_distribution is not None:
            unlike[rows] = self.out_of_distribution
        if self.confidence is None:
            return None, unlike
        confidence = np.full(shape, np.nan)
        confidence[rows] = self.confidence
        return confidence, unlike


Watcher: TypeAlias = "Callable[[str, int, int], None]"
"""Called with the name of the work, the steps done, and the steps in total."""

_watcher: ContextVar[Watcher | None] = ContextVar("watcher", default=None)


def report(what: str, done: int, total: int) -> None:
    """Call the watcher, if there is one: ``done`` of ``total`` steps of ``what`` are done."""
    if (watcher := _watcher.get()) is not None:
        watcher(what, done, total)


@contextmanager
def watching(watcher: Watcher | None) -> Iterator[None]:
    """Make `report` call ``watcher`` within the block; None makes it call nothing."""
    token = _watcher.set(watcher)
    try:
        yield
    finally:
        _watcher.reset(token)
