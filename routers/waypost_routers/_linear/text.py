"""Text features besides the embedding: the words of a text and its surface form.

Signed counts of n-grams are hashed into a few hundred columns (Weinberger et al., 2009). Nothing is
learned or stored, and a text takes a fraction of a millisecond. Sentence encoders are trained to
ignore wording and layout. These often show which benchmark or template a question comes from, and
so which LLM answers it well.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from waypost.contracts.records import QueryBatch

DIMENSION = 512
_EDGE = 1500
"""Characters read at each end of a text."""

_TOKEN = re.compile(r"\w+|[^\w\s]")
_LOWER, _UPPER, _DIGITS = re.compile(r"[a-z]+"), re.compile(r"[A-Z]+"), re.compile(r"\d+")
_FORM_GRAMS = (2, 3, 4)


def word_features(texts: Sequence[str]) -> NDArray[np.float32]:
    """Hash words and pairs of words in lower case.

    Return float32 (n_texts, `DIMENSION`), rows of unit length, or zeros if a text has no word.
    A row depends only on its own text.
    """
    return _hashed(texts, _words)


def form_features(texts: Sequence[str]) -> NDArray[np.float32]:
    """Hash character n-grams of the text's form, with letters and digits masked.

    Runs of lower-case letters become ``a``, of capitals ``A``, of digits ``0``. Punctuation, line
    breaks, options, code and formulas remain. Return an array as `word_features` does.
    """
    return _hashed(texts, _form)


def text_features(
    batch: QueryBatch, kind: Callable[[Sequence[str]], NDArray[np.float32]]
) -> NDArray[np.float32]:
    """Return text features of the batch, computed by ``kind`` once per batch and cached."""
    return batch.once(kind, lambda: kind([query.text for query in batch.queries]))


def _edges(text: str) -> str:
    return text if len(text) <= 2 * _EDGE else f"{text[:_EDGE]}\n{text[-_EDGE:]}"


def _words(text: str) -> Iterable[str]:
    tokens = _TOKEN.findall(_edges(text).lower())
    yield from tokens
    yield from map(" ".join, pairwise(tokens))


def _form(text: str) -> Iterable[str]:
    form = _DIGITS.sub("0", _UPPER.sub("A", _LOWER.sub("a", _edges(text))))
    for size in _FORM_GRAMS:
        yield from map("".join, zip(*(form[i:] for i in range(size)), strict=False))


def _hashed(texts: Sequence[str], grams: Callable[[str], Iterable[str]]) -> NDArray[np.float32]:
    rows = np.zeros((len(texts), DIMENSION), np.float32)
    for row, text in zip(rows, texts, strict=True):
        found = Counter(grams(text))  # counted before hashing: few grams are distinct
        if not found:
            continue
        hashed = np.array(_crc32(found), np.int64)
        signs = 1.0 - 2.0 * ((hashed >> 20) & 1)
        weights = signs * np.log1p(np.fromiter(found.values(), np.float64, len(found)))
        row[:] = np.bincount(hashed % DIMENSION, weights, DIMENSION)
        length = math.sqrt(row @ row)
        if length > 0:
            row /= length
    return rows


def _crc32(grams: Iterable[str]) -> list[int]:
    try:
        return [crc32(gram.encode()) for gram in grams]  # twice as fast as with an error handler
    except UnicodeEncodeError:  # a lone surrogate
        return [crc32(gram.encode("utf-8", "surrogatepass")) for gram in grams]
