"""From a routing-data folder to an artifact."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from pydantic import Field

from waypost.config import StrictModel, apply_overrides, parse
from waypost.contracts.artifact import Manifest, check_target
from waypost.contracts.errors import ConfigError, Fault, RegistryError
from waypost.contracts.plain import no_outcomes
from waypost.contracts.router import TrainableRouter
from waypost.contracts.routing_data import RoutingData, read_routing_data
from waypost.contracts.step_router import StepRouter
from waypost.contracts.tables import read_llms, split_path
from waypost.encoders import EncoderSpec, make_encoder
from waypost.loading import save_router
from waypost.pipelines.embed import Progress, query_embeddings
from waypost.pipelines.validation import cross_validate, decide_on, of_report, summary
from waypost.registry import make_trainable, router_class
from waypost.storage import Place, local_copy, mirrored, place

FOLDS = 5


class TrainConfig(StrictModel):
    """One training run.

    Attributes:
        router: Registry name.
        parameters: Of the router.
        encoder: Query encoder: a kind, an id, or its keys.
        seed: Of the folds, and of the router where it has such a parameter.
        folds: Parts of the cross-validation where the folder holds no validation split; 0 is
            none. Left out it is `FOLDS`, or none for routers that fine-tune a model, where each
            further fit takes minutes.
    """

    router: str
    parameters: dict[str, Any] = Field(default_factory=dict)
    encoder: str | EncoderSpec = "static"
    seed: int = Field(default=0, ge=0)
    folds: int | None = Field(default=None, ge=0, le=100)


@dataclass(frozen=True)
class TrainResult:
    """What a training run left.

    Attributes:
        folder: The artifact, where it was asked for.
        manifest: Its manifest; ``metrics`` holds the run's numbers.
        router: The fitted router.
    """

    folder: Place
    manifest: Manifest
    router: TrainableRouter = field(repr=False)


T = TypeVar("T")

Fit = Callable[[TrainableRouter, RoutingData], object]


def train(
    config: TrainConfig,
    data_folder: str | Place,
    out: str | Place,
    progress: Progress | None = None,
    further: Mapping[str, Any] | None = None,
    fit: Fit | None = None,
) -> TrainResult:
    """Fit a router on the training split and write it as an artifact.

    Its quality is measured on the validation split, or by cross-validation inside the training
    split; test data is never read. A router that learns nothing is measured on all of the
    training split, and a folder with ``llms.json`` alone is enough for it.

    Args:
        config: What to train.
        data_folder: Routing data; a path or URI.
        out: The artifact, a path or URI; one that is there is replaced.
        progress: Told (done, total) embedded texts.
        further: What the manifest's ``metrics`` hold besides this run's numbers; JSON-able.
        fit: How the router is fitted; None is its own ``fit``.

    Raises:
        ConfigError: the router's parameters are wrong.
        RegistryError, SchemaError, WeightsError, ArtifactError, StorageError: see their
            docstrings.
    """
    # what is wrong here is said before data is read, embedded and fitted
    router = new_router(config)
    with mirrored(out) as target:
        check_target(target)
        with local_copy(data_folder) as folder:
            manifest = _fit_and_save(router, config, folder, target, progress, further or {}, fit)
    return TrainResult(place(out), manifest, router)


def _fit_and_save(
    router: TrainableRouter,
    config: TrainConfig,
    folder: Path,
    out: Path,
    progress: Progress | None,
    further: Mapping[str, Any],
    fit: Fit | None,
) -> Manifest:
    encoder = make_encoder(config.encoder)

    def read(split: str) -> RoutingData:
        data = read_routing_data(folder, split)
        if not router.needs_embeddings:
            return data
        vectors = query_embeddings(data.queries, encoder, folder, progress)
        return data.with_embeddings(vectors, encoder.id)

    listed_only = not router.learns and not split_path(folder, "train").is_file()
    data = no_outcomes(read_llms(folder / "llms.json")) if listed_only else read("train")
    router.encoder = encoder
    start = time.perf_counter()
    router.fit(data) if fit is None else fit(router, data)
    metrics: dict[str, Any] = {
        "training_queries": len(data),
        "llms": len(data.llms),
        "learns": router.learns,
        "fit_s": round(time.perf_counter() - start, 3),
        **further,
    }
    if router.validates_itself:
        metrics["choice"] = {key: router.report_[key] for key in ("chosen", "why")}
    held_out = read("validation") if split_path(folder, "validation").is_file() else None
    metrics["validation"] = _validate(router, config, data, held_out)
    return save_router(router, out, data, metrics=metrics, seed=config.seed)


def _validate(
    router: TrainableRouter,
    config: TrainConfig,
    data: RoutingData,
    held_out: RoutingData | None,
) -> dict[str, Any] | None:
    """Measure the router's choices, or return None where they cannot be: nothing was recorded."""
    if len(data) == 0 or (isinstance(router, StepRouter) and not router.replayable):
        return None
    if held_out is not None:
        return {"method": "validation split", **summary(decide_on(router, data, held_out))}
    if router.validates_itself:
        return of_report(router.report_)
    folds = config.folds
    if folds is None:
        folds = FOLDS if router.needs_weights is None else 0
    if folds <= 1:
        return None
    if not router.learns:
        return {"method": "the whole training split", **summary(decide_on(router, data, data))}
    return cross_validate(partial(new_router, config), data, folds, config.seed)


def new_router(config: TrainConfig) -> TrainableRouter:
    """Build the untrained router of a config; one that learns nothing as a `PlainRouter`.

    Raises:
        ConfigError: wrong parameters.
        RegistryError, PluginError, MissingExtraError: see `make_trainable`.
    """
    known = getattr(router_class(config.router), "parameter_constraints", {})
    seed = {"seed": config.seed} if "seed" in known else {}
    return make_trainable(config.router, {**seed, **config.parameters})


def read_train_config(
    data: Mapping[str, Any], overrides: Sequence[str] = (), where: str = "options"
) -> TrainConfig:
    """Check a run before anything is read: its keys, the router's parameters, the encoder.

    Args:
        data: The config as plain data.
        overrides: ``key=value`` settings of the router's parameters, which win.
        where: The file that the data came from, for messages.

    Raises:
        ConfigError: with every fault of all of them.
        MissingExtraError: the router needs a package that is not installed.
    """
    found: list[Fault] = []

    def attempt(call: Callable[[], T]) -> T | None:
        try:
            return call()
        except ConfigError as error:
            found.extend(error.faults)
        except RegistryError as error:  # no such router or encoder, or a broken plug-in
            found.append(Fault(where, str(error)))
        return None

    given: Mapping[str, Any] = data
    for item in overrides:
        given = attempt(partial(apply_overrides, given, [f"parameters.{item}"])) or given
    config = attempt(partial(parse, TrainConfig, given, where))
    encoder, router, parameters = (given.get(key) for key in ("encoder", "router", "parameters"))
    parameters = {} if parameters is None else parameters
    if isinstance(router, str) and isinstance(parameters, Mapping):
        attempt(lambda: new_router(TrainConfig(router=router, parameters=dict(parameters))))
    if isinstance(encoder, str):
        attempt(partial(EncoderSpec.of, encoder))
    if config is None or found:
        raise ConfigError(found)
    return config
