"""The folder that ``train`` writes and ``serve`` loads: a manifest and safetensors, no code.

manifest.json          router, parameters, LLMs, encoder, and the sha256 of every other file
weights.safetensors    the router's arrays, and the embeddings of the probe texts
training/              optional: the routing data it was fitted on, to fit it again where
                       the query encoder had to be rebuilt
encoder/               optional: the table of a static query encoder, which is then not distilled
plugin/NAME/           optional: source of the plug-ins that define the router or its members
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from waypost.contracts.atomic import replacing_folder
from waypost.contracts.errors import ArtifactDigestError, ArtifactError, ArtifactFormatError
from waypost.contracts.records import LLMInfo, RouterKind

FORMAT = "waypost-artifact/1"
MANIFEST = "manifest.json"
WEIGHTS = "weights.safetensors"
TRAINING = "training"
PLUGIN = "plugin"
ENCODER = "encoder"
PROBE_EMBEDDINGS = "probe_embeddings"

PROBE_TEXTS = (
    "What is the capital of France?",
    "A shop sells 3 pens for $2. How much do 12 pens cost?",
    "Which gas do plants take in?\nA. oxygen\nB. carbon dioxide\nC. helium\nD. neon",
    "Write a Python function that returns the largest element of a list.",
    "Wie heißt der längste Fluss in Afrika?",
)
"""Probe texts. Their embeddings show at load whether the encoder is the one used in training."""


class EncoderInfo(BaseModel):
    """The encoder a router was fitted with."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    dimension: int = Field(ge=1)


class Manifest(BaseModel):
    """Contents of manifest.json.

    Attributes:
        format: Version of this layout; another one is refused.
        router: Registry name.
        kind: How the router decides; see `RouterKind`.
        version: Short digest of files and manifest (all but ``metrics`` and ``versions``); what
            decisions carry as ``router_version``.
        parameters: The router's parameters.
        llms: The candidates, in the order of every array's columns.
        encoder: The query encoder; null for routers that need none.
        state: JSON-able learned values.
        data_digest: Digest of the training data.
        metrics: Numbers measured at training time.
        versions: Versions of Python and of the packages at training time.
        seed: Seed of the training run.
        plugins: Names of the plug-ins whose source is packed: the router's own, its members'.
        files: sha256 of every other file, by relative path.
        digest: sha256 of this manifest without this key; empty in manifests that are older than
            the key.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal["waypost-artifact/1"] = "waypost-artifact/1"
    router: str
    kind: RouterKind = "score"
    version: str
    parameters: dict[str, Any]
    llms: tuple[LLMInfo, ...] = Field(min_length=1)
    encoder: EncoderInfo | None = None
    state: dict[str, Any] = Field(default_factory=dict)
    data_digest: str = ""
    metrics: dict[str, Any] = Field(default_factory=dict)
    versions: dict[str, str] = Field(default_factory=dict)
    seed: int | None = None
    plugins: tuple[str, ...] = ()
    files: dict[str, str] = Field(default_factory=dict)
    digest: str = ""

    @property
    def packs_encoder(self) -> bool:
        """Whether the artifact holds the table of its query encoder."""
        return any(name.startswith(f"{ENCODER}/") for name in self.files)

    @model_validator(mode="before")
    @classmethod
    def _one_plugin(cls, data: Any) -> Any:
        # Older artifacts name one plug-in, or null.
        if not isinstance(data, dict) or "plugin" not in data or "plugins" in data:
            return data
        rest = {key: value for key, value in data.items() if key != "plugin"}
        return {**rest, "plugins": [data["plugin"]] if data["plugin"] is not None else []}


class Untrained(BaseModel):
    """A router that decides without routing data, in the place of an artifact.

    Attributes:
        router: Registry name; its class has ``needs_data = False``.
        parameters: The router's parameters.
        llms: The candidates, in the order of the pool.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    router: str
    parameters: dict[str, Any] = Field(default_factory=dict)
    llms: tuple[LLMInfo, ...] = Field(min_length=1)

    @property
    def version(self) -> str:
        """Short digest; what decisions carry as ``router_version``."""
        return f"untrained-{_version(self.model_dump(mode='json'))}"


def write_artifact(
    folder: str | Path,
    manifest: Manifest,
    arrays: Mapping[str, NDArray[Any]],
    add_files: Callable[[Path], None] | None = None,
) -> Manifest:
    """Write an artifact, replacing ``folder`` in one step.

    Args:
        folder: Target. An existing artifact is replaced; anything else is refused.
        manifest: Everything but ``version`` and ``files``, which are computed here.
        arrays: The router's arrays and `PROBE_EMBEDDINGS`.
        add_files: Called with the unfinished folder, to add ``training/`` or ``plugin/``.

    Returns:
        The manifest as written.

    Raises:
        ArtifactFormatError: ``folder`` holds something that is not an artifact.
        ArtifactError: it cannot be written.
    """
    from safetensors.numpy import save_file

    folder = Path(folder)
    check_target(folder)

    def failed(why: str) -> ArtifactError:
        return ArtifactError(f"{folder}: cannot be written: {why}")

    with replacing_folder(folder, failed) as partial:
        save_file(
            {name: np.ascontiguousarray(value) for name, value in arrays.items()},
            str(partial / WEIGHTS),
        )
        (partial / WEIGHTS).chmod(0o644)  # safetensors writes it for the owner alone
        if add_files is not None:
            add_files(partial)
        files = {
            path.relative_to(partial).as_posix(): _sha256(path)
            for path in sorted(partial.rglob("*"))
            if path.is_file()
        }
        data = manifest.model_copy(update={"files": files}).model_dump(mode="json")
        data["version"] = _version(data)
        data["digest"] = _digest(data)
        (partial / MANIFEST).write_text(_text(data), encoding="utf-8")
    return Manifest.model_validate(data)


def check_target(folder: str | Path) -> None:
    """Check that the folder is absent or holds an artifact, which may be replaced.

    Raises:
        ArtifactFormatError: the folder holds something else.
    """
    folder = Path(folder)
    if folder.exists() and not (folder / MANIFEST).is_file():
        if folder.is_dir() and not any(folder.iterdir()):
            return
        raise ArtifactFormatError(f"{folder}: exists and is not an artifact; give another folder")


def _version(data: Mapping[str, Any]) -> str:
    # Covers everything that decides what the router does: the same weights with another parameter
    # are another version. Time and metrics of the training are left out.
    decisive = {k: v for k, v in data.items() if k not in _NOT_DECISIVE}
    return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()[:12]


_NOT_DECISIVE = ("version", "digest", "metrics", "versions")


def _digest(data: Mapping[str, Any]) -> str:
    return hashlib.sha256(_text({**data, "digest": ""}).encode()).hexdigest()


def _is_whole(text: str, data: Mapping[str, Any]) -> bool:
    try:
        return not data.get("digest") or (text, data["digest"]) == (_text(data), _digest(data))
    except ValueError:  # an infinite number, which is never written
        return False


def _text(data: Mapping[str, Any]) -> str:
    return json.dumps(data, indent=2, allow_nan=False) + "\n"


def read_manifest(folder: str | Path) -> Manifest:
    """Read an artifact's manifest.

    Raises:
        ArtifactFormatError: no such folder, no manifest, an unknown format or key.
        ArtifactDigestError: the manifest was changed after it was written.
    """
    path = Path(folder) / MANIFEST
    try:
        text = path.read_bytes().decode("utf-8")
        data = json.loads(text)
    except FileNotFoundError:
        raise ArtifactFormatError(
            f"{folder}: no {MANIFEST}; expected a folder written by `waypost train`"
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise ArtifactFormatError(f"{path}: not readable as JSON: {error}") from None
    found = data.get("format") if isinstance(data, dict) else None
    if found != FORMAT:
        raise ArtifactFormatError(f"{path}: format is {found!r}; this version reads {FORMAT!r}")
    try:
        manifest = Manifest.model_validate(data)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(map(str, first["loc"]))
        raise ArtifactFormatError(f"{path}: {key}: {first['msg']}") from None
    if not _is_whole(text, data) or manifest.version != _version(data):
        raise ArtifactDigestError(f"{path}: was changed after training; train again or restore it")
    return manifest


def read_artifact(folder: str | Path) -> tuple[Manifest, dict[str, NDArray[Any]]]:
    """Read manifest and arrays, after checking every file against its sha256.

    Raises:
        ArtifactFormatError: as `read_manifest`, or the weights cannot be read.
        ArtifactDigestError: a file is missing, changed, or not in the manifest.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    folder = Path(folder)
    manifest = read_manifest(folder)
    _check_files(folder, manifest)
    try:
        return manifest, load_file(str(folder / WEIGHTS))
    except (SafetensorError, OSError) as error:
        raise ArtifactFormatError(f"{folder / WEIGHTS}: not readable: {error}") from None


def _check_files(folder: Path, manifest: Manifest) -> None:
    for name, expected in manifest.files.items():
        path = folder / name
        if ".." in Path(name).parts or Path(name).is_absolute():
            raise ArtifactDigestError(f"{folder}: the manifest names a file outside: {name}")
        if not path.is_file():
            raise ArtifactDigestError(f"{path}: missing; the manifest lists it")
        if _sha256(path) != expected:
            raise ArtifactDigestError(
                f"{path}: was changed after training (its sha256 is not the manifest's); "
                "train again or restore the file"
            )
    for path in folder.rglob("*"):
        name = path.relative_to(folder).as_posix()
        hidden = any(part.startswith(".") for part in Path(name).parts)
        if path.is_file() and name != MANIFEST and name not in manifest.files and not hidden:
            raise ArtifactDigestError(f"{path}: does not belong to the artifact; remove it")
    if WEIGHTS not in manifest.files:
        raise ArtifactDigestError(f"{folder}: the manifest lists no {WEIGHTS}")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
