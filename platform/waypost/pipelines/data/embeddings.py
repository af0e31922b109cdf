"""Embeddings of texts, stored in a safetensors file by the digest of their text.

    embeddings  float32 (n_texts, d), unit rows
    texts       uint8 (n_texts, 16), digest of each text
    probe       float32 (n_probes, d), embeddings of the artifact's probe texts

Files are memory-mapped for reading. They are written part by part, because the safetensors library
writes from memory as a whole.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from waypost.contracts.artifact import PROBE_TEXTS
from waypost.contracts.atomic import replacing
from waypost.contracts.encoder import Encoder
from waypost.contracts.errors import SchemaError

logger = logging.getLogger(__name__)

Progress = Callable[[int, int], None]
"""Called with (done, total) texts."""

Digests = NDArray[np.uint8]
"""Shape (n, `DIGEST_BYTES`)."""

DIGEST_BYTES = 16
PART = 4096
"""Rows that are checked or copied together."""

_CHUNK = 256
MIN_PROBE_COSINE = 0.9999
"""Least cosine of two vectors of one text by builds of an encoder that count as the same."""


class EmbeddingTable:
    """Embeddings, indexed by the digest of their text.

    Args:
        rows: float32 (n_texts, d).
        texts: Digests of the texts.
    """

    def __init__(self, rows: NDArray[np.float32], texts: Digests) -> None:
        self.rows, self.texts = rows, texts
        whole = _whole(texts)
        self._order = np.argsort(whole, kind="stable")
        self._sorted = whole[self._order]

    def find(self, texts: Digests) -> NDArray[np.int64]:
        """Return the row number of each text; -1 if it is missing."""
        wanted = _whole(texts)
        at = np.searchsorted(self._sorted, wanted)
        there = at < len(self._sorted)
        there[there] = self._sorted[at[there]] == wanted[there]
        found = np.full(len(wanted), -1, np.int64)
        found[there] = self._order[at[there]]
        return found


def first_rows(texts: Digests) -> NDArray[np.int64]:
    """Return the first row of each distinct text, in order."""
    return np.sort(np.unique(_whole(texts), return_index=True)[1])


def _whole(texts: Digests) -> NDArray[Any]:
    return np.ascontiguousarray(texts).view(f"V{DIGEST_BYTES}").ravel()


def read_embeddings(path: Path, encoder: Encoder) -> EmbeddingTable | None:
    """Map a file; return None if it is missing or from a different build of the encoder.

    Raises:
        SchemaError: The file is not readable, or its width is not the encoder's.
    """
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        return None
    try:
        with safe_open(str(path), "numpy") as file:  # checks the header and the file's length
            for name in ("embeddings", "texts", "probe"):
                file.get_slice(name)
            texts, probe = file.get_tensor("texts"), file.get_tensor("probe")
        kind, shape, at = _place(path, "embeddings")
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise SchemaError(f"{path}: not readable ({error}); delete it") from None
    expected = (len(texts), encoder.dimension)
    rows = np.empty((0, encoder.dimension), np.float32)
    if kind == "F32" and shape == expected and len(texts):
        rows = np.memmap(path, np.float32, "r", at, shape).view(np.ndarray)
    wrong = "" if (kind, shape) == ("F32", expected) else f"embeddings are {kind} {shape}"
    wrong = wrong or _not_finite(rows)
    if wrong:
        problem = f"{wrong}; expected finite F32 {expected}; delete the file"
        raise SchemaError(f"{path}: {problem}")
    for name, array, dtype, fits in (
        ("texts", texts, np.uint8, (len(rows), DIGEST_BYTES)),
        ("probe", probe, np.float32, (len(PROBE_TEXTS), encoder.dimension)),
    ):
        if array.dtype != dtype or array.shape != fits:
            raise SchemaError(
                f"{path}: {name} is {array.dtype} {array.shape}; expected {np.dtype(dtype)} "
                f"{fits}; delete the file"
            )
    if (encoder.encode(PROBE_TEXTS) * probe).sum(axis=1).min() < MIN_PROBE_COSINE:
        logger.warning("%s: made by an encoder that was built differently; embedding again", path)
        return None
    return EmbeddingTable(rows, texts)


def _place(path: Path, name: str) -> tuple[str, tuple[int, ...], int]:
    """Return dtype, shape and byte offset of a tensor."""
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        told = json.loads(file.read(length))[name]
    return told["dtype"], tuple(told["shape"]), 8 + length + told["data_offsets"][0]


def _not_finite(rows: NDArray[np.float32]) -> str:
    for at in range(0, len(rows), PART):
        wrong = ~np.isfinite(rows[at : at + PART]).all(axis=1)
        if wrong.any():
            return f"embeddings, row {at + int(np.argmax(wrong))} is not finite"
    return ""


def write_embeddings(
    path: Path, texts: Digests, parts: Iterable[NDArray[np.float32]], encoder: Encoder
) -> None:
    """Write embeddings, replacing the file atomically.

    Args:
        path: Path of the file.
        texts: Digests, (n, `DIGEST_BYTES`).
        parts: Rows of the embeddings, in consecutive arrays.
        encoder: Encoder that computed them.

    Raises:
        OSError: The file cannot be written.
    """
    with replacing(path, unique=True) as partial, partial.open("wb") as file:
        _write(file, texts, parts, encoder)


def _write(
    file: IO[bytes], texts: Digests, parts: Iterable[NDArray[np.float32]], encoder: Encoder
) -> None:
    probe = np.ascontiguousarray(encoder.encode(PROBE_TEXTS), np.float32)
    header, at = {}, 0
    for name, kind, shape, size in (
        ("embeddings", "F32", (len(texts), encoder.dimension), 4),
        ("probe", "F32", probe.shape, 4),
        ("texts", "U8", texts.shape, 1),
    ):
        end = at + size * math.prod(shape)
        header[name] = {"dtype": kind, "shape": list(shape), "data_offsets": [at, end]}
        at = end
    head = json.dumps(header, separators=(",", ":")).encode()
    head += b" " * (-len(head) % 8)  # tensors begin at a multiple of eight
    file.write(struct.pack("<Q", len(head)) + head)
    for part in parts:
        file.write(np.ascontiguousarray(part, np.float32).tobytes())
    file.write(probe.tobytes())
    file.write(np.ascontiguousarray(texts).tobytes())


def embeddings_path(folder: Path, encoder_id: str) -> Path:
    """Return the path of a folder's query embeddings by one encoder."""
    return folder / f"query_embeddings-{encoder_id}.safetensors"


def keep_embeddings(
    texts: Sequence[str], encoder: Encoder, folder: Path, progress: Progress | None = None
) -> EmbeddingTable:
    """Store the embeddings of all texts in a folder, with only a part of them in memory.

    Args:
        texts: Texts of the queries; read one by one.
        encoder: Query encoder.
        folder: Routing-data folder.
        progress: Called with (done, total) new texts.

    Returns:
        All embeddings of the folder.

    Raises:
        SchemaError: The stored file is not readable or of another width.
        OSError: The file cannot be written.
    """
    digests = text_digests(texts)
    stored = stored_in(folder, encoder)
    new = new_rows(digests, stored)
    if not len(new):
        return stored
    path = embeddings_path(folder, encoder.id)

    def parts() -> Iterator[NDArray[np.float32]]:
        for at in range(0, len(stored.rows), PART):
            yield stored.rows[at : at + PART]
        yield from encoded(texts, new, encoder, progress)

    write_embeddings(path, np.concatenate([stored.texts, digests[new]]), parts(), encoder)
    return stored_in(folder, encoder)


def stored_in(folder: Path | None, encoder: Encoder) -> EmbeddingTable:
    """Return the embeddings that a folder holds; none for None. Raises as `read_embeddings`."""
    found = (
        None if folder is None else read_embeddings(embeddings_path(folder, encoder.id), encoder)
    )
    if found is not None:
        return found
    nothing = np.empty((0, encoder.dimension), np.float32)
    return EmbeddingTable(nothing, np.empty((0, DIGEST_BYTES), np.uint8))


def new_rows(digests: Digests, stored: EmbeddingTable) -> NDArray[np.int64]:
    """Return the rows of texts that are not stored; of equal texts the first."""
    first = first_rows(digests)
    return first[stored.find(digests[first]) < 0]


def encoded(
    texts: Sequence[str], rows: NDArray[np.int64], encoder: Encoder, progress: Progress | None
) -> Iterator[NDArray[np.float32]]:
    """Embed the texts of some rows, part by part."""
    for start in range(0, len(rows), _CHUNK):
        part = rows[start : start + _CHUNK].tolist()
        yield encoder.encode([texts[row] for row in part])
        if progress is not None:
            progress(start + len(part), len(rows))


def stored_embeddings(folder: Path, of: str) -> dict[str, tuple[int, set[bytes]]]:
    """Return the texts with stored embeddings, without reading the vectors.

    Args:
        folder: Routing-data folder.
        of: ``query`` or ``llm``.

    Returns:
        Encoder id -> width and digests of the texts (`text_digest`).

    Raises:
        SchemaError: A file is not readable.
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
    """Return the 16 bytes that identify a text."""
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def text_digests(texts: Sequence[str]) -> Digests:
    """Return the digest of each text, (n, 16)."""
    found = bytearray()
    for text in texts:
        found += text_digest(text)
    return np.frombuffer(found, np.uint8).reshape(-1, DIGEST_BYTES)
