"""Distil a sentence encoder into a static one (model2vec), with equal results on all machines."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from waypost import weights
from waypost.config import settings
from waypost.contracts.errors import MissingExtraError
from waypost.encoders.spec import STATIC_RECIPE
from waypost.weights import Tell, folders

_log = logging.getLogger(__name__)


def locate(model: str, dimension: int, *, progress: Tell | None = None) -> Path:
    """Return the folder of a static model: shipped, in the cache, or distilled into the cache.

    Args:
        model: Hub name or folder of a sentence encoder, or of a static model (returned as is).
        dimension: Number of principal components to keep.
        progress: Called with progress messages; the default logs them.

    Raises:
        WeightsError: the model cannot be obtained.
        MissingExtraError: the model must be distilled, and model2vec or torch is missing.
    """
    if (folder := _published(model, dimension)) is not None:
        return folder
    source = weights.resolve(model, progress=progress)
    if _is_static(source):
        return source
    return distill(model, dimension, progress=progress)


def is_there(model: str, dimension: int) -> bool:
    """Return whether the static model is on this machine, so that `locate` distils nothing."""
    return _published(model, dimension) is not None


def _published(model: str, dimension: int) -> Path | None:
    own = settings()
    tried = [_folder(place, model, dimension) for place in (own.shipped, own.cache) if place]
    return next((folder for folder in tried if folders.is_published(folder)), None)


def distill(
    model: str, dimension: int = 256, *, force: bool = False, progress: Tell | None = None
) -> Path:
    """Distil a sentence encoder: one vector per token, principal components, Zipf weights.

    The signs of principal components are arbitrary and depend on the BLAS library. Each component
    is flipped so that its column's third moment is positive, which gives the same table everywhere.

    Args:
        model: Hub name or folder of a sentence encoder.
        dimension: Number of principal components to keep, at most the encoder's own dimension.
        force: Distil again even if the cache has the result.
        progress: Called with progress messages; the default logs them.

    Returns:
        The folder, in model2vec's form.

    Raises:
        WeightsError: the sentence encoder cannot be obtained.
        MissingExtraError: model2vec's distillation or torch is not installed.
    """
    say = _log.info if progress is None else progress
    source = weights.resolve(model, progress=progress)
    folder = _folder(settings().cache, model, dimension)
    with folders.locked(folder):
        if force or not folders.is_published(folder):
            say(f"distilling a static encoder of {dimension} dimensions from {model} (once)")
            origin = {"model": model, "dimension": dimension, "recipe": STATIC_RECIPE}
            with folders.publishing(folder, origin) as content:
                _write(source, dimension, content)
            say(f"static encoder: ready in {folder}")
    return folder


def _folder(place: Path, model: str, dimension: int) -> Path:
    name = f"static-{folders.slug(model.strip('/'))}-{dimension}-r{STATIC_RECIPE}"
    return place / "encoders" / name


def _is_static(folder: Path) -> bool:
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return bool(config.get("model_type") == "model2vec")


def _write(source: Path, dimension: int, target: Path) -> None:
    try:
        from model2vec.distill import distill as model2vec_distill
    except ImportError as error:
        raise MissingExtraError(error.name or "model2vec", "serve") from None
    from safetensors.numpy import save_file

    static = model2vec_distill(str(source), pca_dims=dimension, device="cpu", quantize_to="float32")
    table = fix_signs(static.embedding).astype(np.float16)
    save_file({"embeddings": np.ascontiguousarray(table)}, target / "model.safetensors")
    static.tokenizer.save(str(target / "tokenizer.json"))
    config = {
        "model_type": "model2vec",
        "architectures": ["StaticModel"],
        "hidden_dim": int(table.shape[1]),
        "normalize": True,
    }
    (target / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def fix_signs(table: NDArray[np.float32]) -> NDArray[np.float32]:
    """Flip columns so that the sum of cubes of each one is not negative."""
    cubes = np.einsum("ij,ij,ij->j", table, table, table, dtype=np.float64)
    return table * np.where(cubes < 0, np.float32(-1), np.float32(1))
