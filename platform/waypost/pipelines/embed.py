"""Query embeddings of a routing-data folder, computed once for each encoder.

``query_embeddings-<encoder>.safetensors`` beside the routing tables holds

    embeddings  float32 (n_texts, d), unit rows
    texts       uint8 (n_texts, 16), digest of each text
    probe       float32 (n_probes, d), embeddings of the artifact's probe texts

so that a text that stands in several splits, or was embedded before, is embedded once; and so
that vectors of an encoder that was rebuilt differently are never mixed with new ones.
"""

from __future__ import annotations

import hashlib
import logging
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from waypost.contracts.artifact import PROBE_TEXTS
from waypost.contracts.encoder import Encoder
from waypost.contracts.errors import SchemaError

logger = logging.getLogger(__name__)

Progress = Callable[[int, int], None]
_CHUNK = 256
_MIN_PROBE_COSINE = 0.9999


def embeddings_path(folder: Path, encoder_id: str) -> Path:
    """Return the file that keeps a folder's embeddings by one encoder."""
    return folder / f"query_embeddings-{encoder_id}.safetensors"


def query_embeddings(
    texts: Sequence[str],
    encoder: Encoder,
    folder: Path | None = None,
    progress: Progress | None = None,
) -> NDArray[np.float32]:
    """Embed texts, taking what the folder keeps and keeping there what is new.

    Args:
        texts: Of the queries.
        encoder: Query encoder.
        folder: Routing-data folder; None, or one that cannot be written, keeps nothing.
        progress: Told (done, total) texts.

    Returns:
        float32 (n_texts, d), unit rows.

    Raises:
        SchemaError: the file kept there is not readable or of another width.
    """
    known = {} if folder is None else _read(embeddings_path(folder, encoder.id), encoder)
    keys = [text_digest(text) for text in texts]
    missing = {key: text for key, text in zip(keys, texts, strict=True) if key not in known}
    for start in range(0, len(missing), _CHUNK):
        part = list(missing)[start : start + _CHUNK]
        rows = encoder.encode([missing[key] for key in part])
        known.update(zip(part, rows, strict=True))
        if progress is not None:
            progress(min(start + _CHUNK, len(missing)), len(missing))
    if missing and folder is not None and _is_meant_to_change(folder):
        path = embeddings_path(folder, encoder.id)
        try:
            write_embeddings(path, known, encoder)
        except OSError as error:  # a shared folder may be read-only: then nothing is kept
            why = error.strerror
            logger.info("%s: not written (%s); embeddings are computed each time", path, why)
    return np.stack([known[key] for key in keys]) if keys else _nothing(encoder)


def stored_embeddings(folder: Path, of: str) -> dict[str, tuple[int, set[bytes]]]:
    """Return which texts a folder keeps embeddings of, without reading the vectors.

    Args:
        folder: Routing-data folder.
        of: ``query`` or ``llm``.

    Returns:
        Encoder id -> width and digests of the texts (`text_digest`).

    Raises:
        SchemaError: a file is not readable.
    """
    from safetensors import SafetensorError, safe_open

    found = {}
    for path in sorted(folder.glob(f"{of}_embeddings-*.safetensors")):
        try:
            with safe_open(str(path), "numpy") as file:
                _, width = file.get_slice("embeddings").get_shape()
                digests = {row.tobytes() for row in file.get_tensor("texts")}
        except (SafetensorError, OSError, ValueError) as error:
            raise SchemaError(f"{path}: not readable ({error}); delete it") from None
        encoder = path.name.removeprefix(f"{of}_embeddings-").removesuffix(".safetensors")
        found[encoder] = (width, digests)
    return found


def text_digest(text: str) -> bytes:
    """Return the 16 bytes by which a text's embedding is kept."""
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _nothing(encoder: Encoder) -> NDArray[np.float32]:
    return np.empty((0, encoder.dimension), np.float32)


def _read(path: Path, encoder: Encoder) -> dict[bytes, NDArray[np.float32]]:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    if not path.is_file():
        return {}
    try:
        arrays = load_file(str(path))
        rows, digests, probe = arrays["embeddings"], arrays["texts"], arrays["probe"]
    except (SafetensorError, OSError, KeyError, TypeError) as error:
        raise SchemaError(f"{path}: not readable ({error}); delete it") from None
    expected = (len(digests), encoder.dimension)
    if rows.shape != expected or rows.dtype != np.float32 or not np.isfinite(rows).all():
        row = _first_not_finite(rows)
        raise SchemaError(
            f"{path}: embeddings are {rows.dtype} {rows.shape}{row}; expected finite float32 "
            f"{expected}; delete the file"
        )
    for name, array, dtype, shape in (
        ("texts", digests, np.uint8, (len(rows), 16)),
        ("probe", probe, np.float32, (len(PROBE_TEXTS), encoder.dimension)),
    ):
        if array.dtype != dtype or array.shape != shape:
            raise SchemaError(
                f"{path}: {name} is {array.dtype} {array.shape}; expected {np.dtype(dtype)} "
                f"{shape}; delete the file"
            )
    if (encoder.encode(PROBE_TEXTS) * probe).sum(axis=1).min() < _MIN_PROBE_COSINE:
        logger.warning("%s: made by an encoder that was built differently; embedding again", path)
        return {}
    return {digest.tobytes(): row for digest, row in zip(digests, rows, strict=True)}


def _first_not_finite(rows: NDArray[Any]) -> str:
    wrong = ~np.isfinite(rows.reshape(len(rows), -1)).all(axis=1)
    return f", row {int(np.argmax(wrong))} is not finite" if wrong.any() else ""


def _is_meant_to_change(folder: Path) -> bool:
    # Root may write anywhere; a folder without any write bit was still set to stay as it is.
    return folder.is_dir() and bool(folder.stat().st_mode & 0o222)


def write_embeddings(path: Path, known: Mapping[bytes, NDArray[Any]], encoder: Encoder) -> None:
    """Write embeddings by the digest of their text, replacing the file in one step.

    Raises:
        OSError: it cannot be written.
    """
    from safetensors.numpy import save

    arrays = {
        "embeddings": np.stack(list(known.values())),
        "texts": np.frombuffer(b"".join(known), np.uint8).reshape(-1, 16).copy(),
        "probe": encoder.encode(PROBE_TEXTS),
    }
    partial = None
    try:
        with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
            partial = Path(file.name)
            file.write(save(arrays))
        partial.chmod(0o644)
        partial.replace(path)
    except OSError:
        if partial is not None:
            partial.unlink(missing_ok=True)
        raise
