"""Resolve the arguments of the graph (paths, prices, names) into the plan that each node gets.

The plan is sent to the replicas as plain data and is validated again there.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from waypost.config import StrictModel, parse, resolve_path, settings
from waypost.contracts.artifact import Manifest
from waypost.contracts.errors import (
    ConfigError,
    Fault,
    MissingExtraError,
    PoolMismatchError,
    RegistryError,
    names,
)
from waypost.contracts.generation import deployment_name
from waypost.contracts.pricing import PriceList
from waypost.engines import engine_class
from waypost.loading import manifest_of
from waypost.registry.packing import foreign_plugins
from waypost.serve.comparing import ComparingArgs, comparing_faults
from waypost.serve.config import (
    AUTO,
    EncoderArgs,
    PolicyArgs,
    PoolEntry,
    PoolLLM,
    ServeArgs,
    UserConfig,
)
from waypost.serve.conversations import ConversationArgs
from waypost.serve.environments import interpreter
from waypost.serve.keeping import NODE, KeepArgs
from waypost.serve.limits import CorsArgs, DeadlineArgs, Hedge, Limits, Listening, LogArgs
from waypost.serve.prices import PricedLLM, missing_prices, prices_of
from waypost.storage import Uri, place

POOLS = ("small", "full")

RESERVED_NAMES = frozenset({"Gateway", "Owner", "Router"})
"""Deployment names of the graph itself."""


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
        artifacts: Router name -> absolute folder or URI, the default router first.
        served: Names of the LLMs of the pool that routers choose from.
        prices: Name -> prices, where both that of prompt and of generated tokens are known.
        step_routers: Names of the step routers.
        policy: Defaults of decisions.
        threads: See `RouterArgs`.
        encoder: Settings of the query encoders.
        user_states: Folder of the users' turns on each machine, from which personal routers make
            states; null where there is none, or one process owns it.
        allow_plugin_code: See `ServeArgs`.
        log: Settings of logging.
    """

    root: str
    artifacts: dict[str, str]
    step_routers: tuple[str, ...] = ()
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
    while_loading: Literal["wait", "pass"] = "wait"
    deadline: DeadlineArgs = DeadlineArgs()
    hedge: Hedge = None
    content_filter: Literal["next", "answer"] = "next"
    unknown_fields: Literal["refuse", "pass", "drop"] = "refuse"
    cors: CorsArgs = CorsArgs()
    listening: Listening = Listening()
    limits: Limits
    api_keys: bool
    log: LogArgs

    # not cached: `model_copy(update=...)` would copy the cached value of the earlier plan
    @property
    def stepping(self) -> frozenset[str]:
        """Names of the step routers; with ``auto`` where the default router is one."""
        default = self.router_names[0] in self.router.step_routers
        return frozenset((*self.router.step_routers, *([AUTO] if default else ())))

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
            *_policy_faults(args.policy, entries, where),
        ]
    )
    root = settings().root
    artifacts, manifests = find_artifacts(args, root)
    if not args.allow_plugin_code:
        raise_faults(_plugin_faults(artifacts, manifests, where))
    check_pool([entry.name for entry in entries], manifests, where)
    stepping = step_routers(manifests)
    raise_faults(comparing_faults(args, artifacts, stepping, args.decision_log, where))
    broken = _broken_environments(args.pool, entries, where)
    models: list[Served] = []
    kept: dict[str, Any] = {name: getattr(args, name) for name in KeepArgs.model_fields}
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
    return Plan(
        models=tuple(models),
        router=RouterPlan(
            root=str(root),
            artifacts=artifacts,
            step_routers=stepping,
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
        route_on=args.route_on,
        route_clean=args.route_clean,
        sessions=args.sessions,
        while_loading=args.while_loading,
        deadline=args.deadline,
        hedge=args.hedge,
        content_filter=args.content_filter,
        unknown_fields=args.unknown_fields,
        cors=args.cors,
        listening=args.gateway.listening,
        limits=args.limits,
        **kept,
        shadow=args.shadow,
        experiment=args.experiment,
        api_keys=args.api_keys,
        log=args.log,
    )


def engine_faults(pool: list[Any], where: str) -> list[Fault]:
    """Return the faults of the engines of a pool given as plain data."""
    found: list[Fault] = []
    for index, entry in enumerate(pool):
        if not isinstance(entry, Mapping) or not isinstance(entry.get("engine"), str):
            continue  # the model of the arguments reports that fault
        place = f"{where}: pool.{index}"
        try:
            engine = engine_class(entry["engine"])
        except (RegistryError, MissingExtraError) as error:
            found.append(Fault(f"{place}.engine", str(error)))
            continue
        if entry.get("placement") == "inline" and not engine.remote:
            problem = "inline is for engines whose answers come from elsewhere; "
            found.append(Fault(f"{place}.placement", f"{problem}{engine.name} needs a deployment"))
        try:
            parse(engine.config_class, entry.get("config") or {}, f"{place}.config")
        except ConfigError as error:
            found.extend(error.faults)
    return found


def raise_faults(found: list[Fault]) -> None:
    """Raise a ConfigError where there is any fault."""
    if found:
        raise ConfigError(found)


def name_faults(entries: tuple[PoolEntry, ...], where: str) -> list[Fault]:
    """Return the faults of names and prices of a pool's entries."""
    seen: dict[str, str] = {}
    found = []
    for index, entry in enumerate(entries):
        name = deployment_name(entry.name)
        other = seen.setdefault(name, entry.name)
        if other != entry.name or name in RESERVED_NAMES:
            clash = other if other != entry.name else "a node of the graph"
            problem = f"its deployment would be named {name}, as that of {clash}; rename it"
            found.append(Fault(f"{where}: pool.{index}.name", problem))
        if (entry.input_price is None) != (entry.output_price is None):
            found.append(Fault(f"{where}: pool.{index}", "give both prices or none"))
    return found


def _policy_faults(policy: PolicyArgs, entries: tuple[PoolEntry, ...], where: str) -> list[Fault]:
    if policy.allowed_models is None or {e.name for e in entries} & set(policy.allowed_models):
        return []
    problem = "none of them is served (see tier and WAYPOST_POOL)"
    return [Fault(f"{where}: policy.allowed_models", problem)]


def _plugin_faults(
    artifacts: Mapping[str, str], manifests: Mapping[str, Manifest], where: str
) -> list[Fault]:
    # Reported here, because in a replica the application would only fail to start.
    return [
        Fault(
            f"{where}: allow_plugin_code",
            f"is not true, and {artifacts[router]} holds code that is not found here: the plug-in "
            f"{names(foreign)}. Set it to true if you trust that code",
        )
        for router, manifest in manifests.items()
        if (foreign := foreign_plugins(manifest))
    ]


def _broken_environments(
    pool: tuple[PoolEntry, ...], served: tuple[PoolEntry, ...], where: str
) -> dict[str, str]:
    """Return why environments cannot be used, by LLM.

    Raises:
        ConfigError: no LLM of the pool can be served.
    """
    found: dict[str, str] = {}
    every: list[Fault] = []
    for index, entry in enumerate(pool):
        if entry.environment is None or entry not in served:
            continue
        try:
            interpreter(entry.environment, f"{where}: pool.{index}.environment")
        except ConfigError as error:
            every.extend(error.faults)
            found[entry.name] = str(error)
    if len(found) == len(served):
        raise ConfigError(every)
    return found


def find_artifacts(
    args: ServeArgs | UserConfig, root: Path
) -> tuple[dict[str, str], dict[str, Manifest]]:
    """Return folder (or URI) and manifest of each router by name, the default router first.

    Args:
        args: Has ``artifact``, or ``routers`` with ``default_router``.
        root: Folder that relative paths resolve against.

    Raises:
        ArtifactFormatError: a folder is not an artifact.
        StorageError: a store cannot be read.
    """
    given = args.routers
    if args.artifact is not None:
        manifest = manifest_of(_absolute(args.artifact, root))
        # a router named auto would hide the name of the default router
        given = {"auto-router" if manifest.router == AUTO else manifest.router: args.artifact}
    first = args.default_router or next(iter(given))
    ordered = {first: given[first], **given}
    folders = {name: _absolute(path, root) for name, path in ordered.items()}
    return folders, {name: manifest_of(folder) for name, folder in folders.items()}


def _absolute(artifact: str, root: Path) -> str:
    where = place(artifact)
    return where.reveal() if isinstance(where, Uri) else str(resolve_path(where, root))


def step_routers(manifests: Mapping[str, Manifest]) -> tuple[str, ...]:
    """Return the names of the step routers."""
    return tuple(name for name, manifest in manifests.items() if manifest.kind == "step")


def check_pool(pool: Sequence[str], manifests: Mapping[str, Manifest], where: str) -> None:
    """Check that routers and LLMs match.

    Raises:
        ConfigError: an LLM has the name of a router.
        PoolMismatchError: no router was trained on an LLM of the pool, or a router on none.
    """
    if taken := sorted(set(manifests) & set(pool)):
        raise ConfigError([Fault(f"{where}: pool", f"{names(taken)} is the name of a router")])
    known = {name: [llm.name for llm in found.llms] for name, found in manifests.items()}
    anywhere = {llm for llms in known.values() for llm in llms}
    if unknown := [name for name in pool if name not in anywhere]:
        raise PoolMismatchError(
            f"pool: no router was trained on {names(unknown)}; expected {names(sorted(anywhere))}. "
            "Take it out of the pool, or train with it"
        )
    for router, llms in known.items():
        if not set(pool) & set(llms):
            raise PoolMismatchError(
                f"router {router} was trained on {names(llms)}; none of them is in the pool"
            )


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
