"""Requests of a batch, and what a local engine and the thread that generates know of each other."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from typing import Any, Generic, Protocol, TypeVar

from waypost.contracts.errors import (
    EngineConnectionError,
    EngineError,
    EngineOverloadedError,
    EngineServerError,
)
from waypost.contracts.generation import Chunk, FinishReason, GenerateRequest, Usage
from waypost.engines.calls import StopFilter

_BROKEN = "\ufffd"

_PATIENCE = 16
"""Tokens held back at most while the text ends in a broken character. A character has at most
four bytes, so more than that is not a character to come but bytes that are none."""


class Detokenizer:
    """Turns tokens into the text that each of them adds; keeps back an incomplete character.

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
"""What a request's reader receives: chunks, or the error that ends it."""


SamplingT = TypeVar("SamplingT")
"""Sampling parameters, of a type that the batch understands."""


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


class TextModel(Protocol):
    """The part of `ModelText` that the event loop's side uses."""

    name: str
    context_length: int
    temperature: float
    top_p: float

    def tokens(self, request: GenerateRequest) -> list[int]:
        """See `ModelText.tokens`."""

    def text(self, ids: Any) -> str:
        """See `ModelText.text`."""


class Batch(Protocol):
    """Sequences that generate together in another thread; its methods may be called from any.

    Attributes:
        output_tokens: Tokens made since the start.
    """

    output_tokens: int

    @property
    def model(self) -> Any:
        """The `TextModel` that it generates with."""

    @property
    def alive(self) -> bool:
        """Whether it takes requests."""

    def __len__(self) -> int:
        """Return how many requests run or wait."""

    def submit(self, sequence: LiveSequence[Any]) -> None:
        """Let a request wait for its turn.

        Raises:
            EngineOverloadedError: where too many wait already.
            EngineServerError: after a crash.
            EngineConnectionError: after `stop`.
        """

    def cancel(self, sequence: LiveSequence[Any]) -> None:
        """Let a request end before its next token."""

    def stop(self) -> None:
        """End the thread; what runs or waits fails with an EngineConnectionError. Blocks."""


def stand_back(nice: int) -> None:
    """Lower the priority of this thread, and of the threads it starts.

    On Linux a priority belongs to the thread, and the threads and processes that it starts inherit
    it: the event loop of this process keeps its own. Elsewhere it would be the whole process's.
    """
    if sys.platform == "linux":
        os.nice(nice)


def full(name: str, count: int) -> EngineError:
    """Return the refusal of one request more."""
    return EngineOverloadedError(f"{name}: {count} requests run or wait, the most it takes")


def down(name: str, *, crashed: bool) -> EngineError:
    """Return the error of requests to an engine that has ended."""
    if crashed:
        return EngineServerError(f"{name}: generation crashed; restart the engine")
    return EngineConnectionError(f"{name}: the engine was closed")
