"""Steps that all encoders share: cutting texts, unit vectors, batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

CHARS_PER_TOKEN = 10
"""Characters kept for each token allowed: words of twice the usual length still fit."""


def prepare(texts: Sequence[str], max_tokens: int) -> list[str]:
    """Cut texts before they are tokenised, and replace what is not valid Unicode.

    A tokenizer reads the whole of a text even where it keeps its first tokens only.
    """
    limit = max_tokens * CHARS_PER_TOKEN
    return [_valid(text[:limit]) for text in texts]


def _valid(text: str) -> str:
    # lone surrogates reach us through JSON escapes; no tokenizer takes them
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
