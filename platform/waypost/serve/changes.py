"""What a ``user_config`` changes in the plan, and how a running node takes it.

Serve stops a replica whose ``reconfigure`` raises, and sends it no request while it waits. So a
node never refuses aloud: a config that is wrong is logged and counted, the earlier one stays; and
what takes time (a new artifact) happens beside the requests.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from waypost.config import parse
from waypost.contracts.artifact import Manifest
from waypost.contracts.errors import ConfigError, Fault, PoolMismatchError, WaypostError, names
from waypost.loading import manifest_of
from waypost.serve.config import UserConfig
from waypost.serve.plan import (
    Plan,
    Served,
    check_pool,
    engine_faults,
    find_artifacts,
    name_faults,
    prices_of,
    raise_faults,
    routable,
    served_model,
    step_routers,
)

logger = logging.getLogger(__name__)

WHERE = "user_config"


def change_plan(plan: Plan, config: UserConfig) -> Plan:
    """Return the plan as a user_config changes it.

    Args:
        plan: Of the arguments of the graph, unchanged.
        config: What differs from them.

    Raises:
        ConfigError: engines, names or prices of further models are wrong.
        ArtifactFormatError: a folder is not an artifact.
        PoolMismatchError: the config speaks of an LLM that is not in the pool, or routers and pool
            do not fit together.
    """
    if config == UserConfig():
        return plan
    data = [entry.model_dump() for entry in config.pool]
    raise_faults([*engine_faults(data, WHERE), *name_faults(config.pool, WHERE)])
    artifacts, manifests = _artifacts(plan, config)
    models = _models(plan, config, manifests)
    policy = config.policy or plan.router.policy
    _check_names([*config.prices, *(policy.allowed_models or ())], models)
    served = routable(models)
    check_pool(served, manifests, WHERE)
    router = plan.router.model_copy(
        update={
            "artifacts": artifacts,
            "step_routers": step_routers(manifests),
            "served": served,
            "prices": prices_of(models),
            "policy": policy,
        }
    )
    return plan.model_copy(update={"models": models, "router": router})


def _artifacts(plan: Plan, config: UserConfig) -> tuple[dict[str, str], dict[str, Manifest]]:
    if config.artifact is not None or config.routers:
        return find_artifacts(config, Path(plan.router.root))
    folders = plan.router.artifacts
    return folders, {name: manifest_of(folder) for name, folder in folders.items()}


def _models(plan: Plan, config: UserConfig, manifests: dict[str, Manifest]) -> tuple[Served, ...]:
    _check_names(config.retired, plan.models)
    known = {llm.name for manifest in manifests.values() for llm in manifest.llms}
    if strangers := [entry.name for entry in config.pool if entry.name not in known]:
        raise PoolMismatchError(f"{WHERE}: pool: no router knows {names(strangers)}")
    replaced = {*config.retired, *(entry.name for entry in config.pool)}
    kept = [model for model in plan.models if model.name not in replaced]
    models = (*kept, *(served_model(entry, manifests) for entry in config.pool))
    if not routable(models):
        raise ConfigError([Fault(f"{WHERE}: retired", "no model would be left")])
    return tuple(
        model.model_copy(update=config.prices[model.name].model_dump())
        if model.name in config.prices
        else model
        for model in models
    )


def _check_names(wanted: Any, models: tuple[Served, ...]) -> None:
    pool = [model.name for model in models]
    if unknown := sorted(set(wanted) - set(pool)):
        raise PoolMismatchError(f"{WHERE}: {names(unknown)} is not in the pool: {names(pool)}")


class Changes:
    """Brings each ``user_config`` that Serve hands over into force, one after another.

    Args:
        plan: Of the arguments of the graph.
        adopt: Brings a plan into force; raises a WaypostError where it cannot be, and then the
            earlier one is still in force.
        told: Called with whether a config was taken.
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
        """Take a config: the first before this returns (the node serves nothing yet), later ones
        in the background.
        """
        task = asyncio.create_task(self._take(user_config))
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        if self._first:
            self._first = False
            await task

    async def settled(self) -> None:
        """Return once every config that was handed over is in force, or refused."""
        await asyncio.gather(*self._running)

    async def _take(self, user_config: dict[str, Any]) -> None:
        async with self._turn:
            try:
                config = parse(UserConfig, user_config, WHERE)
                # reads files, and must not hold up the requests
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
