"""Failures of LLMs: what they mean for a request, and what is no answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from waypost.contracts.errors import (
    ContentFilterError,
    ContextLengthError,
    EmptyAnswerError,
    EngineAuthError,
    EngineConnectionError,
    EngineDeadlineError,
    EngineError,
    EngineLoadingError,
    EngineOverloadedError,
    EngineRequestError,
    EngineServerError,
    EngineTimeoutError,
    WaypostError,
)
from waypost.contracts.generation import Chunk, GenerateRequest

Piece = tuple[int, Chunk]
"""Index of an answer, and a chunk of it."""

_REASONS: dict[type[EngineError], str] = {
    EmptyAnswerError: "empty",
    ContentFilterError: "filtered",
    EngineDeadlineError: "deadline",
    EngineTimeoutError: "timeout",
    EngineConnectionError: "connection",
    EngineOverloadedError: "overloaded",
    EngineLoadingError: "loading",
    EngineServerError: "server",
    ContextLengthError: "context",
    EngineAuthError: "auth",
    EngineRequestError: "request",
}


@dataclass(frozen=True, slots=True)
class Failure:
    """The failure of one LLM."""

    model: str
    error: EngineError

    @property
    def reason(self) -> str:
        """One word for the metrics."""
        kinds = (_REASONS[kind] for kind in type(self.error).__mro__ if kind in _REASONS)
        return next(kinds, "other")

    @property
    def told(self) -> str:
        """The name of the LLM and its error; the name once, also where the error begins with it."""
        text = str(self.error)
        return text if text.startswith(f"{self.model} ") else f"{self.model}: {text}"


class ExhaustedError(WaypostError):
    """No LLM of the ranking answered; `failures` holds the reasons, in the order of the calls."""

    def __init__(self, failures: Sequence[Failure]) -> None:
        self.failures = tuple(failures)
        # an LLM that was called twice may have failed twice for the same reason
        told = dict.fromkeys(failure.told for failure in failures)
        super().__init__(f"no model answered: {'; '.join(told)}")


class SaidNothingError(EmptyAnswerError):
    """The LLM ended without a word; `pieces` is what it sent, for where no other does better."""

    def __init__(self, pieces: list[Piece]) -> None:
        super().__init__("the answer is empty")
        self.pieces = pieces


class FilteredError(ContentFilterError):
    """A content filter ended the answer before its first word; `pieces` is what was sent."""

    def __init__(self, pieces: list[Piece]) -> None:
        super().__init__("a content filter took the answer away (finish_reason content_filter)")
        self.pieces = pieces


def other_model_may_answer(error: EngineError, content_filter: str = "next") -> bool:
    """Return whether to ask the next LLM of the ranking after this failure.

    False where the request itself is wrong. A key that one service refuses and a prompt that is too
    long for one LLM do not stop failover, nor does the content filter of one provider, unless
    `content_filter` is ``answer``.
    """
    if isinstance(error, ContentFilterError):
        return content_filter == "next"
    return error.retryable or isinstance(error, EngineAuthError | ContextLengthError)


def check_silence(
    held: list[Piece],
    ends: Mapping[int, Chunk],
    requests: Sequence[GenerateRequest],
    *,
    filtered_is_answer: bool,
) -> None:
    """Check that answers without a word are what was asked for.

    They are where one came to its limit of tokens or to a stop string, and where the last part of
    one is missing, which the reader of the answers finds.

    Args:
        held: All that was sent.
        ends: The last chunk of each answer that ended.
        requests: One for each answer.
        filtered_is_answer: Whether an answer that a content filter took away is one.

    Raises:
        SaidNothingError, FilteredError: they are no answers.
    """
    reasons = {chunk.finish_reason for chunk in ends.values()}
    if len(ends) < len(requests) or {"length", "cancelled"} & reasons:
        return
    for index, chunk in ends.items():
        if requests[index].stop and chunk.usage is not None and chunk.usage.output_tokens:
            return
    if "content_filter" not in reasons:
        raise SaidNothingError(held)
    if not filtered_is_answer:
        raise FilteredError(held)


def held_pieces(errors: Sequence[EngineError]) -> list[Piece] | None:
    """Return the first answer without a word, where no LLM gave or lacked anything else."""
    if not errors or not all(isinstance(each, SaidNothingError | FilteredError) for each in errors):
        return None
    first = errors[0]
    assert isinstance(first, SaidNothingError | FilteredError)  # as all of them
    return first.pieces
