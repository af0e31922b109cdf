"""One request on its way through a batch, and its text token by token."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from waypost.contracts.errors import EngineError
from waypost.contracts.generation import Chunk, FinishReason, Usage
from waypost.engines.calls import StopFilter

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


Item = Chunk | EngineError
"""What a request's reader is given: chunks, or the error that ends it."""


SamplingT = TypeVar("SamplingT")
"""How an engine's batch is told to choose tokens."""


class LiveSequence(Generic[SamplingT]):
    """A prompt and the answer that grows behind it. Owned by the thread of its batch.

    Attributes:
        prompt: Its tokens.
        max_tokens: Most tokens of the answer.
        sampling: How its tokens are chosen.
        done: How many tokens of the prompt the model has seen.
        last: The newest token: what the model is given next.
        finished: True once its last item was put out.
        cancelled: Set by any thread; looked at before each token.
    """

    def __init__(
        self,
        prompt: Sequence[int],
        max_tokens: int,
        sampling: SamplingT,
        stop: Sequence[str],
        decode: Callable[[Sequence[int]], str],
        put: Callable[[Item], None],
    ) -> None:
        self.prompt = list(prompt)
        self.max_tokens = max_tokens
        self.sampling = sampling
        self.done = 0
        self.last = -1
        self.finished = False
        self.cancelled = False
        self._left = max_tokens
        self._made = 0
        self._text = Detokenizer(decode)
        self._stops = StopFilter(stop)
        self._put = put

    def accept(self, token: int, end_ids: frozenset[int]) -> None:
        """Take the next token of the answer; put out what it adds, and the end where it ends."""
        self.last = token
        self._made += 1
        self._left -= 1
        if token in end_ids:
            self._finish("stop")
            return
        self._show(self._stops.push(self._text.push(token)))
        if self._stops.stopped:
            self._finish("stop")
        elif self._left <= 0:
            self._finish("length")

    def cancel(self) -> None:
        """End the answer where it is."""
        self._last("cancelled")

    def end(self, reason: FinishReason) -> None:
        """End the answer for a reason that its tokens do not show."""
        self._finish(reason)

    def fail(self, error: EngineError) -> None:
        """End the answer with an error."""
        self.finished = True
        self._put(error)

    def _finish(self, reason: FinishReason) -> None:
        if not self._stops.stopped:
            self._show(self._stops.push(self._text.flush()))
            # the end of the text may complete a stop string
            reason = "stop" if self._stops.stopped else reason
            self._show(self._stops.flush())
        self._last(reason)

    def _show(self, text: str) -> None:
        if text:
            self._put(Chunk(text=text))

    def _last(self, reason: FinishReason) -> None:
        self.finished = True
        self._put(Chunk(finish_reason=reason, usage=Usage(len(self.prompt), self._made)))
