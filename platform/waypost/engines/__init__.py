"""Engines by name: ``make_engine("echo", {...})`` gives an engine that is built, not started.

Engines of other distributions are found by their entry points of the group ``waypost.engines``,
each of which names a class. An engine is imported only when it is asked for.
"""

from __future__ import annotations

import importlib.metadata
import inspect
from collections.abc import Mapping
from functools import cache
from importlib import import_module
from typing import Any

from waypost.config import StrictModel, parse
from waypost.contracts.errors import MissingExtraError, PluginError, RegistryError, names
from waypost.contracts.wording import did_you_mean
from waypost.engines.base import Engine

ENTRY_POINT_GROUP = "waypost.engines"

_BUILT_IN = {
    "anthropic": "waypost.engines.anthropic:AnthropicEngine",
    "echo": "waypost.engines.echo:EchoEngine",
    "openai": "waypost.engines.openai_http:OpenAIEngine",
    "replay": "waypost.engines.replay:ReplayEngine",
    "transformers": "waypost.engines.transformers:TransformersEngine",
    "vllm": "waypost.engines.vllm:VllmEngine",
}


def engine_names() -> tuple[str, ...]:
    """Return the names of all engines, sorted. Imports none of them."""
    return tuple(sorted({*_BUILT_IN, *(point.name for point in _entry_points())}))


@cache
def engine_class(name: str) -> type[Engine]:
    """Import an engine; its class attributes say what it is and needs.

    Raises:
        RegistryError: no engine has that name; the message lists those there are.
        PluginError: the entry point of that name does not load, or names no engine; or two
            distributions have one of that name. A built-in name cannot be taken.
        MissingExtraError: a package that the engine needs is not installed.
    """
    if name in _BUILT_IN:
        module, _, attribute = _BUILT_IN[name].partition(":")
        built_in: type[Engine] = getattr(import_module(module), attribute)
        return built_in
    points = [point for point in _entry_points() if point.name == name]
    if not points:
        near, there = did_you_mean(name, engine_names()), names(engine_names())
        raise RegistryError(f"no engine is named {name!r}{near}; there are {there}")
    said = f"engine {name} ({names(sorted({point.value for point in points}))})"
    if len(points) > 1:
        raise PluginError(f"{said}: several distributions have an engine of this name; keep one")
    try:
        found = points[0].load()
    except MissingExtraError:
        raise
    # Other people's code: whatever it raises is its fault alone, and is named.
    except (Exception, SystemExit) as error:
        raise PluginError(f"{said} does not load: {type(error).__name__}: {error}") from error
    if not inspect.isclass(found) or not issubclass(found, Engine) or inspect.isabstract(found):
        raise PluginError(f"{said}: expected a class derived from waypost.engines.Engine, complete")
    if getattr(found, "name", None) != name or not hasattr(found, "config_class"):
        raise PluginError(f"{said}: its class needs `name = {name!r}` and a `config_class`")
    return found


def engine_config(name: str) -> type[StrictModel]:
    """Return the model of an engine's settings; errors as of `engine_class`."""
    return engine_class(name).config_class


def make_engine(name: str, config: Mapping[str, Any], where: str | None = None) -> Engine:
    """Build an engine; call its ``start`` before use.

    Args:
        name: One of `engine_names`.
        config: Its settings as plain data, checked here.
        where: File and key the settings came from, for messages; default ``engine <name>``.

    Raises:
        RegistryError, PluginError, MissingExtraError: as `engine_class`.
        ConfigError: with every wrong setting.
    """
    cls = engine_class(name)
    return cls(parse(cls.config_class, dict(config), where or f"engine {name}"))


def _entry_points() -> list[importlib.metadata.EntryPoint]:
    # one found twice on the path, as in a folder that is named twice, is one
    return list(dict.fromkeys(importlib.metadata.entry_points(group=ENTRY_POINT_GROUP)))


__all__ = ["Engine", "engine_class", "engine_config", "engine_names", "make_engine"]
