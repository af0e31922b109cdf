"""Train a router on a routing-data folder, validate it, and write its artifact."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from waypost.config import StrictModel, apply_overrides, collecting, parse
from waypost.contracts.artifact import ENCODER, Manifest, check_target
from waypost.contracts.errors import ConfigError, Fault
from waypost.contracts.router import TrainableRouter
from waypost.contracts.routing_data import RoutingData, read_routing_data
from waypost.contracts.tables import read_llms, split_path
from waypost.encoders import EncoderSpec, check_packing, make_encoder, pack_encoder
from waypost.loading import save_router
from waypost.metrics.operating_points import KEY
from waypost.pipelines.data.embedding_cache import query_embeddings
from waypost.pipelines.data.embeddings import Progress
from waypost.pipelines.evaluation.lambda_curve import decides_alone
from waypost.pipelines.validation import cross_validate, curve_lambdas, decide_on, of_report
from waypost.registry import make_trainable, router_class, run_defaults
from waypost.registry.rule_router import no_outcomes
from waypost.storage import Place, local_copy, mirrored, place

logger = logging.getLogger(__name__)

FOLDS = 5
FEWER_FOLDS = 3
SLOW_S = 5.0
"""Seconds of a fit above which it is repeated for fewer folds, unless a number is given."""


class TrainConfig(StrictModel):
    """One training run.

    Attributes:
        router: Registry name.
        parameters: Parameters of the router.
        encoder: Query encoder: a kind, an id, or its keys.
        pack_encoder: Put the static query encoder's table into the artifact (16 MB): it is then
            served without torch, transformers and a download.
        seed: Seed of the folds, and of the router if it has such a parameter.
        folds: Number of folds of the cross-validation if the folder has no validation split; 0
            is no cross-validation. None is `FOLDS`, `FEWER_FOLDS` where the fit took more than
            `SLOW_S`, or 0 for routers that fine-tune a model, whose fits take minutes.
    """

    router: str
    parameters: dict[str, Any] = Field(default_factory=dict)
    encoder: str | EncoderSpec = "static"
    pack_encoder: bool = False
    seed: int = Field(default=0, ge=0)
    folds: int | None = Field(default=None, ge=0, le=100)


@dataclass(frozen=True)
class TrainResult:
    """The result of a training run.

    Attributes:
        folder: Place of the artifact.
        manifest: Its manifest; ``metrics`` has the run's numbers.
        router: The fitted router.
    """

    folder: Place
    manifest: Manifest
    router: TrainableRouter = field(repr=False)


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

    Quality is measured on the validation split, or by cross-validation inside the training split;
    test data is never read. A router that does not learn is measured on the whole training split,
    and needs only a folder with ``llms.json``.

    Args:
        config: What to train.
        data_folder: Routing data; a path or URI.
        out: The artifact, a path or URI; an existing artifact is replaced.
        progress: Called with (done, total) embedded texts.
        further: Further entries of the manifest's ``metrics``; JSON-able.
        fit: Function that fits the router; None is the router's own ``fit``.

    Raises:
        ConfigError: A parameter of the router is invalid.
        RegistryError, SchemaError, WeightsError, ArtifactError, StorageError: See their
            docstrings.
    """
    # raise errors of the config before data is read, embedded and fitted
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
        data = read_routing_data(folder, split, responses=router.needs_responses)
        if not router.needs_embeddings:
            return data
        vectors = query_embeddings(data.queries, encoder, folder, progress)
        return data.with_embeddings(vectors, encoder.id)

    listed_only = not router.needs_data and not split_path(folder, "train").is_file()
    data = no_outcomes(read_llms(folder / "llms.json")) if listed_only else read("train")
    data = _with_endpoint(data, run_defaults(config.router).get("api_endpoint"))
    router.encoder = encoder
    if router.learns:
        for line in doubts(router, data):
            logger.warning("%s", line)
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
    found = _validate(router, config, data, held_out, metrics["fit_s"])
    if router.validates_itself:
        router.report_.pop(KEY, None)  # it stands in the manifest once, under the metrics
    metrics[KEY] = None if found is None else found.pop(KEY, None)
    metrics["validation"] = found
    add = partial(_pack, encoder.id) if config.pack_encoder and router.needs_embeddings else None
    return save_router(router, out, data, metrics=metrics, seed=config.seed, add_files=add)


def _pack(encoder_id: str, folder: Path) -> None:
    pack_encoder(encoder_id, folder / ENCODER)


def _with_endpoint(data: RoutingData, api_endpoint: str | None) -> RoutingData:
    """Return the data with the base URL of the LLMs that name none."""
    if api_endpoint is None:
        return data
    llms = [
        llm if llm.api_endpoint else llm.model_copy(update={"api_endpoint": api_endpoint})
        for llm in data.llms
    ]
    return replace(data, llms=tuple(llms))


FEW_QUERIES = 40
"""With fewer questions a router can hardly be told from chance."""


def doubts(router: TrainableRouter, data: RoutingData) -> list[str]:
    """Return what makes a fit doubtful, a line each."""
    found = []
    if len(data.llms) == 1:
        found.append(f"the data has one LLM, {data.names[0]}: there is nothing to choose")
    if 0 < len(data) < FEW_QUERIES:
        found.append(f"the data has {len(data)} questions; some hundred are a start")
    for name in sorted({*getattr(router, "row_count_parameters", ()), "k"}):
        value = router.get_params().get(name)
        if isinstance(value, int) and value > len(data):
            found.append(f"{name} is {value}, and the data has {len(data)} questions: all count")
    missing = np.isnan(data.quality).sum(axis=0)
    if missing.any():
        cells = ", ".join(
            f"{name} {n}" for name, n in zip(data.names, missing.tolist(), strict=True) if n
        )
        found.append(f"answers without a score are left out (null, NaN or failed): {cells}")
    return found


def _validate(
    router: TrainableRouter,
    config: TrainConfig,
    data: RoutingData,
    held_out: RoutingData | None,
    fit_s: float,
) -> dict[str, Any] | None:
    """Measure the router's choices; return None if the data has no outcomes for them.

    Of a router with `decides_alone` the single-round choice is measured.
    """
    recorded = getattr(router, "replayable", True) or decides_alone(router)
    if len(data) == 0 or not recorded:
        return None
    lambdas = curve_lambdas(router, data)
    if held_out is not None:
        return decide_on(router, data, held_out, lambdas).result("validation split")
    if router.validates_itself:
        return of_report(router.report_)
    folds = config.folds
    if folds is None:
        folds = FOLDS if fit_s <= SLOW_S else FEWER_FOLDS
        folds = folds if router.needs_weights is None else 0
    if folds <= 1:
        return None
    if not router.learns:
        return decide_on(router, data, data, lambdas).result("the whole training split")
    return cross_validate(partial(new_router, config), data, folds, config.seed, lambdas)


def new_router(config: TrainConfig) -> TrainableRouter:
    """Build the untrained router of a config; one that does not learn becomes a `PlainRouter`.

    Raises:
        ConfigError: A parameter is invalid.
        RegistryError, PluginError, MissingExtraError: See `make_trainable`.
    """
    known = getattr(router_class(config.router), "parameter_constraints", {})
    seed = {"seed": config.seed} if "seed" in known else {}
    return make_trainable(config.router, {**seed, **config.parameters})


def read_train_config(
    data: Mapping[str, Any], overrides: Sequence[str] = (), where: str = "options"
) -> TrainConfig:
    """Check the config of a run, the router's parameters and the encoder; return the config.

    Args:
        data: The config as plain data.
        overrides: ``key=value`` settings of the router's parameters; they take precedence.
        where: File of the data, for messages.

    Raises:
        ConfigError: With all faults.
        MissingExtraError: The router needs a package that is not installed.
    """
    found: list[Fault] = []
    attempt = partial(collecting, found, where)
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
    if config is not None and config.pack_encoder and not found:
        spec = EncoderSpec.of(config.encoder) if isinstance(config.encoder, str) else config.encoder
        attempt(partial(check_packing, spec, f"{where}: pack_encoder"))
    if config is None or found:
        raise ConfigError(found)
    return config
