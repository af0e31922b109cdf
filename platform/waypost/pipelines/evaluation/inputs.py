"""The inputs of a comparison: routers by name or artifact, and embeddings, each text once."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from waypost.config import apply_overrides
from waypost.contracts.artifact import MANIFEST, read_manifest
from waypost.contracts.encoder import Encoder
from waypost.contracts.errors import (
    ConfigError,
    Fault,
    PluginError,
    RegistryError,
    WaypostError,
    raised_at,
)
from waypost.contracts.records import Query
from waypost.contracts.router import TrainableRouter
from waypost.contracts.routing_data import RoutingData
from waypost.loading import load_router
from waypost.pipelines.data.embedding_cache import query_embeddings
from waypost.pipelines.data.embeddings import Progress
from waypost.registry import make_trainable, router_class
from waypost.storage import Place, is_uri, local_copy, place


class Vectors:
    """The embeddings of queries, computed once for each encoder and text.

    Args:
        encoder: Encoder that routers are fitted with.
        folder: Routing-data folder, whose stored embeddings are read; see `query_embeddings`.
        progress: Called with (done, total) embedded texts.
    """

    def __init__(self, encoder: Encoder, folder: Path, progress: Progress | None = None) -> None:
        self.encoder = encoder
        self._folder = folder
        self._progress = progress
        self._rows: dict[str, dict[str, NDArray[np.float32]]] = {}

    def embedded(self, data: RoutingData, encoder: Encoder) -> RoutingData:
        """Return the data with embeddings by this encoder."""

        def kept(texts: list[str]) -> NDArray[np.float32]:
            return query_embeddings(texts, encoder, self._folder, self._progress)

        return data.with_embeddings(self._of(data.queries, encoder, kept), encoder.id)

    def _of(
        self,
        texts: Sequence[str],
        encoder: Encoder,
        embed: Callable[[list[str]], NDArray[np.float32]],
    ) -> NDArray[np.float32]:
        known = self._rows.setdefault(encoder.id, {})
        new = list(dict.fromkeys(text for text in texts if text not in known))
        if new:
            known.update(zip(new, embed(new), strict=True))
        return np.stack([known[text] for text in texts])

    def for_router(self, router: TrainableRouter, data: RoutingData) -> RoutingData:
        """Return the data with the embeddings of this router's encoder, if it needs any."""
        encoder = self._encoder_of(router)
        return data if encoder is None else self.embedded(data, encoder)

    def choose(self, router: TrainableRouter, texts: Sequence[str]) -> list[str]:
        """Return the name of the LLM that a router chooses for each text, at lambda 0.

        Embeddings of these texts are not stored in the folder.
        """
        encoder = self._encoder_of(router)
        rows = None if encoder is None else self._of(texts, encoder, encoder.encode)
        return [one.model for one in router.decide([Query(text) for text in texts], rows)]

    @staticmethod
    def _encoder_of(router: TrainableRouter) -> Encoder | None:
        return router.encoder if router.needs_embeddings else None


@dataclass(frozen=True)
class Contender:
    """One row of the report.

    Attributes:
        label: Unique name of the row.
        artifact: Path or URI of a folder to load; None for a router to fit.
        router: Registry name to fit; empty for an artifact.
        parameters: Parameters of the router.
        made: A fitted router, in place of an artifact or a name.
    """

    label: str
    artifact: Place | None = None
    router: str = ""
    parameters: dict[str, Any] = field(default_factory=dict)
    made: TrainableRouter | None = None


@dataclass(frozen=True)
class Ready:
    """A router that is ready to route.

    Attributes:
        router: The fitted or loaded router.
        fit_s: Seconds of its fit without embedding; for an artifact from its manifest, or None.
        trained_on: Digest of the data that it was fitted on.
        refit: Fit it again with the next seed; None for an artifact or a router without a seed.
    """

    router: TrainableRouter
    fit_s: float | None
    trained_on: str
    refit: Callable[[], TrainableRouter] | None = None


def read_contenders(arguments: Sequence[str | TrainableRouter], seed: int) -> list[Contender]:
    """Parse ``ARTIFACT``, ``NAME`` and ``NAME:key=value,key=value`` arguments, or take routers.

    A URI, a folder with a manifest, and an argument with a path separator are artifacts. Names,
    parameters and the existence of local artifacts are checked here, before anything is read or
    fitted. A broken plug-in or artifact raises its error when it is loaded.

    Raises:
        ConfigError: With a fault for each argument with a missing artifact, an unknown router or
            an invalid value.
    """
    found: list[Contender] = []
    faults: list[Fault] = []
    for argument in arguments:
        if not isinstance(argument, str):
            found.append(Contender(argument.name, made=argument))
            continue
        try:
            one = _read(argument, seed)
        except ConfigError as error:
            faults += error.faults
        except RegistryError as error:
            faults.append(Fault(argument, str(error)))
        else:
            found.append(one)
    if faults:
        raise ConfigError(faults)
    return _distinct(found)


_NO_ARTIFACT = (
    "no such artifact; expected a folder written by `waypost train`, its URI, or a router's name"
)


def _read(argument: str, seed: int) -> Contender:
    if is_uri(argument):
        where = place(argument)
        return Contender(where.name, artifact=where)
    path = Path(argument)
    if "/" in argument.partition(":")[0] or (path / MANIFEST).is_file():
        if not path.exists():
            raise ConfigError([Fault(argument, _NO_ARTIFACT)])
        return Contender(path.resolve().name, artifact=path)
    name, _, rest = argument.partition(":")
    # a comma inside brackets is part of a list
    items = [item for item in re.split(r",(?![^\[\]]*\])", rest) if item]
    given = apply_overrides({}, items)
    try:
        cls: Any = router_class(name)
    except PluginError:
        return Contender(argument, router=name, parameters=given)
    except RegistryError:
        if path.is_dir():  # loading it raises an error with what it lacks
            return Contender(path.resolve().name, artifact=path)
        raise
    check = getattr(cls, "check_params", None)
    if check is not None:
        check(given)
    seeded = {"seed": seed} if "seed" in getattr(cls, "parameter_constraints", {}) else {}
    return Contender(argument, router=name, parameters={**seeded, **given})


def _distinct(contenders: Sequence[Contender]) -> list[Contender]:
    taken: dict[str, int] = {}
    found = []
    for one in contenders:
        taken[one.label] = taken.get(one.label, 0) + 1
        again = taken[one.label]
        label = one.label if again == 1 else f"{one.label} ({again})"
        found.append(replace(one, label=label))
    return found


def prepare(
    one: Contender, train: RoutingData, vectors: Vectors, *, allow_plugin_code: bool
) -> Ready:
    """Load the artifact, or fit the router on the training split.

    Raises:
        WaypostError: The router cannot be loaded, built or fitted.
    """
    if one.made is not None:
        return Ready(one.made, None, "")
    if one.artifact is not None:
        with local_copy(one.artifact) as folder:
            loaded = load_router(folder, allow_plugin_code=allow_plugin_code)
            manifest = read_manifest(folder)
        noted = manifest.metrics.get("fit_s")
        fit_s = float(noted) if isinstance(noted, int | float) else None
        return Ready(loaded, fit_s, manifest.data_digest)

    def fitted(parameters: dict[str, Any]) -> tuple[TrainableRouter, float]:
        router = make_trainable(one.router, parameters)
        data = train
        if router.needs_embeddings:
            router.encoder = vectors.encoder
            data = vectors.embedded(train, vectors.encoder)
        start = time.perf_counter()
        router.fit(data)
        return router, time.perf_counter() - start

    def refit() -> TrainableRouter:
        return fitted({**one.parameters, "seed": one.parameters["seed"] + 1})[0]

    router, fit_s = fitted(one.parameters)
    return Ready(router, fit_s, train.digest, refit if "seed" in one.parameters else None)


def reason(error: Exception) -> str:
    """Return in one line why a router failed.

    Errors of plug-ins and libraries are given by type and place only: their messages may contain
    a user's text.
    """
    if isinstance(error, WaypostError):
        return " ".join(str(error).split())
    return f"{raised_at(error)}; run with --debug for its message"
