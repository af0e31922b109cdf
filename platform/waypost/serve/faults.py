"""What is wrong with a graph: with its pool, with its policy, and of its routers with its pool."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from waypost.config import parse
from waypost.contracts.artifact import Manifest, Untrained
from waypost.contracts.errors import (
    ConfigError,
    Fault,
    MissingExtraError,
    PoolMismatchError,
    RegistryError,
    names,
)
from waypost.contracts.generation import deployment_name
from waypost.contracts.wording import did_you_mean
from waypost.engines import engine_class
from waypost.registry.packing import foreign_plugins, why_foreign
from waypost.serve.config import PolicyArgs, PoolEntry
from waypost.serve.environments import interpreter

RESERVED_NAMES = frozenset({"Chat", "Gateway", "Owner", "Router"})
"""Deployment names of the graph itself."""

OWN_LLMS = (
    "Without training: put `router: difficulty` in place of the artifact. With it: `waypost data "
    "run --config data.yaml` asks these LLMs questions, and `waypost train --router knnrouter "
    "--data DATA --out ARTIFACT` learns from their answers"
)
"""What to do where no router knows the LLMs of a pool."""


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


def twice_faults(pool: list[Any], where: str) -> list[Fault]:
    """Return a fault where a pool given as plain data has a name twice."""
    given = [entry.get("name") for entry in pool if isinstance(entry, Mapping)]
    twice = sorted({name for name in given if isinstance(name, str) and given.count(name) > 1})
    return [Fault(f"{where}: pool", f"{names(twice)} stands there twice")] if twice else []


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


def policy_faults(policy: PolicyArgs, entries: tuple[PoolEntry, ...], where: str) -> list[Fault]:
    """Return a fault where the policy allows no LLM that is served."""
    if policy.allowed_models is None or {e.name for e in entries} & set(policy.allowed_models):
        return []
    problem = "none of them is served (see tier and WAYPOST_POOL)"
    return [Fault(f"{where}: policy.allowed_models", problem)]


def plugin_faults(
    artifacts: Mapping[str, str | Untrained], manifests: Mapping[str, Manifest], where: str
) -> list[Fault]:
    """Return the faults of artifacts with plug-in code where such code may not run."""
    # Reported here, because in a replica the application would only fail to start.
    return [
        Fault(
            f"{where}: allow_plugin_code",
            f"is not true, and {artifacts[router]} holds the code of plug-in "
            f"{why_foreign(foreign)}. Set it to true if you trust that code",
        )
        for router, manifest in manifests.items()
        if (foreign := foreign_plugins(manifest))
    ]


def broken_environments(
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


def check_pool(pool: Sequence[str], manifests: Mapping[str, Manifest], where: str) -> None:
    """Check that routers and LLMs match.

    Raises:
        ConfigError: an LLM has the name of a router.
        PoolMismatchError: no router was trained on an LLM of the pool, or a router on none.
    """
    if taken := sorted(set(manifests) & set(pool)):
        raise ConfigError([Fault(f"{where}: pool", f"{names(taken)} is the name of a router")])
    known = {name: [llm.name for llm in found.llms] for name, found in manifests.items()}
    anywhere = sorted({llm for llms in known.values() for llm in llms})
    if unknown := [name for name in pool if name not in anywhere]:
        raise PoolMismatchError(
            f"pool: no router was trained on {names(unknown)}{did_you_mean(unknown[0], anywhere)}; "
            f"expected {names(anywhere)}. {OWN_LLMS}"
        )
    for router, llms in known.items():
        if not set(pool) & set(llms):
            raise PoolMismatchError(
                f"router {router} was trained on {names(llms)}; none of them is in the pool. "
                f"{OWN_LLMS}"
            )
