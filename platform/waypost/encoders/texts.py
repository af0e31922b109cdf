"""Steps shared by all encoders: cutting texts, unit vectors, batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

CHARS_PER_TOKEN = 10
"""Characters kept per allowed token; enough for words of twice the usual length."""


def prepare(texts: Sequence[str], max_tokens: int) -> list[str]:
    """Return texts cut before tokenisation, with invalid Unicode replaced.

    Cutting saves time, because a tokenizer reads the whole text even if it truncates the tokens.
    """
    limit = max_tokens * CHARS_PER_TOKEN
    return [_valid(text[:limit]) for text in texts]


def _valid(text: str) -> str:
    # lone surrogates can come from JSON escapes; tokenizers reject them
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")


def unit_rows(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Scale rows to unit length, in float32; a row of zeros becomes the first unit vector."""
    values = np.asarray(values, np.float32)
    norms = np.sqrt(np.einsum("ij,ij->i", values, values))
    empty = ~(norms > 0)
    if empty.any():
        values = np.where(empty[:, None], np.eye(1, values.shape[1], dtype=np.float32), values)
        norms = np.where(empty, np.float32(1), norms)
    return np.asarray(values / norms[:, None], np.float32)


def batches_by_length(lengths: Sequence[int], size: int) -> Iterator[NDArray[np.intp]]:
    """Yield positions in batches of at most `size`, of similar length, longest first."""
    order = np.argsort(-np.asarray(lengths), kind="stable")
    for start in range(0, len(order), size):
        yield order[start : start + size]
