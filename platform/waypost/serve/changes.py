"""Apply a ``user_config`` to the plan, and bring it into force on a running node.

Serve stops a replica whose ``reconfigure`` raises, and sends it no request until ``reconfigure``
returns. So a node raises nothing: a wrong config is logged and counted, and the earlier one stays
in force. Slow work (loading a new artifact) runs in the background.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from waypost.config import parse
from waypost.contracts.artifact import Manifest, Untrained
from waypost.contracts.errors import ConfigError, Fault, PoolMismatchError, WaypostError, names
from waypost.loading import manifest_of
from waypost.serve.comparing import ComparingArgs, comparing_faults
from waypost.serve.config import UserConfig
from waypost.serve.conversations import encoding_routers, retrieval_faults
from waypost.serve.dials import named_lambdas
from waypost.serve.faults import check_pool, engine_faults, name_faults, raise_faults
from waypost.serve.keeping import KeepChanges
from waypost.serve.plan import (
    Plan,
    Served,
    find_artifacts,
    infos_of,
    routable,
    served_model,
    step_routers,
)
from waypost.serve.prices import prices_of

logger = logging.getLogger(__name__)

WHERE = "user_config"

STOP_AFTER = "stop_after_s"
"""Key of the ``user_config`` with which ``waypost serve`` stops the gateways. Not allowed in a
file."""


def change_plan(plan: Plan, config: UserConfig) -> Plan:
    """Return the plan after the changes of a user_config.

    Args:
        plan: The plan of the graph's arguments.
        config: Changes to it.

    Raises:
        ConfigError: engines, names or prices of further models are wrong.
        ArtifactFormatError: a folder is not an artifact.
        PoolMismatchError: the config names an LLM that is not in the pool, or routers and pool do
            not match.
    """
    if not config.model_fields_set:
        return plan
    data = [entry.model_dump() for entry in config.pool]
    raise_faults([*engine_faults(data, WHERE), *name_faults(config.pool, WHERE)])
    artifacts, manifests = _artifacts(plan, config)
    models = _models(plan, config, manifests)
    for name, source in artifacts.items():
        if isinstance(source, Untrained):
            artifacts[name] = source.model_copy(update={"llms": infos_of(models)})
            manifests[name] = manifest_of(artifacts[name])
    policy = config.policy or plan.router.policy
    _check_names([*config.prices, *(policy.allowed_models or ())], models)
    served = routable(models)
    check_pool(served, manifests, WHERE)
    stepping = step_routers(manifests)
    comparing = ComparingArgs(
        **{
            name: getattr(config if name in config.model_fields_set else plan, name)
            for name in ComparingArgs.model_fields
        }
    )
    raise_faults(
        [
            *comparing_faults(comparing, artifacts, stepping, plan.decision_log, WHERE),
            *retrieval_faults(plan.route_on, manifests, WHERE),
        ]
    )
    router = plan.router.model_copy(
        update={
            "artifacts": artifacts,
            "step_routers": stepping,
            "encoding_routers": encoding_routers(manifests),
            "served": served,
            "prices": prices_of(models),
            "policy": policy,
        }
    )
    kept = {
        name: value
        for name in KeepChanges.model_fields
        if (value := getattr(config, name)) is not None
    }
    changed = {"models": models, "router": router, "dials": named_lambdas(manifests)}
    return plan.model_copy(update={**changed, **dict(comparing), **kept})


def _artifacts(
    plan: Plan, config: UserConfig
) -> tuple[dict[str, str | Untrained], dict[str, Manifest]]:
    if config.artifact is not None or config.routers:
        return find_artifacts(config, Path(plan.router.root))
    folders = plan.router.artifacts
    return {**folders}, {name: manifest_of(folder) for name, folder in folders.items()}


def _models(plan: Plan, config: UserConfig, manifests: dict[str, Manifest]) -> tuple[Served, ...]:
    _check_names(config.retired, plan.models)
    known = {llm.name for manifest in manifests.values() for llm in manifest.llms}
    strangers = [entry.name for entry in config.pool if entry.name not in known]
    if strangers and not _takes_any(plan, config):
        raise PoolMismatchError(f"{WHERE}: pool: no router was trained on {names(strangers)}")
    replaced = {*config.retired, *(entry.name for entry in config.pool)}
    kept = [model for model in plan.models if model.name not in replaced]
    models = (*kept, *(served_model(entry, manifests) for entry in config.pool))
    if not routable(models):
        raise ConfigError([Fault(f"{WHERE}: retired", "no model would be left")])
    return tuple(
        model.model_copy(update=config.prices[model.name].changes())
        if model.name in config.prices
        else model
        for model in models
    )


def _takes_any(plan: Plan, config: UserConfig) -> bool:
    """Return whether the router needs no training, so that it decides among any LLMs."""
    replaced = config.artifact is not None or config.routers
    sources = plan.router.artifacts.values()
    return not replaced and any(isinstance(source, Untrained) for source in sources)


def _check_names(wanted: Any, models: tuple[Served, ...]) -> None:
    pool = [model.name for model in models]
    if unknown := sorted(set(wanted) - set(pool)):
        raise PoolMismatchError(f"{WHERE}: {names(unknown)} is not in the pool: {names(pool)}")


class Changes:
    """Applies each ``user_config`` that Serve sends, one after another.

    Args:
        plan: The plan of the graph's arguments.
        adopt: Brings a plan into force. On failure it raises a WaypostError, and the earlier plan
            stays in force.
        told: Called with True after a config was applied, with False after it was refused.
    """

    def __init__(
        self,
        plan: Plan,
        adopt: Callable[[Plan], Awaitable[None]],
        told: Callable[[bool], None] = lambda taken: None,
    ) -> None:
        self._plan = plan
        self._current = plan
        self._adopt = adopt
        self._told = told
        self._first = True
        self._turn = asyncio.Lock()
        self._running: set[asyncio.Task[None]] = set()

    async def take(self, user_config: dict[str, Any]) -> None:
        """Apply a config. The first is applied before this returns, because the node serves nothing
        yet; later ones are applied in the background.
        """
        task = asyncio.create_task(self._take(user_config))
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        if self._first:
            self._first = False
            await task

    async def settled(self) -> None:
        """Return once every config so far is in force or refused."""
        await asyncio.gather(*self._running)

    async def _take(self, user_config: dict[str, Any]) -> None:
        async with self._turn:
            try:
                config = parse(UserConfig, user_config, WHERE)
                # reads files, which must not block the event loop
                plan = await asyncio.to_thread(change_plan, self._plan, config)
                if plan == self._current:
                    return
                await self._adopt(plan)
            except WaypostError as error:
                logger.error("%s is refused, the earlier one stays: %s", WHERE, error)
                self._told(False)
                return
            self._current = plan
            self._told(True)
            logger.info("%s is in force", WHERE)
