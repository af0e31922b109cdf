"""Reads a sweep's file and checks all of it, before data is read or Ray starts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from waypost.config import apply_overrides, parse, read_yaml
from waypost.contracts.epochs import EpochRouter
from waypost.contracts.errors import ConfigError, Fault, RegistryError
from waypost.contracts.router import TrainableRouter
from waypost.encoders import EncoderSpec
from waypost.pipelines.train import TrainConfig, new_router
from waypost.registry import router_class
from waypost.tune.space import Dimension, TuneConfig, faults_against

T = TypeVar("T")


def read_sweep(path: str | Path, overrides: Sequence[str] = ()) -> TuneConfig:
    """Read a file of ``tune_configs``.

    Raises:
        ConfigError: with every fault of the file's form, and every disagreement with the router.
        MissingExtraError: the router needs a package that is not installed.
    """
    return check_sweep(apply_overrides(read_yaml(path), overrides), str(path))


def check_sweep(data: Mapping[str, Any], where: str) -> TuneConfig:
    """Check a sweep as plain data; see `read_sweep`."""
    found: list[Fault] = []

    def attempt(call: Callable[[], T]) -> T | None:
        try:
            return call()
        except ConfigError as error:
            found.extend(error.faults)
        except RegistryError as error:  # no such router or encoder, or a broken plug-in
            found.append(Fault(where, str(error)))
        return None

    config = attempt(partial(parse, TuneConfig, data, where))
    router, encoder = data.get("router"), data.get("encoder")
    cls = attempt(partial(router_class, router)) if isinstance(router, str) else None
    if cls is not None and not (issubclass(cls, TrainableRouter) and cls.learns):
        found.append(
            Fault(f"{where}: router", f"{router} learns nothing; there is nothing to tune")
        )
    elif cls is not None:
        found += _against(cls, data, where)
        found += _scheduler(cls, data, where)
    if isinstance(encoder, str):
        attempt(partial(EncoderSpec.of, encoder))
    if config is None or found:
        raise ConfigError(dict.fromkeys(found))
    return config


def defaults_of(config: TuneConfig) -> dict[str, Any]:
    """Return the router's parameters as they are without a sweep, its seed set."""
    return new_router(TrainConfig(router=config.router, seed=config.seed)).get_params()


def _against(cls: Any, data: Mapping[str, Any], where: str) -> list[Fault]:
    """Return the faults of those parts of the file that have their form."""
    fixed, space = data.get("fixed") or {}, data.get("space") or {}
    if not isinstance(fixed, Mapping) or not isinstance(space, Mapping):
        return []
    adapter: TypeAdapter[Dimension] = TypeAdapter(Dimension)
    read: dict[str, Dimension] = {}
    for name, one in space.items():
        try:
            read[name] = adapter.validate_python(one)
        except ValidationError:
            continue  # said by the file's own check
    return faults_against(fixed, read, cls.parameter_constraints, where)


def _scheduler(cls: Any, data: Mapping[str, Any], where: str) -> list[Fault]:
    name, at = data.get("scheduler", "fifo"), f"{where}: scheduler"
    if name not in ("asha", "hyperband", "pbt"):
        return []
    if not issubclass(cls, EpochRouter):
        problem = f"{name} stops trials early, and {cls.name} does not train by epochs; take fifo"
        return [Fault(at, problem)]
    changeable = cls.changeable_parameters
    if name == "pbt" and not set(changeable) & set(data.get("space") or {}):
        can = ", ".join(changeable) or "none"
        return [Fault(at, f"pbt needs a searched parameter that can change in training: {can}")]
    return []
