"""Models of a Serve config: ``args`` of the graph (`ServeArgs`) and ``user_config``
(`UserConfig`). A key without a description is described by its own model.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, model_validator

from waypost.config import StrictModel
from waypost.contracts.errors import SchemaError
from waypost.contracts.policy import PolicySettings
from waypost.contracts.pricing import Price, PriceList
from waypost.contracts.records import LLM, parse_size
from waypost.serve.comparing import ComparingArgs
from waypost.serve.conversations import ConversationArgs
from waypost.serve.dials import AUTO as AUTO
from waypost.serve.dials import DIALS
from waypost.serve.keeping import KeepArgs, KeepChanges
from waypost.serve.limits import (
    CorsArgs,
    DeadlineArgs,
    Folder,
    Hedge,
    Limits,
    Listening,
    LogArgs,
    MetricsArgs,
    Positive,
    Seconds,
    switch,
)
from waypost.serve.replicas import ChatArgs, NodeArgs

ONE_KIND_OF_ROUTER = (
    "give one of: artifact (a folder that `waypost train` wrote), routers (several, by name), or "
    "router: NAME for a router that needs no training, such as difficulty or cheapest_llm"
)


class PolicyArgs(StrictModel):
    """Defaults of decisions; a request may override lambda, models and budget for itself.

    Attributes:
        lam: Cost weight: 1 trades one full point of quality for one call of the most expensive LLM.
        allowed_models: Models that routing (not pinning) chooses from; null is the whole pool.
        max_cost_usd: Limit on the predicted dollars of one call; null is no limit.
        exploration: Share of requests sent to a uniformly drawn model, to collect training data.
        seed: Seed of the exploration draws.
    """

    model_config = ConfigDict(populate_by_name=True)

    lam: float = Field(default=0.0, ge=0, alias="lambda")
    allowed_models: tuple[str, ...] | None = Field(default=None, min_length=1)
    max_cost_usd: float | None = Field(default=None, ge=0)
    exploration: float = Field(default=0.0, ge=0, le=1)
    seed: int = 0

    def settings(self, served: tuple[str, ...]) -> PolicySettings:
        """Return the policy of a router for the models ``served``."""
        chosen = served if self.allowed_models is None else self.allowed_models
        return PolicySettings(
            lam=self.lam,
            allowed_models=tuple(name for name in served if name in chosen),
            max_cost_usd=self.max_cost_usd,
            exploration=self.exploration,
            seed=self.seed,
        )


class Prices(StrictModel, PriceList):
    """Other prices of one LLM, USD per million tokens; what is not given stays.

    Attributes:
        input_price, output_price: Price of prompt tokens; of generated tokens.
    """

    input_price: Price
    output_price: Price

    def changes(self) -> dict[str, Any]:
        """Return what is given, by name."""
        return {
            name: value
            for name in self.model_fields_set
            if (value := getattr(self, name)) is not None
        }


def _is_a_size(text: str) -> str:
    try:
        parse_size(text)
    except SchemaError as error:
        raise ValueError(str(error)) from None
    return text


class PoolLLM(LLM):
    """An LLM of the pool, as the gateway calls it.

    Attributes:
        name: Its name for routers and clients.
        size: Parameter count, such as 7B or 8x22B, for a router without an artifact.
        input_price: USD per million prompt tokens; null takes that of the router's artifact, else
            that of the price library.
        output_price: USD per million generated tokens; null as for ``input_price``.
        max_ongoing_requests: Most requests in flight in one replica.
        max_queued_requests: Most queued requests of one caller; further ones are refused.
        queue_timeout_s: Longest wait for a free replica before failover to the next model.
        max_tokens: Most tokens of one answer of this LLM; a request that asks for more is capped to
            it. null is no limit beside ``limits.max_tokens``.
        flush_ms: Time window in which tokens are gathered before they are sent to the gateway; the
            first token is sent at once.
    """

    name: str = Field(min_length=1, max_length=200)
    size: Annotated[str, AfterValidator(_is_a_size)] | None = None
    max_ongoing_requests: Positive = 32
    max_queued_requests: int = Field(default=64, ge=0)
    queue_timeout_s: Seconds = 20.0
    max_tokens: Positive | None = None
    flush_ms: float = Field(default=20.0, ge=0)


class PoolEntry(NodeArgs, PoolLLM):
    """One LLM of the pool.

    Attributes:
        placement: ``inline`` runs it in the gateway's process, if the engine is `Engine.remote`.
        environment: Python environment of its replicas: ``WAYPOST_ENV_<NAME>``, else
            ``.venv-<name>``; null is that of the graph.
        tier: ``full`` is served only under ``WAYPOST_POOL=full``.
    """

    placement: Literal["deployment", "inline"] = "deployment"
    environment: str | None = None
    tier: Literal["small", "full"] = "small"

    @model_validator(mode="after")
    def _placement_is_possible(self) -> PoolEntry:
        if self.placement == "deployment":
            return self
        replicas = {"environment", "num_replicas", "autoscaling", "ray_actor_options"}
        if given := sorted(replicas & self.model_fields_set):
            raise ValueError(f"placement inline has no replica: remove {', '.join(given)}")
        return self


class EncoderArgs(StrictModel):
    """How the routers' query encoders run. The artifact names the encoder itself.

    Attributes:
        threads: Threads of one forward pass (onnx and torch encoders).
        cache_mb: Size of the cache of vectors, in MB; 0 is no cache.
        device: torch device (torch encoders).
    """

    threads: Annotated[int, Field(ge=1, le=64)] = 1
    cache_mb: float = Field(default=32.0, ge=0)
    device: str = "cpu"


def _by_name(given: Any) -> Any:
    return {"name": given} if isinstance(given, str) else given


class RouterArgs(NodeArgs):
    """The router node; a text is its ``name``.

    Attributes:
        name: Registry name of a router that needs no training, in place of an artifact:
            ``cheapest_llm``, ``smallest_llm``, ``largest_llm``, ``randomrouter``, ``in_order``,
            ``difficulty``.
        parameters: Parameters of the router of that name.
        placement: ``inline`` decides in the gateway's process.
        threads: Number of threads that decide. 0 decides on the event loop, for routers that need
            well under a millisecond; ``auto`` measures at start and takes 0 or 1.
    """

    name: str | None = Field(default=None, min_length=1)
    parameters: dict[str, Any] = Field(default_factory=dict)
    placement: Literal["deployment", "inline"] = "deployment"
    threads: Literal["auto"] | Annotated[int, Field(ge=0, le=16)] = "auto"
    encoder: EncoderArgs = EncoderArgs()
    max_ongoing_requests: Positive = 1000
    max_queued_requests: int = Field(default=1000, ge=0)


def _distinct_names(
    routers: Mapping[str, str], default_router: str | None, pool: tuple[PoolEntry, ...]
) -> list[str]:
    """Check the names of routers and pool; return those of the pool."""
    if default_router is not None and default_router not in routers:
        raise ValueError(f"default_router: {default_router!r} is not under routers")
    if taken := sorted({AUTO, *DIALS} & set(routers)):
        raise ValueError(f"routers: {taken[0]!r} means the default router; take another name")
    names = [entry.name for entry in pool]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"pool: {', '.join(twice)} stands there twice")
    return names


class UserConfig(ComparingArgs, KeepChanges):
    """Settings that change without a restart (``user_config`` of Gateway and Router).

    Both deployments need the same config. It replaces the earlier one: an absent key has the value
    of the graph's arguments again. Relative paths resolve as in the arguments.

    Attributes:
        policy: Other defaults of decisions; null keeps those of the arguments.
        prices: Other prices, by the LLM's name.
        artifact: Another artifact instead of all routers. The earlier routers decide until it is
            loaded.
        routers: Instead of ``artifact``: several routers, name -> folder or URI.
        default_router: The default of ``routers``; null is the first.
        retired: Models of the pool that take no further requests; requests in flight are finished.
        pool: Further models, called from the gateway's process (``placement: inline``). One with
            the name of an earlier model replaces it. A model with its own deployment is added in
            the arguments of the graph.
    """

    policy: PolicyArgs | None = None
    prices: dict[str, Prices] = Field(default_factory=dict)
    artifact: Folder | None = None
    routers: dict[str, Folder] = Field(default_factory=dict)
    default_router: str | None = None
    retired: tuple[str, ...] = ()
    pool: tuple[PoolEntry, ...] = ()

    @model_validator(mode="before")
    @classmethod
    def _changes_in_place(cls, data: Any) -> Any:
        given = set(data) if isinstance(data, dict) else set()
        if fixed := sorted((given & set(ServeArgs.model_fields)) - set(cls.model_fields)):
            raise ValueError(
                f"{', '.join(fixed)}: stands in args; a change there restarts the replicas"
            )
        return data

    @model_validator(mode="after")
    def _routers_and_models_are_clear(self) -> UserConfig:
        if self.artifact is not None and self.routers:
            raise ValueError("give artifact (one router) or routers (several, by name), not both")
        names = _distinct_names(self.routers, self.default_router, self.pool)
        if apart := [entry.name for entry in self.pool if entry.placement != "inline"]:
            raise ValueError(f"pool: {', '.join(apart)} needs placement: inline here")
        if both := sorted(set(names) & set(self.retired)):
            raise ValueError(f"{', '.join(both)} stands under retired and under pool")
        return self


class GatewayArgs(NodeArgs):
    """The gateway node, which serves HTTP; ``limits`` bounds its queues.

    Attributes:
        ingress: ``direct`` lets each replica serve HTTP itself: on ``http_options.port`` under
            ``waypost serve`` (without ``--haproxy``), else on ``port``. ``serve`` uses Ray Serve's
            proxy. `Autoscaling` of the gateway, several applications in a file and TLS need
            ``serve``; ``waypost serve`` then takes it, and says so.
        host: Address of ``port``.
        port: Further port on which each replica serves itself, without ``waypost serve`` too; the
            replicas of a machine share it. null has none.
    """

    ingress: Literal["direct", "serve"] = "direct"
    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=1, le=65535)] | None = None

    @model_validator(mode="after")
    def _queues_stand_in_limits(self) -> GatewayArgs:
        queues = {"max_ongoing_requests", "max_queued_requests"}
        if given := sorted(queues & self.model_fields_set):
            raise ValueError(f"{', '.join(given)}: set limits.max_in_flight and limits.max_queued")
        return self

    @property
    def listening(self) -> Listening:
        """What its replicas need to know."""
        return Listening(
            direct=self.ingress == "direct",
            host=self.host,
            port=self.port if self.ingress == "direct" else None,
            drain_s=self.graceful_shutdown_timeout_s,
        )


def without_router(args: Mapping[str, Any]) -> dict[str, Any]:
    """Return arguments as plain data without those that say which routers there are."""
    kept = {key: value for key, value in args.items() if key not in _ROUTERS}
    if isinstance(router := kept.get("router"), str):
        del kept["router"]
    elif isinstance(router, Mapping):
        kept["router"] = {k: v for k, v in router.items() if k not in {"name", "parameters"}}
    return kept


_ROUTERS = frozenset({"artifact", "routers", "default_router"})


class ServeArgs(ComparingArgs, ConversationArgs, KeepArgs):
    """Arguments of ``waypost.serve.app:build``.

    Attributes:
        artifact: Folder or URI written by ``waypost train``; the router has its registry name.
        routers: Instead of ``artifact``: several routers, name -> folder or URI.
        default_router: The router of ``model: auto``; null is the first.
        pool: The LLMs.
        while_loading: What ``auto`` does where the chosen LLM is loading: ``wait`` for it, for at
            most ``limits.first_token_timeout_s``, or ``pass`` it over. A request that names the LLM
            is answered 503 at once.
        deadline: When an LLM that hangs is given up.
        hedge: Whether a whole answer that takes long is asked of a second LLM: ``off``, ``on``, or
            the settings below.
        content_filter: Where a provider's content filter refuses: ``next`` asks the next LLM of the
            ranking, ``answer`` passes the refusal on to the client.
        unknown_fields: Where a request has fields that Waypost does not know: ``refuse`` it,
            ``pass`` them on to HTTP engines, or ``drop`` them (named in ``x-waypost-ignored``).
        api_keys: Require a key of clients: one of those under the service ``waypost-clients``.
        allow_plugin_code: Allow the plug-in code in an artifact to run.
        chat: Whether ``/chat`` is a chat page: ``off``, ``on``, or the settings below.
    """

    artifact: Folder | None = None
    routers: dict[str, Folder] = Field(default_factory=dict)
    default_router: str | None = None
    pool: tuple[PoolEntry, ...] = Field(min_length=1)
    chat: Annotated[ChatArgs | None, switch(ChatArgs)] = None
    policy: PolicyArgs = PolicyArgs()
    router: Annotated[RouterArgs, BeforeValidator(_by_name)] = RouterArgs()
    gateway: GatewayArgs = GatewayArgs()
    limits: Limits = Limits()
    while_loading: Literal["wait", "pass"] = "wait"
    deadline: DeadlineArgs = DeadlineArgs()
    hedge: Hedge = None
    content_filter: Literal["next", "answer"] = "next"
    unknown_fields: Literal["refuse", "pass", "drop"] = "refuse"
    api_keys: bool = False
    allow_plugin_code: bool = False
    cors: CorsArgs = CorsArgs()
    metrics: MetricsArgs = MetricsArgs()
    log: LogArgs = LogArgs()

    @model_validator(mode="after")
    def _names_are_clear(self) -> ServeArgs:
        given = [self.artifact is not None, bool(self.routers), self.router.name is not None]
        if sum(given) != 1:
            raise ValueError(ONE_KIND_OF_ROUTER)
        if self.router.parameters and self.router.name is None:
            raise ValueError("router.parameters: are those of router.name, which is not given")
        names = _distinct_names(self.routers, self.default_router, self.pool)
        if taken := sorted({AUTO, *DIALS, *self.routers} & set(names)):
            raise ValueError(f"pool: {', '.join(taken)} is the name of a router, not of an LLM")
        allowed = self.policy.allowed_models or ()
        if unknown := sorted(set(allowed) - set(names)):
            raise ValueError(f"policy.allowed_models: {', '.join(unknown)} is not in the pool")
        if self.owned and self.retrieval.keep_turns is not None:
            raise ValueError(
                "retrieval.keep_turns: `waypost data forget` does not reach the memory of gateways "
                "on other machines; take it out, or store_place"
            )
        return self
