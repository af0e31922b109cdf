"""Where a generation ends: at the token that completes a stop string, or at an end token."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, Literal


class Stops:
    """Says of a growing generation whether its newest token ends it.

    Args:
        tokenizer: Of transformers, with a tokenizer of the tokenizers library inside.
        stop: Texts that end a generation. They are looked for in the text of all its tokens,
            special tokens included.
        end_ids: Tokens that end a generation.
    """

    def __init__(self, tokenizer: Any, stop: Sequence[str], end_ids: Collection[int]) -> None:
        self._text = tokenizer.backend_tokenizer
        self._stop = tuple(one for one in stop if one)
        self._last = {one[-1] for one in self._stop}
        self._end_ids = frozenset(end_ids)
        self._may_complete: dict[int, bool] = {}

    def reason(self, ids: Sequence[int]) -> Literal["stop", "end"] | None:
        """Return why a generation ends at its last token; None if it goes on.

        Args:
            ids: All its tokens, at least one. It did not end at an earlier one.
        """
        token = ids[-1]
        if token in self._end_ids:
            return "end"
        may = self._may_complete.get(token)
        if may is None:
            may = self._may_complete[token] = self._holds_an_end(token)
        if may:
            # the whole text, not a window: what a token adds depends on those before it
            text = self._decode(ids)
            if any(one in text for one in self._stop):
                return "stop"
        return None

    def _holds_an_end(self, token: int) -> bool:
        # a part of a character may be the rest of a stop string's last one
        text = self._decode([token])
        return any(letter in text for letter in (*self._last, "\ufffd"))

    def _decode(self, ids: Sequence[int]) -> str:
        text: str = self._text.decode(list(ids), skip_special_tokens=False)
        return text
