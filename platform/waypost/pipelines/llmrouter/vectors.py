"""Query embeddings: LLMRouter's .pt file, and the file of vectors that a folder keeps of it.

LLMRouter's vectors come from an encoder of its own, so no router here is trained on them: they
are kept to be exported again, in ``query_embeddings-llmrouter.safetensors`` beside those of our
encoders, by digest of the text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from waypost.contracts.errors import MissingExtraError, SchemaError
from waypost.pipelines.embed import embeddings_path, text_digest

ORIGIN = "llmrouter"
Vectors = NDArray[np.float32]


def read_pt(path: Path) -> dict[int, Vectors]:
    """Read the vectors of a .pt file by embedding id; no code in it is run.

    Raises:
        SchemaError: it is not a tensor or a dict of tensors, or a vector is of another width or
            not finite.
        MissingExtraError: torch is not installed.
    """
    torch = _torch()
    try:
        data = torch.load(path, map_location="cpu", weights_only=True)
    # torch raises what its reader and pickle's come upon, of a dozen types.
    except Exception as error:  # noqa: BLE001
        raise SchemaError(
            f"{path}: not readable as tensors ({type(error).__name__}); expected a tensor or a "
            "dict of tensors, saved by torch.save"
        ) from None
    if isinstance(data, torch.Tensor) and data.dim() == 2:
        data = dict(enumerate(data))
    if not isinstance(data, dict) or not data:
        raise SchemaError(f"{path}: holds {type(data).__name__}; expected a matrix or a dict")
    return _checked(data, path, torch)


def _checked(data: Mapping[Any, Any], path: Path, torch: Any) -> dict[int, Vectors]:
    found: dict[int, Vectors] = {}
    width = None
    for key, value in data.items():
        if isinstance(key, bool) or not isinstance(key, int):
            raise SchemaError(f"{path}: a key is {type(key).__name__}; expected embedding ids")
        if not isinstance(value, torch.Tensor) or value.dim() != 1:
            raise SchemaError(f"{path}: embedding_id {key}: expected a vector")
        width = width or len(value)
        vector = value.to(torch.float32).numpy()
        if len(vector) != width:
            raise SchemaError(f"{path}: embedding_id {key} is {len(vector)} wide; others {width}")
        if not np.isfinite(vector).all():
            raise SchemaError(f"{path}: embedding_id {key} is not finite")
        found[key] = vector
    return found


def write_pt(path: Path, vectors: Mapping[int, Vectors]) -> None:
    """Write vectors as LLMRouter reads them: a dict embedding id -> tensor."""
    torch = _torch()
    torch.save({key: torch.from_numpy(np.array(value)) for key, value in vectors.items()}, path)


def _torch() -> Any:
    try:
        import torch
    except ImportError:
        raise MissingExtraError("torch", "train") from None
    return torch


def keep(folder: Path, texts: Sequence[str], vectors: Sequence[Vectors]) -> None:
    """Write the vectors of some texts into a routing-data folder; of equal texts the first."""
    from safetensors.numpy import save_file

    first: dict[bytes, Vectors] = {}
    for text, vector in zip(texts, vectors, strict=True):
        first.setdefault(text_digest(text), vector)
    arrays = {
        "embeddings": np.stack(list(first.values())),
        "texts": np.frombuffer(b"".join(first), np.uint8).reshape(-1, 16).copy(),
    }
    path = embeddings_path(folder, ORIGIN)
    save_file(arrays, str(path))
    path.chmod(0o644)


def kept(folder: Path, texts: Sequence[str]) -> tuple[str, Vectors] | None:
    """Return (origin, vectors) where a file of the folder has them for every text, else None.

    LLMRouter's own come first, then those of the encoder that is first by name.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    pattern = embeddings_path(folder, "*")
    own = embeddings_path(folder, ORIGIN)
    for path in sorted(folder.glob(pattern.name), key=lambda p: (p != own, p.name)):
        try:
            arrays = load_file(str(path))
            rows, digests = arrays["embeddings"], arrays["texts"]
        except (SafetensorError, OSError, KeyError) as error:
            raise SchemaError(f"{path}: not readable ({error}); delete it") from None
        known = {digest.tobytes(): row for digest, row in zip(digests, rows, strict=False)}
        keys = [text_digest(text) for text in texts]
        if all(key in known for key in keys):
            origin = path.name.removeprefix("query_embeddings-").removesuffix(".safetensors")
            return origin, np.stack([known[key] for key in keys]).astype(np.float32)
    return None
