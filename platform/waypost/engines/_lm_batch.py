"""What an engine of this process needs of the thing that generates, and how that refuses."""

from __future__ import annotations

import os
import sys
from typing import Any, Protocol

from waypost.contracts.errors import (
    EngineConnectionError,
    EngineError,
    EngineOverloadedError,
    EngineServerError,
)
from waypost.contracts.generation import GenerateRequest
from waypost.engines._lm_sequence import LiveSequence


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
    """Lower the priority of this thread, and of those it starts.

    On Linux a priority belongs to the thread, and the threads and processes that it starts inherit
    it: the event loop of this process keeps its own. Elsewhere it would be the whole process's.
    """
    if sys.platform == "linux":
        os.nice(nice)


def full(name: str, count: int) -> EngineError:
    """Return the refusal of one request more."""
    return EngineOverloadedError(f"{name}: {count} requests run or wait, the most it takes")


def down(name: str, *, crashed: bool) -> EngineError:
    """Return what requests of an engine that has ended are told."""
    if crashed:
        return EngineServerError(f"{name}: generation crashed; restart the engine")
    return EngineConnectionError(f"{name}: the engine was closed")
