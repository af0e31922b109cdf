"""Resolve the arguments of the graph (paths, prices, names) into the plan that each node gets.

The plan is sent to the replicas as plain data and is validated again there.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from waypost.config import StrictModel, resolve_path, settings
from waypost.contracts.artifact import Manifest, Untrained
from waypost.contracts.errors import (
    ConfigError,
    Fault,
    MissingExtraError,
    RegistryError,
    SchemaError,
)
from waypost.contracts.generation import deployment_name
from waypost.contracts.pricing import PriceList
from waypost.contracts.records import LLMInfo
from waypost.engines import engine_class
from waypost.loading import manifest_of
from waypost.serve.comparing import ComparingArgs, comparing_faults
from waypost.serve.config import (
    EncoderArgs,
    PolicyArgs,
    PoolEntry,
    PoolLLM,
    RouterArgs,
    ServeArgs,
    UserConfig,
)
from waypost.serve.conversations import ConversationArgs, encoding_routers, retrieval_faults
from waypost.serve.dials import AUTO, named_lambdas
from waypost.serve.faults import (
    broken_environments,
    check_pool,
    engine_faults,
    name_faults,
    plugin_faults,
    policy_faults,
    raise_faults,
)
from waypost.serve.keeping import NODE, KeepArgs
from waypost.serve.limits import (
    CorsArgs,
    DeadlineArgs,
    Hedge,
    Limits,
    Listening,
    LogArgs,
    MetricsArgs,
)
from waypost.serve.prices import PricedLLM, missing_prices, prices_of
from waypost.serve.replicas import ChatArgs
from waypost.storage import Uri, place

POOLS = ("small", "full")


class Served(PricedLLM):
    """Resolved entry of one LLM of the pool.

    Attributes:
        deployment: Name of its deployment; null where it runs inside the gateway.
        multimodal: Whether images and other non-text parts of a message may be sent to it.
        provider: See `Engine.provider`.
        unavailable: Why it cannot be served (its environment is missing or unusable); null where it
            can. Routers do not choose it, and a request that names it is refused.
    """

    deployment: str | None
    multimodal: bool = False
    provider: str = ""
    unavailable: str | None = None


class RouterPlan(StrictModel):
    """The part of the plan for the router node.

    Attributes:
        root: Folder that relative paths resolve against.
        artifacts: Router name -> absolute folder or URI, or a router that needs none; the default
            router first.
        served: Names of the LLMs of the pool that routers choose from.
        prices: Name -> prices, where both that of prompt and of generated tokens are known.
        step_routers: Names of the step routers.
        encoding_routers: Names of the routers that have a query encoder.
        policy: Defaults of decisions.
        threads: See `RouterArgs`.
        encoder: Settings of the query encoders.
        user_states: Folder of the users' turns on each machine, from which personal routers make
            states; null where there is none, or one process owns it.
        allow_plugin_code: See `ServeArgs`.
        log: Settings of logging.
    """

    root: str
    artifacts: dict[str, str | Untrained]
    step_routers: tuple[str, ...] = ()
    encoding_routers: tuple[str, ...] = ()
    served: tuple[str, ...]
    prices: dict[str, PriceList]
    policy: PolicyArgs
    threads: Literal["auto"] | int
    encoder: EncoderArgs
    user_states: str | None = None
    allow_plugin_code: bool
    log: LogArgs


class Plan(ComparingArgs, ConversationArgs, KeepArgs):
    """The plan of the gateway, which loads ``router.artifacts`` only if the router is inline."""

    models: tuple[Served, ...] = Field(min_length=1)
    router: RouterPlan
    router_inline: bool
    dials: dict[str, float] = Field(default_factory=dict)
    while_loading: Literal["wait", "pass"] = "wait"
    deadline: DeadlineArgs = DeadlineArgs()
    hedge: Hedge = None
    content_filter: Literal["next", "answer"] = "next"
    unknown_fields: Literal["refuse", "pass", "drop"] = "refuse"
    cors: CorsArgs = CorsArgs()
    metrics: MetricsArgs = MetricsArgs()
    listening: Listening = Listening()
    limits: Limits
    api_keys: bool
    log: LogArgs
    chat: ChatArgs | None = None

    # not cached: `model_copy(update=...)` would copy the cached value of the earlier plan
    @property
    def stepping(self) -> frozenset[str]:
        """Names of the step routers; with ``auto`` where the default router is one."""
        return self._with_auto(self.router.step_routers)

    @property
    def encoding(self) -> frozenset[str]:
        """Names of the routers with an encoder; with ``auto`` where the default router has one."""
        return self._with_auto(self.router.encoding_routers)

    def _with_auto(self, routers: tuple[str, ...]) -> frozenset[str]:
        default = self.router_names[0] in routers
        return frozenset((*routers, *([AUTO] if default else ())))

    @property
    def router_names(self) -> tuple[str, ...]:
        """Names of the routers, the default router first."""
        return tuple(self.router.artifacts)


def served_entries(args: ServeArgs) -> tuple[PoolEntry, ...]:
    """Return the entries of the pool that are served under ``WAYPOST_POOL``.

    Raises:
        ConfigError: ``WAYPOST_POOL`` is not one of `POOLS`, or no entry is left.
    """
    pool = settings().pool
    if pool not in POOLS:
        raise ConfigError([Fault("WAYPOST_POOL", f"is {pool!r}; expected {' or '.join(POOLS)}")])
    found = tuple(entry for entry in args.pool if pool == "full" or entry.tier == "small")
    if not found:
        raise ConfigError([Fault("pool", "every entry has tier full; set WAYPOST_POOL=full")])
    return found


def make_plan(args: ServeArgs, where: str = "args") -> Plan:
    """Resolve the arguments of the graph.

    An LLM whose environment cannot be used is `Served.unavailable`; the others are served.

    Raises:
        ConfigError: with every fault of engines, names and prices, and of plug-in code that is not
            allowed; also of environments, where no LLM can be served.
        ArtifactFormatError: a folder is not an artifact.
        PoolMismatchError: no router was trained on an LLM of the pool, or a router on none.
    """
    entries = served_entries(args)
    raise_faults(
        [
            *engine_faults([entry.model_dump() for entry in args.pool], where),
            *name_faults(args.pool, where),
            *policy_faults(args.policy, entries, where),
        ]
    )
    root = settings().root
    artifacts, manifests = find_artifacts(args, root)
    if not args.allow_plugin_code:
        raise_faults(plugin_faults(artifacts, manifests, where))
    if artifacts:
        check_pool([entry.name for entry in entries], manifests, where)
    broken = broken_environments(args.pool, entries, where)
    models: list[Served] = []
    as_given = (*ConversationArgs.model_fields, *KeepArgs.model_fields)
    kept: dict[str, Any] = {name: getattr(args, name) for name in as_given}
    if args.feedback_dir is not None:
        kept["feedback_dir"] = str(resolve_path(args.feedback_dir))
    if args.decision_log is not None:
        kept["decision_log"] = _absolute(args.decision_log, root)
    unpriced: list[Fault] = []
    for entry in entries:
        try:
            reason = broken.get(entry.name)
            models.append(served_model(entry, manifests, reason, f"{where}: pool"))
        except ConfigError as error:
            unpriced += error.faults
    raise_faults(unpriced)
    if args.router.name is not None:
        artifacts, manifests = without_artifact(args.router, models, where)
        check_pool([entry.name for entry in entries], manifests, where)
    stepping = step_routers(manifests)
    raise_faults(
        [
            *comparing_faults(args, artifacts, stepping, args.decision_log, where),
            *retrieval_faults(args.route_on, manifests, where),
        ]
    )
    return Plan(
        models=tuple(models),
        router=RouterPlan(
            root=str(root),
            artifacts=artifacts,
            step_routers=stepping,
            encoding_routers=encoding_routers(manifests),
            served=routable(models),
            prices=prices_of(models),
            policy=args.policy,
            threads=args.router.threads,
            encoder=args.router.encoder,
            user_states=kept["feedback_dir"] if args.store_place == NODE else None,
            allow_plugin_code=args.allow_plugin_code,
            log=args.log,
        ),
        router_inline=args.router.placement == "inline",
        dials=named_lambdas(manifests),
        while_loading=args.while_loading,
        deadline=args.deadline,
        hedge=args.hedge,
        content_filter=args.content_filter,
        unknown_fields=args.unknown_fields,
        cors=args.cors,
        metrics=args.metrics,
        listening=args.gateway.listening,
        limits=args.limits,
        **kept,
        shadow=args.shadow,
        experiment=args.experiment,
        api_keys=args.api_keys,
        log=args.log,
        chat=args.chat,
    )


def find_artifacts(
    args: ServeArgs | UserConfig, root: Path
) -> tuple[dict[str, str | Untrained], dict[str, Manifest]]:
    """Return folder (or URI) and manifest of each router by name, the default router first.

    Args:
        args: Has ``artifact``, or ``routers`` with ``default_router``; nothing is found without.
        root: Folder that relative paths resolve against.

    Raises:
        ArtifactFormatError: a folder is not an artifact.
        StorageError: a store cannot be read.
    """
    given: dict[str, str] = args.routers
    if args.artifact is not None:
        manifest = manifest_of(_absolute(args.artifact, root))
        # a router named auto would hide the name of the default router
        given = {"auto-router" if manifest.router == AUTO else manifest.router: args.artifact}
    if not given:
        return {}, {}
    first = args.default_router or next(iter(given))
    ordered = {first: given[first], **given}
    folders = {name: _absolute(path, root) for name, path in ordered.items()}
    return {**folders}, {name: manifest_of(folder) for name, folder in folders.items()}


def without_artifact(
    router: RouterArgs, models: Sequence[Served], where: str
) -> tuple[dict[str, str | Untrained], dict[str, Manifest]]:
    """Return a router that needs no training, and its manifest, as `find_artifacts` does.

    Args:
        router: Has a ``name``.
        models: The LLMs that it decides among.
        where: File and key of the graph's arguments, for messages.

    Raises:
        ConfigError: there is no such router, it has to be trained, its parameters are wrong, or
            the pool lacks what it goes by.
    """
    assert router.name is not None  # checked by the caller
    source = Untrained(router=router.name, parameters=router.parameters, llms=infos_of(models))
    try:
        manifest = manifest_of(source)
    except ConfigError as error:
        here = [Fault(f"{where}: router.parameters: {f.where}", f.problem) for f in error.faults]
        raise ConfigError(here) from None
    except (RegistryError, MissingExtraError, SchemaError) as error:
        raise ConfigError([Fault(f"{where}: router", str(error))]) from None
    return {router.name: source}, {router.name: manifest}


def infos_of(models: Iterable[Served]) -> tuple[LLMInfo, ...]:
    """Return what routers know of the LLMs of a pool."""
    known = set(LLMInfo.model_fields) & set(Served.model_fields)
    return tuple(LLMInfo(**model.model_dump(include=known)) for model in models)


def _absolute(artifact: str, root: Path) -> str:
    where = place(artifact)
    return where.reveal() if isinstance(where, Uri) else str(resolve_path(where, root))


def step_routers(manifests: Mapping[str, Manifest]) -> tuple[str, ...]:
    """Return the names of the step routers."""
    return tuple(name for name, manifest in manifests.items() if manifest.kind == "step")


def routable(models: Iterable[Served]) -> tuple[str, ...]:
    """Return the names of the LLMs that routers choose from."""
    return tuple(model.name for model in models if model.unavailable is None)


def served_model(
    entry: PoolEntry,
    manifests: Mapping[str, Manifest],
    unavailable: str | None = None,
    where: str = "pool",
) -> Served:
    """Return the resolved entry of one LLM.

    Missing prices are those of an artifact, else those of the price library.

    Raises:
        ConfigError: the library should know the price and does not.
    """
    known = entry.model_dump(include=set(PoolLLM.model_fields))
    known |= missing_prices(entry, manifests, where)
    inline = entry.placement == "inline"
    engine = engine_class(entry.engine)
    return Served(
        **known,
        deployment=None if inline or unavailable else deployment_name(entry.name),
        multimodal=engine.multimodal,
        provider=engine.provider(engine.config_class.model_validate(entry.config)),
        unavailable=unavailable,
    )
