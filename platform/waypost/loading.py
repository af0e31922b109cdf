"""Save routers of every kind as artifacts and load them, with encoder and state."""

from __future__ import annotations

import logging
import platform
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import waypost
from waypost.contracts.artifact import (
    ENCODER,
    MANIFEST,
    PLUGIN,
    PROBE_EMBEDDINGS,
    PROBE_TEXTS,
    TRAINING,
    EncoderInfo,
    Manifest,
    Untrained,
    read_artifact,
    read_manifest,
    write_artifact,
)
from waypost.contracts.encoder import Encoder
from waypost.contracts.errors import (
    ArtifactError,
    ArtifactFormatError,
    EncoderMismatchError,
    PluginError,
    PoolMismatchError,
    RegistryError,
    StorageMissingError,
    names,
)
from waypost.contracts.router import TrainableRouter
from waypost.contracts.routing_data import RoutingData, read_routing_data, write_routing_data
from waypost.registry import find_router, make_trainable, searching
from waypost.registry.packing import foreign_plugins, pack_plugin, why_foreign
from waypost.registry.rule_router import no_outcomes
from waypost.storage import Place, local_copy, place

logger = logging.getLogger(__name__)

MIN_PROBE_COSINE = 0.999
MAX_TRAINING_ROWS = 50_000
"""Maximum routing rows for which the artifact contains the training data for a later refit."""


def save_router(
    router: TrainableRouter,
    folder: str | Path,
    data: RoutingData,
    *,
    metrics: Mapping[str, Any] | None = None,
    seed: int | None = None,
    add_files: Callable[[Path], None] | None = None,
) -> Manifest:
    """Write a fitted router as an artifact.

    Args:
        router: A fitted router, with its ``encoder`` set if it needs embeddings. Wrap a router
            that does not learn first (`make_trainable`).
        folder: Target; an existing artifact is replaced.
        data: Its training data. If it is small, the artifact contains it, so that the
            router can be fitted again with a rebuilt encoder.
        metrics: Numbers measured at training time.
        seed: Seed of the training run.
        add_files: Called with the unfinished folder, to add files.

    Raises:
        NotFittedError: The router is not fitted.
        ArtifactError: The folder cannot be written, or the encoder is missing.
    """
    arrays, state = router.get_state()
    encoder = router.encoder if router.needs_embeddings else None
    if router.needs_embeddings:
        if encoder is None:
            raise ArtifactError(f"{router.name}: set .encoder before saving; load needs its id")
        arrays[PROBE_EMBEDDINGS] = encoder.encode(PROBE_TEXTS)
    entries = {name: find_router(name) for name in router.plugin_names()}
    sources = {n: Path(e.location) for n, e in entries.items() if e.source == "folder"}
    manifest = Manifest(
        router=router.name,
        kind=router.kind,
        version="",
        parameters=router.get_params(),
        llms=router.llms_,
        encoder=None
        if encoder is None
        else EncoderInfo(id=encoder.id, dimension=encoder.dimension),
        state=state,
        data_digest=data.digest,
        metrics=dict(metrics or {}),
        versions={
            "python": platform.python_version(),
            "waypost": waypost.__version__,
            "numpy": np.__version__,
            **dict(entry.distribution for entry in entries.values() if entry.distribution),
        },
        seed=seed,
        plugins=tuple(sources),
    )

    def add_all_files(partial: Path) -> None:
        if encoder is not None and data.quality.size <= MAX_TRAINING_ROWS:
            write_routing_data(partial / TRAINING, data)
        for name, source in sources.items():
            pack_plugin(source, partial / PLUGIN / name)
        if add_files is not None:
            add_files(partial)

    done = write_artifact(folder, manifest, arrays, add_all_files)
    router.version = done.version
    return done


def manifest_of(folder: str | Place | Untrained) -> Manifest:
    """Read the manifest of an artifact. From a store only this file is fetched.

    Args:
        folder: Path or URI of an artifact; or a router without one, whose manifest is made here.

    Raises:
        ArtifactFormatError, ArtifactDigestError: See `waypost.contracts.artifact.read_manifest`.
        StorageError: A URI cannot be read.
        RegistryError, ConfigError, SchemaError: A router without an artifact cannot be made; see
            `load_router`.
    """
    if isinstance(folder, Untrained):
        router = _begun(folder)
        return Manifest(
            router=router.name,
            kind=router.kind,
            version=router.version,
            parameters=router.get_params(),
            llms=router.llms_,
        )
    where = place(folder)
    if isinstance(where, Path):
        return read_manifest(where)
    try:
        with local_copy(where / MANIFEST) as file:
            return read_manifest(file.parent)
    except StorageMissingError:
        raise ArtifactFormatError(
            f"{where}: no {MANIFEST}; expected a folder written by `waypost train`"
        ) from None


def load_router(
    folder: str | Place | Untrained,
    *,
    encoder: Encoder | None = None,
    llms: Sequence[str] | None = None,
    allow_plugin_code: bool = False,
) -> TrainableRouter:
    """Load a router; one that does not learn is wrapped in a `PlainRouter`.

    Args:
        folder: Path or URI of an artifact; or a router without one.
        encoder: Query encoder to use; None builds the one of the manifest.
        llms: Expected names, in this order; None accepts the artifact's.
        allow_plugin_code: Allow the plug-in source packed in the artifact to run. Not needed if
            the plug-ins of these names on this machine have the same source.

    Raises:
        ArtifactFormatError, ArtifactDigestError: The folder is not a valid artifact.
        PoolMismatchError: ``llms`` are not the artifact's LLMs, or in another order.
        EncoderMismatchError: The encoder has another id or width, or returns other vectors and
            the artifact has no training data for a refit.
        WeightsError: The encoder's weights are not available.
        StorageError: A URI cannot be read.
        RegistryError, ConfigError: There is no router of that name and those parameters, or it
            needs routing data.
        SchemaError: The LLMs lack what the router orders them by, such as sizes.
    """
    if isinstance(folder, Untrained):
        return _begun(folder)
    with local_copy(folder) as here:
        return _load(here, encoder, llms, allow_plugin_code)


def _begun(source: Untrained) -> TrainableRouter:
    router = make_trainable(source.router, source.parameters)
    if router.needs_data:
        raise RegistryError(
            f"{source.router} has to be trained on answers of the LLMs: make them with `waypost "
            f"data run`, train with `waypost train --router {source.router}`, and set artifact to "
            "the folder that it writes"
        )
    router.fit(no_outcomes(source.llms))
    router.version = source.version
    return router


def _load(
    folder: Path, encoder: Encoder | None, llms: Sequence[str] | None, allow_plugin_code: bool
) -> TrainableRouter:
    manifest, arrays = read_artifact(folder)
    _check_pool(manifest, llms, folder)
    with _own_plugins(manifest, folder, allow_plugin_code):
        router = _make(manifest, folder)
        probe = arrays.pop(PROBE_EMBEDDINGS, None)
        router.set_state(manifest.llms, arrays, manifest.state)
        router.version = manifest.version
        if manifest.encoder is not None:
            router.encoder = _encoder(manifest, encoder, folder)
            if not _same_vectors(router.encoder, probe):
                _refit(router, folder)
    return router


def _check_pool(manifest: Manifest, llms: Sequence[str] | None, folder: str | Path) -> None:
    found = [llm.name for llm in manifest.llms]
    if llms is not None and list(llms) != found:
        how = "in another order" if sorted(llms) == sorted(found) else "other models"
        raise PoolMismatchError(
            f"{folder}: was trained on {names(found)}; asked for {how}: {names(list(llms))}"
        )


def _own_plugins(
    manifest: Manifest, folder: Path, allow_plugin_code: bool
) -> AbstractContextManager[None]:
    """Use the plug-ins packed in the artifact, if there are any, to build routers and members."""
    if not manifest.plugins:
        return nullcontext()
    if not allow_plugin_code and (foreign := foreign_plugins(manifest)):
        raise ArtifactError(
            f"{folder}: holds the code of plug-in {why_foreign(foreign)}; it runs only when you "
            "allow it: --allow-plugin-code, or allow_plugin_code: true in a Serve file"
        )
    return searching([folder / PLUGIN])


def _make(manifest: Manifest, folder: str | Path) -> TrainableRouter:
    try:
        router = make_trainable(manifest.router, manifest.parameters)
    except PluginError:
        raise
    except RegistryError as error:
        made_with = [f"{name} {version}" for name, version in manifest.versions.items()]
        raise RegistryError(f"{folder}: made with {names(made_with)}: {error}") from None
    if router.kind != manifest.kind:
        raise ArtifactError(
            f"{folder}: was written by a router of kind {manifest.kind}; {manifest.router} is now "
            f"of kind {router.kind}: train it again"
        )
    return router


def encoder_of(
    manifest: Manifest, folder: str | Path, options: Mapping[str, Any] | None = None
) -> Encoder:
    """Build the query encoder of an artifact that has one, with the table that it holds, if any.

    Args:
        manifest: Its manifest.
        folder: Its folder; a packed table is read at the encoder's first use.
        options: Keys of `EncoderSpec` that do not change the vectors, such as ``threads``.
    """
    from waypost.encoders import EncoderSpec, make_encoder

    assert manifest.encoder is not None  # checked by the caller
    spec = EncoderSpec.of(manifest.encoder.id).model_copy(update=dict(options or {}))
    return make_encoder(spec, Path(folder) / ENCODER if manifest.packs_encoder else None)


def _encoder(manifest: Manifest, given: Encoder | None, folder: str | Path) -> Encoder:
    wanted = manifest.encoder
    assert wanted is not None  # checked by the caller
    if given is None:
        given = encoder_of(manifest, folder)
    if (given.id, given.dimension) != (wanted.id, wanted.dimension):
        raise EncoderMismatchError(
            f"{folder}: was trained with encoder {wanted.id} ({wanted.dimension} wide); "
            f"got {given.id} ({given.dimension} wide)"
        )
    return given


def _same_vectors(encoder: Encoder, probe: NDArray[Any] | None) -> bool:
    if probe is None:
        return False
    now = encoder.encode(PROBE_TEXTS)
    cosine = (now * probe).sum(axis=1)
    logger.debug("probe texts: least cosine to the training encoder %.6f", cosine.min())
    return bool(cosine.min() > MIN_PROBE_COSINE)


def _refit(router: TrainableRouter, folder: Path) -> None:
    if not (folder / TRAINING).is_dir():
        raise EncoderMismatchError(
            f"{folder}: the encoder gives other vectors than at training time, and the artifact "
            "holds no training data to fit again; run `waypost train` with this encoder"
        )
    assert router.encoder is not None  # set by the caller
    logger.warning("%s: the encoder was rebuilt differently; fitting the router again", folder)
    data = read_routing_data(folder / TRAINING, responses=router.needs_responses)
    router.fit(data.with_embeddings(router.encoder.encode(data.queries), router.encoder.id))
    router.version = f"{router.version}-refit"
