"""The Python interface to training and comparison: `train`, `evaluate`, `make_router`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from waypost.contracts.encoder import Encoder
from waypost.contracts.errors import ConfigError, Fault
from waypost.contracts.router import MetaRouter, TrainableRouter
from waypost.contracts.routing_data import RoutingData, read_routing_data
from waypost.encoders import make_encoder
from waypost.registry import make_router as registered
from waypost.storage import Place, local_copy

if TYPE_CHECKING:
    from waypost.report.tables import Report

STATIC = "static"
"""The encoder of routers that name none, as in the commands."""


def make_router(
    name: str,
    params: Mapping[str, Any] | None = None,
    plugin_paths: Sequence[Path] | None = None,
    *,
    encoder: str | Encoder = STATIC,
) -> MetaRouter:
    """Build an untrained router, with a query encoder where it needs one.

    Args:
        name: Registry name (``waypost list-routers``).
        params: Its parameters.
        plugin_paths: Folders that hold plug-in folders; None takes those of the settings.
        encoder: Kind or id of the encoder (``static``, ``onnx``, ``torch``, ``hashing``), or an
            encoder. Its weights are read at the first text.

    Raises:
        RegistryError, PluginError, MissingExtraError: see `waypost.registry.make_router`.
        ConfigError: naming every unknown parameter and every value out of range.

    Example:
        >>> from waypost import make_router
        >>> router = make_router("knnrouter", {"k": 20}, encoder="hashing")
        >>> router.fit("serve_configs/starter/data")  # doctest: +ELLIPSIS
        <knnrouter(k=20), fitted for smollm2-135m, qwen2.5-coder-0.5b, qwen2.5-coder-1.5b>
        >>> router.route_single({"query": "What is 12 * 7?", "lambda": 9}).model
        'smollm2-135m'
    """
    router = registered(name, params, plugin_paths)
    if isinstance(router, TrainableRouter) and router.needs_embeddings:
        router.encoder = _encoder(encoder)
    return router


def train(
    router: str,
    data: str | Place | RoutingData,
    *,
    encoder: str | Encoder = STATIC,
    out: str | Place | None = None,
    seed: int = 0,
    **parameters: Any,
) -> TrainableRouter:
    """Train a router.

    Args:
        router: Registry name (``waypost list-routers``).
        data: Folder of routing data or its URI, of which the training split is read; or the data.
        encoder: Kind or id of the query encoder, or an encoder.
        out: Folder or URI of an artifact to write, with the numbers of a cross-validation, as
            ``waypost train`` does; None writes nothing. Needs a folder as ``data``.
        seed: Seed of the router, if it has one, and of the folds.
        parameters: Parameters of the router.

    Returns:
        The fitted router: ``route_single``, ``route_batch``.

    Raises:
        ConfigError: A parameter is unknown or out of range, or ``out`` cannot be written from
            ``data``.
        RegistryError, SchemaError, WeightsError, ArtifactError, StorageError: See their docstrings.

    Example:
        >>> import waypost
        >>> router = waypost.train(
        ...     "knnrouter", "serve_configs/starter/data", encoder="hashing", k=40
        ... )
        >>> [decision.model for decision in router.route_batch(["2 + 2?", "Write quicksort."])]
        ['qwen2.5-coder-1.5b', 'qwen2.5-coder-1.5b']
    """
    from waypost.pipelines.train import TrainConfig, new_router
    from waypost.pipelines.train import train as train_to

    if out is not None:
        if isinstance(data, RoutingData) or not isinstance(encoder, str):
            problem = "needs data as a folder and the encoder by its name, to write them down"
            raise ConfigError([Fault("train: out", problem)])
        config = TrainConfig(router=router, parameters=parameters, encoder=encoder, seed=seed)
        return train_to(config, data, out).router
    made = new_router(TrainConfig(router=router, parameters=parameters, seed=seed))
    if made.needs_embeddings:
        made.encoder = _encoder(encoder)
    return made.fit(_data(data))


@dataclass(frozen=True)
class Evaluated:
    """Result of a comparison; printed, it is a table.

    Attributes:
        routers: Numbers of each router by its name: ``quality`` (mean score, 0 to 1),
            ``delta_best_single``, ``cost_usd_per_1k``, ``aiq`` and the others of
            docs/reference/metrics.md; None where one cannot be computed.
        references: The same of reference policies, such as ``best_single`` and ``oracle``.
        failed: Why a router could not be measured, by name.
        report: All of report.json.
    """

    routers: Mapping[str, Mapping[str, Any]]
    references: Mapping[str, Mapping[str, Any]]
    failed: Mapping[str, str]
    report: Report = field(repr=False)

    def __repr__(self) -> str:
        from waypost.report.compact import compact

        return compact(self.report)


def evaluate(
    routers: str | TrainableRouter | Sequence[str | TrainableRouter],
    data: str | Place,
    *,
    split: str = "test",
    encoder: str = STATIC,
    seed: int = 0,
    lambdas: Sequence[float] | None = None,
) -> Evaluated:
    """Compare routers on measured outcomes; no LLM is called.

    Args:
        routers: One or several of: a fitted router, an artifact, or the name of a router to fit on
            the training split (``name:key=value`` sets parameters).
        data: Folder of routing data, or its URI.
        split: The split to measure on: ``test`` or ``validation``.
        encoder: Encoder of the routers that are fitted here.
        seed: Seed of fits and of the bootstrap.
        lambdas: Cost weights; None is a scale from quality alone to cost alone.

    Raises:
        ConfigError: A router is unknown, or an option is wrong.
        SchemaError, StorageError: The data cannot be read.
    """
    from waypost.config import parse
    from waypost.pipelines.evaluation.run import EvaluateConfig
    from waypost.pipelines.evaluation.run import evaluate as compare
    from waypost.report.numbers import plain

    given = [routers] if isinstance(routers, str | TrainableRouter) else list(routers)
    names = [one if isinstance(one, str) else one.name for one in given]
    options: dict[str, Any] = {"routers": names, "split": split, "encoder": encoder, "seed": seed}
    if lambdas is not None:
        options["lambdas"] = tuple(lambdas)
    config = parse(EvaluateConfig, options, "evaluate")
    with local_copy(data) as folder:
        found = compare(config, folder, routers=given)
    report = plain(found.report)
    return Evaluated(report["routers"], report["reference"], report["failed"], report)


def _encoder(encoder: str | Encoder) -> Encoder:
    return make_encoder(encoder) if isinstance(encoder, str) else encoder


def _data(data: str | Place | RoutingData) -> RoutingData:
    if isinstance(data, RoutingData):
        return data
    with local_copy(data) as folder:
        return read_routing_data(folder)
