"""Engines by name: ``make_engine("echo", {...})`` gives an engine that is built, not started.

Each public module here is one engine and is imported only when it is asked for. It offers
``Config`` (its settings, a strict model) and ``build(config) -> Engine``.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from types import ModuleType
from typing import Any

from waypost.config import StrictModel, parse
from waypost.contracts.errors import RegistryError, names
from waypost.contracts.wording import did_you_mean
from waypost.engines.base import Engine

_MODULES = {
    "echo": "echo",
    "openai": "openai_http",
    "replay": "replay",
    "transformers": "transformers",
    "vllm": "vllm",
}


def engine_names() -> tuple[str, ...]:
    """Return the names of all engines, sorted. Imports none of them."""
    return tuple(sorted(_MODULES))


def engine_config(name: str) -> type[StrictModel]:
    """Return the model of an engine's settings.

    Raises:
        RegistryError: where no engine has that name.
    """
    config: type[StrictModel] = _module(name).Config
    return config


def make_engine(name: str, config: Mapping[str, Any], where: str | None = None) -> Engine:
    """Build an engine; call its ``start`` before use.

    Args:
        name: One of `engine_names`.
        config: Its settings as plain data, checked here.
        where: File and key the settings came from, for messages; default ``engine <name>``.

    Raises:
        RegistryError: where no engine has that name.
        ConfigError: with every wrong setting.
    """
    module = _module(name)
    engine: Engine = module.build(parse(module.Config, dict(config), where or f"engine {name}"))
    return engine


def _module(name: str) -> ModuleType:
    if name not in _MODULES:
        near, there = did_you_mean(name, _MODULES), names(engine_names())
        raise RegistryError(f"no engine is named {name!r}{near}; there are {there}")
    return import_module(f"waypost.engines.{_MODULES[name]}")


__all__ = ["Engine", "engine_config", "engine_names", "make_engine"]
