"""Features of a text's form, without weights, which sentence encoders do not capture.

The length of a question, its choices, and code or LaTeX in it help to predict which LLM can answer
it. Each feature has a fixed scale into [-1, 1] that is not fitted to any data set. A change of a
feature must increase ``spec.STRUCTURE_VERSION``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from waypost.contracts.encoder import Encoder
from waypost.encoders.texts import unit_rows

_LIMIT = 4000
"""Number of characters read at the start and at the end of a long text; the middle is skipped."""

_CHOICE = re.compile(r"(?:^|[\s(])\(?([A-J])[).:](?=\s)")
_CODE = re.compile(
    r"```|\bdef \w+\(|\bclass \w+|\breturn\b|\bimport \w+|#include|\w\(\w*\)|[{};]\s*$|==|=>|->",
    re.M,
)
_LATEX = re.compile(r"\\[a-zA-Z]+|\$[^$\n]+\$|[\^_]\{")
# ++ is possessive: backtracking over thousands of digits in a row would take quadratic time
_MATHS = re.compile(r"\d\s*[-+*/=^<>%\u00d7\u00f7]\s*\d|\d++(?:\.\d++)?%|[=≤≥√∑∫]")
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
_ASKS = re.compile(r"\b(?:who|whom|whose|what|which|when|where|why|how)\b", re.I)
_ORDERS = re.compile(
    r"\b(?:write|implement|compute|calculate|solve|find|explain|translate|summari[sz]e|list|"
    r"generate|create|prove|complete|describe|compare|classify|rewrite|fix|simplify|evaluate)\b",
    re.I,
)
_BLANK = re.compile(r"_{2,}|\.{3}|…|\[MASK\]")


def _log(value: float, top: float) -> float:
    """Map 0 to -1 and `top` or more to 1, on a logarithmic scale."""
    return 2.0 * min(math.log1p(value) / math.log1p(top), 1.0) - 1.0


def _share(part: float, whole: float, top: float) -> float:
    """Map a share of 0 to -1 and a share of `top` or more to 1."""
    return 2.0 * min(part / max(whole, 1) / top, 1.0) - 1.0


def _choices(text: str) -> int:
    """Return the number of choices: distinct marks A, B, ... without a gap; 0 for fewer than 2."""
    marks = set(_CHOICE.findall(text))
    count = 0
    while chr(ord("A") + count) in marks:
        count += 1
    return count if count > 1 else 0


def _describe(whole: str) -> list[float]:
    long = len(whole) > 2 * _LIMIT
    text = whole[:_LIMIT] + "\n" + whole[-_LIMIT:] if long else whole
    size, words, choices = len(text), text.split(), _choices(text)
    numbers = _NUMBER.findall(text)
    ascii_only = text.isascii()
    letters = size if ascii_only else sum(map(str.isalpha, text))
    foreign = 0 if ascii_only else sum(c > "\u024f" and c.isalpha() for c in text)
    wide = 0 if ascii_only else sum("\u3040" <= c <= "\u9fff" or "가" <= c <= "힣" for c in text)
    return [
        _log(len(whole), 10_000),
        _log(len(words), 1_000),
        _share(size, len(words), 12),
        1.0 if choices else -1.0,
        _share(choices, 1, 10),
        _share(sum(map(len, numbers)), size, 0.25),
        _log(len(numbers), 50),
        _log(text.count("\n"), 50),
        _log(len(_CODE.findall(text)), 10),
        _log(len(_LATEX.findall(text)), 10),
        _log(len(_MATHS.findall(text)), 10),
        _share(text.count("?"), 1, 2),
        _share(len(_ASKS.findall(text)), 1, 2),
        _share(len(_ORDERS.findall(text)), 1, 2),
        1.0 if _BLANK.search(text) else -1.0,
        _share(sum(map(str.isupper, text)), size, 0.25),
        _share(foreign, letters, 1),
        _share(wide, letters, 1),
    ]


DIMENSION = len(_describe(""))


def form_of(texts: Sequence[str]) -> NDArray[np.float32]:
    """Return the features of texts, float32 of shape (n_texts, DIMENSION), each in [-1, 1].

    Columns: characters, words, characters per word, choices offered (yes or no),
    number of choices, share of digits, numbers, line breaks, marks of code, of LaTeX, of
    arithmetic, question marks, question words, command verbs, a blank to fill, share of capitals,
    share of non-Latin letters, share of East Asian characters.
    """
    return np.array([_describe(text) for text in texts], np.float32).reshape(-1, DIMENSION)


def structure_features(texts: Sequence[str]) -> NDArray[np.float32]:
    """Return the features of `form_of`, rows scaled to unit length."""
    return unit_rows(form_of(texts))


class StructuredEncoder:
    """An encoder that concatenates the vectors of a base encoder and the structure features.

    The cosine of two vectors is ``(1 - weight)`` times that of the base encoder plus ``weight``
    times that of the structure features.

    Args:
        id: The encoder id.
        base: The encoder of the text's content.
        weight: Share of the structure features, in (0, 1).
    """

    def __init__(self, id: str, base: Encoder, weight: float) -> None:
        self.id = id
        self.base = base
        self.weight = weight

    @property
    def dimension(self) -> int:
        """Dimension of the base vector and the features together."""
        return self.base.dimension + DIMENSION

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Embed texts; see `waypost.contracts.encoder.Encoder`."""
        form = structure_features(texts)
        return join(self.base.encode(texts), form, self.weight)


def join(
    content: NDArray[np.float32], form: NDArray[np.float32], weight: float
) -> NDArray[np.float32]:
    """Concatenate unit rows of shapes (n, a) and (n, b) to unit rows of shape (n, a + b)."""
    parts = [content * np.float32((1 - weight) ** 0.5), form * np.float32(weight**0.5)]
    return np.concatenate(parts, axis=1)
