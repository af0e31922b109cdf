"""Bag of hashed words and character trigrams, without weights: for tests and as a baseline."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from waypost.encoders.texts import prepare, unit_rows

_WORDS = re.compile(r"\w+|[^\w\s]")


class HashingEncoder:
    """An encoder of word and trigram counts in signed hash buckets.

    A vector consists of signed square roots of the counts, scaled to unit length. Texts that share
    words are near each other, so routers can learn from it. A text has the same vector on every
    machine.

    Args:
        id: The encoder id.
        dimension: Number of buckets.
        max_tokens: Token limit; texts are cut to ten times as many characters.
    """

    def __init__(self, id: str, dimension: int, max_tokens: int) -> None:
        self.id = id
        self.dimension = dimension
        self.max_tokens = max_tokens

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Embed texts; see `waypost.contracts.encoder.Encoder`."""
        rows = np.zeros((len(texts), self.dimension), np.float32)
        for row, text in zip(rows, prepare(texts, self.max_tokens), strict=True):
            hashes = np.fromiter((zlib.crc32(gram) for gram in _grams(text.lower())), np.int64)
            signs = np.where(hashes & 1, np.float32(1), np.float32(-1))
            np.add.at(row, (hashes >> 1) % self.dimension, signs)
        return unit_rows(np.sign(rows) * np.sqrt(np.abs(rows)))


def _grams(text: str) -> Iterator[bytes]:
    for word in _WORDS.findall(text):
        yield word.encode()
        marked = f"<{word}>"
        for start in range(len(marked) - 2 if len(word) > 3 else 0):
            yield b"#" + marked[start : start + 3].encode()
