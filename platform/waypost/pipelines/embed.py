"""Query embeddings of a routing-data folder, computed once for each encoder.

They lie in ``query_embeddings-<encoder>.safetensors`` beside the routing tables
(`waypost.pipelines.embedding_file`), so that a text that stands in several splits, or was embedded
before, is embedded once; and so that vectors of an encoder that was rebuilt differently are never
mixed with new ones.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from waypost.contracts.encoder import Encoder
from waypost.contracts.errors import SchemaError
from waypost.pipelines.embedding_file import (
    DIGEST_BYTES,
    PART,
    Digests,
    Kept,
    first_rows,
    read_kept,
    write_kept,
)

logger = logging.getLogger(__name__)

Progress = Callable[[int, int], None]
_CHUNK = 256


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
    if folder is not None and _is_meant_to_change(folder):
        try:
            kept = keep_embeddings(texts, encoder, folder, progress)
        except OSError as error:  # a shared folder may be read-only: then nothing is kept
            path, why = embeddings_path(folder, encoder.id), error.strerror
            logger.info("%s: not written (%s); embeddings are computed each time", path, why)
        else:
            return kept.rows[kept.find(text_digests(texts))]
    digests = text_digests(texts)
    kept = _kept(folder, encoder)
    new = _new(digests, kept)
    parts = [np.empty((0, encoder.dimension), np.float32), *_encoded(texts, new, encoder, progress)]
    fresh = Kept(np.concatenate(parts), digests[new])
    old, here = kept.find(digests), fresh.find(digests)
    rows = np.empty((len(digests), encoder.dimension), np.float32)
    rows[old >= 0] = kept.rows[old[old >= 0]]
    rows[old < 0] = fresh.rows[here[old < 0]]
    return rows


def keep_embeddings(
    texts: Sequence[str], encoder: Encoder, folder: Path, progress: Progress | None = None
) -> Kept:
    """Have a folder keep the embeddings of all texts; a part of them is in memory at a time.

    Args:
        texts: Of the queries; read one by one.
        encoder: Query encoder.
        folder: Routing-data folder.
        progress: Told (done, total) new texts.

    Returns:
        What the folder keeps now, of other texts, too.

    Raises:
        SchemaError: the file kept there is not readable or of another width.
        OSError: it cannot be written.
    """
    digests = text_digests(texts)
    kept = _kept(folder, encoder)
    new = _new(digests, kept)
    if not len(new):
        return kept
    path = embeddings_path(folder, encoder.id)

    def parts() -> Iterator[NDArray[np.float32]]:
        for at in range(0, len(kept.rows), PART):
            yield kept.rows[at : at + PART]
        yield from _encoded(texts, new, encoder, progress)

    write_kept(path, np.concatenate([kept.texts, digests[new]]), parts(), encoder)
    return _kept(folder, encoder)


def _kept(folder: Path | None, encoder: Encoder) -> Kept:
    found = None if folder is None else read_kept(embeddings_path(folder, encoder.id), encoder)
    if found is not None:
        return found
    nothing = np.empty((0, encoder.dimension), np.float32)
    return Kept(nothing, np.empty((0, DIGEST_BYTES), np.uint8))


def _new(digests: Digests, kept: Kept) -> NDArray[np.int64]:
    """Return the rows of texts that are not kept, of equal ones the first."""
    first = first_rows(digests)
    return first[kept.find(digests[first]) < 0]


def _encoded(
    texts: Sequence[str], rows: NDArray[np.int64], encoder: Encoder, progress: Progress | None
) -> Iterator[NDArray[np.float32]]:
    for start in range(0, len(rows), _CHUNK):
        part = rows[start : start + _CHUNK].tolist()
        yield encoder.encode([texts[row] for row in part])
        if progress is not None:
            progress(start + len(part), len(rows))


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


def text_digests(texts: Sequence[str]) -> Digests:
    """Return the digest of each text, (n, 16)."""
    found = bytearray()
    for text in texts:
        found += text_digest(text)
    return np.frombuffer(found, np.uint8).reshape(-1, DIGEST_BYTES)


def _is_meant_to_change(folder: Path) -> bool:
    # Root may write anywhere; a folder without any write bit was still set to stay as it is.
    return folder.is_dir() and bool(folder.stat().st_mode & 0o222)
