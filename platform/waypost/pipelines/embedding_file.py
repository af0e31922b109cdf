"""The safetensors file that keeps embeddings by the digest of their text, in parts.

    embeddings  float32 (n_texts, d), unit rows
    texts       uint8 (n_texts, 16), digest of each text
    probe       float32 (n_probes, d), embeddings of the artifact's probe texts

A file is mapped and not loaded: pages that were looked at are the system's to drop again. It is
written by hand, because safetensors writes what is in memory as a whole.
"""

from __future__ import annotations

import json
import logging
import math
import struct
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from waypost.contracts.artifact import PROBE_TEXTS
from waypost.contracts.encoder import Encoder
from waypost.contracts.errors import SchemaError

logger = logging.getLogger(__name__)

Digests = NDArray[np.uint8]
"""Of (n, `DIGEST_BYTES`)."""

DIGEST_BYTES = 16
PART = 4096
"""Rows that are looked at together."""

_MIN_PROBE_COSINE = 0.9999


class Kept:
    """Embeddings and where each text's is.

    Args:
        rows: float32 (n_texts, d).
        texts: Their digests.
    """

    def __init__(self, rows: NDArray[np.float32], texts: Digests) -> None:
        self.rows, self.texts = rows, texts
        whole = _whole(texts)
        self._order = np.argsort(whole, kind="stable")
        self._sorted = whole[self._order]

    def find(self, texts: Digests) -> NDArray[np.int64]:
        """Return the row of each text, -1 where there is none."""
        wanted = _whole(texts)
        at = np.searchsorted(self._sorted, wanted)
        there = at < len(self._sorted)
        there[there] = self._sorted[at[there]] == wanted[there]
        found = np.full(len(wanted), -1, np.int64)
        found[there] = self._order[at[there]]
        return found


def first_rows(texts: Digests) -> NDArray[np.int64]:
    """Return the row of each distinct text's first place, in order."""
    return np.sort(np.unique(_whole(texts), return_index=True)[1])


def _whole(texts: Digests) -> NDArray[Any]:
    return np.ascontiguousarray(texts).view(f"V{DIGEST_BYTES}").ravel()


def read_kept(path: Path, encoder: Encoder) -> Kept | None:
    """Map a file; None where there is none, or its encoder was built differently.

    Raises:
        SchemaError: it is not readable, or not of that encoder's width.
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
    if (encoder.encode(PROBE_TEXTS) * probe).sum(axis=1).min() < _MIN_PROBE_COSINE:
        logger.warning("%s: made by an encoder that was built differently; embedding again", path)
        return None
    return Kept(rows, texts)


def _place(path: Path, name: str) -> tuple[str, tuple[int, ...], int]:
    """Return kind, shape and first byte of a tensor."""
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


def write_kept(
    path: Path, texts: Digests, parts: Iterable[NDArray[np.float32]], encoder: Encoder
) -> None:
    """Write embeddings, replacing the file in one step.

    Args:
        path: Of the file.
        texts: Digests, (n, `DIGEST_BYTES`).
        parts: The rows of their embeddings, one array after the other.
        encoder: Whose they are.

    Raises:
        OSError: it cannot be written.
    """
    partial = None
    try:
        with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
            partial = Path(file.name)
            _write(file, texts, parts, encoder)
        partial.chmod(0o644)
        partial.replace(path)
    except BaseException:
        if partial is not None:
            partial.unlink(missing_ok=True)
        raise


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
