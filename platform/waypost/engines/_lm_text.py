"""From tokens to text, a token at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence

_BROKEN = "\ufffd"

_PATIENCE = 16
"""Tokens held back at most while the text ends in a broken character. A character has at most
four bytes, so more than that is not a character to come but bytes that are none."""


class Detokenizer:
    """Gives the text that each new token adds; half a character waits for its other half.

    Decodes a short window, not the whole answer: the tokens already shown that the new ones
    are joined to (a tokenizer may drop or add a space at the beginning of what it decodes), and
    the new ones.

    Args:
        decode: Tokens to text, for instance `LanguageModel.text`.
    """

    def __init__(self, decode: Callable[[Sequence[int]], str]) -> None:
        self._decode = decode
        self._shown: list[int] = []
        self._new: list[int] = []

    def push(self, token: int) -> str:
        """Take the next token; return the text that can be shown now."""
        self._new.append(token)
        text = self._added()
        if text.endswith(_BROKEN) and len(self._new) < _PATIENCE:
            return ""
        if text:
            self._shown, self._new = self._new, []
        return text

    def flush(self) -> str:
        """Return the text held back, at the end of the answer."""
        text = self._added()
        self._shown, self._new = [], []
        return text

    def _added(self) -> str:
        before = self._decode(self._shown) if self._shown else ""
        return self._decode(self._shown + self._new)[len(before) :]
