"""What is no answer: an answer in which nothing is said, or that a content filter took away."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence

from waypost.contracts.errors import (
    ContentFilterError,
    EmptyAnswerError,
    EngineError,
    EngineServerError,
)
from waypost.contracts.generation import Chunk, GenerateRequest
from waypost.serve.backends.asking import Piece


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


async def first_said(
    source: AsyncGenerator[list[Piece], None],
    requests: Sequence[GenerateRequest],
    *,
    filtered_is_answer: bool,
) -> list[Piece]:
    """Return the pieces up to the first that says something.

    An answer without a word counts where it is what was asked for: it came to its limit of tokens,
    or to a stop string.

    Raises:
        SaidNothingError, FilteredError: all answers ended, and none of them counts.
        EngineError: as the source does.
    """
    held: list[Piece] = []
    ends: dict[int, Chunk] = {}
    async for pieces in source:
        held.extend(pieces)
        if any(chunk.says_something for _, chunk in pieces):
            return held
        ends |= {index: chunk for index, chunk in pieces if chunk.finish_reason is not None}
        if len(ends) == len(requests):
            break
    if not held:
        raise EngineServerError("the engine ended without an answer")
    if len(ends) < len(requests):
        return held  # who reads on sees that the last part is missing
    reasons = {chunk.finish_reason for chunk in ends.values()}
    if {"length", "cancelled"} & reasons or any(
        requests[index].stop and chunk.usage is not None and chunk.usage.output_tokens
        for index, chunk in ends.items()
    ):
        return held
    if "content_filter" in reasons:
        if filtered_is_answer:
            return held
        raise FilteredError(held)
    raise SaidNothingError(held)


def held_pieces(errors: Sequence[EngineError]) -> list[Piece] | None:
    """Return the first answer without a word, where no LLM gave or lacked anything else."""
    if not errors or not all(isinstance(each, SaidNothingError | FilteredError) for each in errors):
        return None
    first = errors[0]
    assert isinstance(first, SaidNothingError | FilteredError)  # as all of them
    return first.pieces
