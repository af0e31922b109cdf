"""From a routing-data folder to an artifact, cross-validated inside the training split."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from waypost.config import StrictModel, apply_overrides, parse
from waypost.contracts.artifact import Manifest, check_target
from waypost.contracts.cost import column_mean
from waypost.contracts.errors import ConfigError, Fault, RegistryError
from waypost.contracts.records import report, watching
from waypost.contracts.router import TrainableRouter
from waypost.contracts.routing_data import RoutingData, read_routing_data
from waypost.contracts.splits import fold_of
from waypost.contracts.step_router import StepRouter
from waypost.contracts.tables import read_llms, split_path
from waypost.encoders import EncoderSpec, make_encoder
from waypost.loading import save_router
from waypost.metrics.comparison import look_up_names
from waypost.pipelines.data.embeddings import Progress, query_embeddings
from waypost.pipelines.evaluation.lambda_curve import sweep
from waypost.registry import make_trainable, router_class
from waypost.registry.rule_router import no_outcomes
from waypost.storage import Place, local_copy, mirrored, place

MakeRouter = Callable[[], TrainableRouter]


def cross_validate(
    make: MakeRouter, data: RoutingData, folds: int, seed: int
) -> dict[str, Any] | None:
    """Decide each fold's questions with a router fitted on the others.

    Returns `summary` over all questions, or None where there are too few to leave some out
    (fewer distinct texts than folds, or a fold without which an LLM has no score).
    """
    fold = fold_of(data.queries, folds, seed, data.groups)
    parts = []
    for one in range(folds):
        report("cross-validation", one, folds)
        training, held_out = data.select(fold != one), data.select(fold == one)
        if len(held_out) == 0 or np.isnan(training.quality).all(axis=0).any():
            return None
        with watching(None):  # a fold's own fit is not told of: the bar would jump
            parts.append(decide_on(make().fit(training), training, held_out))
    merged = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
    return {"method": f"{folds}-fold cross-validation of the training split", **summary(merged)}


def decide_on(
    router: TrainableRouter, training: RoutingData, held_out: RoutingData
) -> dict[str, NDArray[np.float64]]:
    """Decide questions at lambda 0 and look up what the choice scored.

    Returns vectors of shape (n,), NaN where not measured: ``quality`` and ``cost_usd`` of the
    choice, ``best_single`` and ``best_single_cost_usd`` of the LLM with the highest training
    mean, ``oracle`` the best score of any LLM.
    """
    chosen = sweep(router, held_out, (0.0,)).outcomes[0]
    # A validation split may lack an LLM of the training split: its cells are not measured.
    name = training.names[int(np.nanargmax(column_mean(training.quality)))]
    single = look_up_names(held_out, [name] * len(held_out))
    return {
        "quality": chosen.quality,
        "best_single": single.quality,
        "oracle": np.where(np.isnan(held_out.quality), -np.inf, held_out.quality).max(axis=1),
        "cost_usd": chosen.cost_usd,
        "best_single_cost_usd": single.cost_usd,
    }


def summary(vectors: dict[str, NDArray[np.float64]]) -> dict[str, Any]:
    """Average the questions on which both the choice and the best single LLM were measured.

    ``gain`` is the mean difference of the two, ``gain_se`` its paired standard error. Costs are
    null where not recorded.
    """
    both = ~np.isnan(vectors["quality"]) & ~np.isnan(vectors["best_single"])
    kept = {key: value[both] for key, value in vectors.items()}
    n = int(both.sum())
    if n == 0:
        return {"queries": 0}
    gain = kept["quality"] - kept["best_single"]
    return {
        "queries": n,
        "quality": float(kept["quality"].mean()),
        "best_single": float(kept["best_single"].mean()),
        "gain": float(gain.mean()),
        "gain_se": float(gain.std(ddof=1) / np.sqrt(n)) if n > 1 else None,
        "oracle": float(kept["oracle"].mean()),
        "cost_usd": _mean(kept["cost_usd"]),
        "best_single_cost_usd": _mean(kept["best_single_cost_usd"]),
    }


def of_report(report: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return `summary` as a router that validates itself reports it, None where it did not.

    Its folds are those on which it chose, so the number is a little kind to it.
    """
    tried = {row["candidate"]: row for row in report.get("candidates", ())}
    chosen = tried.get(report["chosen"])
    if chosen is None:
        return None
    return {
        "method": f"{report['folds']}-fold cross-validation inside the fit, by which it chose",
        "queries": report["questions"],
        **{key: chosen[key] for key in ("quality", "gain", "gain_se")},
        **{key: report[key] for key in ("best_single", "oracle")},
        "cost_usd": None,
        "best_single_cost_usd": None,
    }


def _mean(values: NDArray[np.float64]) -> float | None:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else None


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
