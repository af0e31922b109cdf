"""From a routing-data folder to an artifact."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import Field

from waypost.config import StrictModel
from waypost.contracts.artifact import Manifest
from waypost.contracts.errors import ConfigError, Fault
from waypost.contracts.router import ScoreRouter
from waypost.contracts.routing_data import RoutingData, read_routing_data
from waypost.contracts.tables import split_path
from waypost.encoders import EncoderSpec, make_encoder
from waypost.loading import save_router
from waypost.pipelines.embed import Progress, query_embeddings
from waypost.pipelines.validation import cross_validate, decide_on, summary
from waypost.registry import make_router, router_class


class TrainConfig(StrictModel):
    """One training run.

    Attributes:
        router: Registry name.
        parameters: Of the router.
        encoder: Query encoder: a kind, an id, or its keys.
        seed: Of the folds, and of the router where it has such a parameter.
        folds: Parts of the cross-validation where the folder holds no validation split; 0 is
            none.
    """

    router: str
    parameters: dict[str, Any] = Field(default_factory=dict)
    encoder: str | EncoderSpec = "static"
    seed: int = Field(default=0, ge=0)
    folds: int = Field(default=5, ge=0, le=100)


@dataclass(frozen=True)
class TrainResult:
    """What a training run left.

    Attributes:
        folder: The artifact.
        manifest: Its manifest; ``metrics`` holds the run's numbers.
        router: The fitted router.
    """

    folder: Path
    manifest: Manifest
    router: ScoreRouter = field(repr=False)


def train(
    config: TrainConfig, data_folder: str | Path, out: str | Path, progress: Progress | None = None
) -> TrainResult:
    """Fit a router on the training split and write it as an artifact.

    Its quality is measured on the validation split, or by cross-validation inside the training
    split; test data is never read.

    Args:
        config: What to train.
        data_folder: Routing data.
        out: The artifact; one that is there is replaced.
        progress: Told (done, total) embedded texts.

    Raises:
        ConfigError: the router's parameters are wrong, or it is not a kind that is trained.
        RegistryError, SchemaError, WeightsError, ArtifactError: see their docstrings.
    """
    router = new_router(config)  # a wrong parameter is said before data is read and embedded
    folder, encoder = Path(data_folder), make_encoder(config.encoder)

    def read(split: str) -> RoutingData:
        data = read_routing_data(folder, split)
        if not router.needs_embeddings:
            return data
        vectors = query_embeddings(data.queries, encoder, folder, progress)
        return data.with_embeddings(vectors, encoder.id)

    data = read("train")
    router.encoder = encoder
    start = time.perf_counter()
    router.fit(data)
    metrics: dict[str, Any] = {
        "training_queries": len(data),
        "llms": len(data.llms),
        "fit_s": round(time.perf_counter() - start, 3),
    }
    if split_path(folder, "validation").is_file():
        found = decide_on(router, data, read("validation"))
        metrics["validation"] = {"method": "validation split", **summary(found)}
    elif config.folds > 1:
        make = partial(new_router, config)
        metrics["validation"] = cross_validate(make, data, config.folds, config.seed)
    manifest = save_router(router, out, data, metrics=metrics, seed=config.seed)
    return TrainResult(Path(out), manifest, router)


def new_router(config: TrainConfig) -> ScoreRouter:
    """Build the untrained router of a config.

    Raises:
        ConfigError: wrong parameters, or a router that predicts no scores.
        RegistryError: no such router.
    """
    known = getattr(router_class(config.router), "parameter_constraints", {})
    seed = {"seed": config.seed} if "seed" in known else {}
    router = make_router(config.router, {**seed, **config.parameters})
    if not isinstance(router, ScoreRouter):
        raise ConfigError([Fault("router", f"{config.router} is not trained by this command")])
    return router
