"""Build routers from their name and parameters."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from waypost.config import read_yaml
from waypost.contracts.errors import ConfigError, Fault, PluginError, WaypostError, raised_at
from waypost.registry.classes import load_class
from waypost.registry.entries import RouterEntry, find_router
from waypost.registry.sources import CONFIG

if TYPE_CHECKING:  # the router contract loads numpy, which a listing does not need
    from waypost.contracts.router import MetaRouter, TrainableRouter


RUN_DEFAULTS = frozenset({"data", "api_endpoint"})
"""Keys of a plug-in's ``config.yaml`` that are no parameters, as LLMRouter's configs have them."""


def make_router(
    name: str, params: Mapping[str, Any] | None = None, plugin_paths: Sequence[Path] | None = None
) -> MetaRouter:
    """Build an untrained router.

    Raises:
        RegistryError, PluginError, MissingExtraError: as `router_class`.
        ConfigError: naming every unknown parameter and every value out of range.
    """
    return _made(name, params or {}, plugin_paths)[0]


def make_trainable(
    name: str, params: Mapping[str, Any] | None = None, plugin_paths: Sequence[Path] | None = None
) -> TrainableRouter:
    """Build an untrained router of any kind that can be fitted, saved and served.

    A router that learns nothing is wrapped in a `PlainRouter`.

    Raises:
        RegistryError, PluginError, MissingExtraError, ConfigError: as `make_router`.
    """
    from waypost.registry.rule_router import trainable

    return trainable(*_made(name, params or {}, plugin_paths))


@dataclass(frozen=True)
class RouterFacts:
    """Facts from a router's class.

    Attributes:
        kind: See `RouterKind`.
        family: See `RouterFamily`.
        trainable: Whether it learns from routing data.
        new_model_support: See `TrainableRouter`.
        needs_embeddings: Whether it uses the query's embedding.
        needs_weights: Kind of the pretrained model that it fine-tunes; None where it has none.
    """

    kind: str
    family: str
    trainable: bool
    new_model_support: str
    needs_embeddings: bool
    needs_weights: str | None


def check_router(entry: RouterEntry) -> RouterFacts:
    """Load a router, build it with its defaults, and return its facts.

    Raises:
        PluginError, MissingExtraError, ConfigError: as `make_router`.
    """
    from waypost.registry.rule_router import trainable

    router = trainable(*_build(entry, {}))
    return RouterFacts(
        kind=router.kind,
        family=router.router_family,
        trainable=router.learns,
        new_model_support=router.new_model_support,
        needs_embeddings=router.needs_embeddings,
        needs_weights=router.needs_weights,
    )


def _made(
    name: str, params: Mapping[str, Any], plugin_paths: Sequence[Path] | None
) -> tuple[MetaRouter, dict[str, Any]]:
    return _build(find_router(name, plugin_paths), params)


def _build(entry: RouterEntry, params: Mapping[str, Any]) -> tuple[MetaRouter, dict[str, Any]]:
    """Return the router and all parameters it was built with."""
    cls = load_class(entry)
    config = Path(entry.location) / CONFIG
    defaults = {k: v for k, v in _plugin_config(entry).items() if k not in RUN_DEFAULTS}
    given = {**defaults, **params}
    found = [*_faults(cls, defaults, str(config)), *_faults(cls, params, entry.name)]
    if found:
        raise ConfigError(found)
    if (check := getattr(cls, "check_params", None)) is not None:
        check(given)
    try:
        inspect.signature(cls).bind(**given)
    except TypeError as error:
        raise ConfigError([Fault(entry.name, str(error))]) from None
    try:
        return cls(**given), given
    except WaypostError:
        raise
    # A constructor only stores its parameters; one that raises belongs to a plug-in.
    except (Exception, SystemExit) as error:
        raise PluginError(f"{entry}: cannot be built: {raised_at(error)}: {error}") from error


def run_defaults(name: str) -> dict[str, str]:
    """Return what a plug-in's ``config.yaml`` says of a training run (`RUN_DEFAULTS`).

    ``data`` is the folder of routing data, relative to the plug-in's folder; ``api_endpoint`` is
    the base URL of LLMs that name none.

    Raises:
        RegistryError, PluginError: no router has that name.
        ConfigError: a value is not a text.
    """
    entry = find_router(name)
    found = {key: value for key, value in _plugin_config(entry).items() if key in RUN_DEFAULTS}
    where = str(Path(entry.location) / CONFIG)
    if wrong := [key for key, value in found.items() if not isinstance(value, str) or not value]:
        raise ConfigError([Fault(f"{where}: {key}", "expected a text") for key in wrong])
    if "data" in found and "://" not in found["data"]:
        found["data"] = str(Path(entry.location) / Path(found["data"]).expanduser())
    return found


def _plugin_config(entry: RouterEntry) -> dict[str, Any]:
    config = Path(entry.location) / CONFIG
    return read_yaml(config) if entry.source == "folder" and config.is_file() else {}


def _faults(cls: type[MetaRouter], values: Mapping[str, Any], where: str) -> list[Fault]:
    from waypost.contracts.parameters import check_parameters

    parameters = inspect.signature(cls).parameters.values()
    takes_any = any(one.kind is one.VAR_KEYWORD for one in parameters)
    known = list(values) if takes_any else [one.name for one in parameters]
    return check_parameters(values, getattr(cls, "parameter_constraints", {}), where, known)
