"""The transcript of an episode: the author of each part, and the mask for training.

Environment text is in the policy's context but was not sampled by the policy. It has mask 0 in
the policy loss, the value loss, the KL term and the entropy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from waypost.contracts.errors import SchemaError

Author = Literal["policy", "environment"]


@dataclass(frozen=True, slots=True)
class Segment:
    """A run of text by one author."""

    author: Author
    text: str


@dataclass(frozen=True, slots=True)
class Transcript:
    """The text of an episode after the prompt, in order."""

    segments: tuple[Segment, ...] = ()

    def add(self, author: Author, text: str) -> Transcript:
        """Return the transcript with one more segment; an empty text adds no segment."""
        return Transcript((*self.segments, Segment(author, text))) if text else self

    @property
    def text(self) -> str:
        """All segments joined."""
        return "".join(segment.text for segment in self.segments)

    def spans(self, author: Author) -> tuple[tuple[int, int], ...]:
        """Return (start, end) in characters of `text` for each segment of that author."""
        spans, start = [], 0
        for segment in self.segments:
            end = start + len(segment.text)
            if segment.author == author:
                spans.append((start, end))
            start = end
        return tuple(spans)

    def token_mask(self, offsets: Sequence[tuple[int, int]]) -> list[int]:
        """Return the loss mask of the tokens of the joined `text`.

        Args:
            offsets: (start, end) of each token in characters of `text`, as a fast tokenizer
                returns them.

        Returns:
            One number per token: 1 if the policy wrote all of its characters, else 0. A token
            that spans two segments or has no characters gets 0: the policy did not sample it.
        """
        own = self.spans("policy")
        return [
            int(start < end and any(first <= start and end <= last for first, last in own))
            for start, end in offsets
        ]

    def segment_mask(self, lengths: Sequence[int]) -> list[int]:
        """Return the loss mask of tokens that were encoded segment by segment.

        Args:
            lengths: Number of tokens of each segment, in order.

        Raises:
            SchemaError: There is not one length >= 0 for each segment.
        """
        if len(lengths) != len(self.segments) or any(length < 0 for length in lengths):
            raise SchemaError(
                f"segment_mask: {len(lengths)} lengths for {len(self.segments)} segments; "
                "expected one length of 0 or more for each"
            )
        return [
            int(segment.author == "policy")
            for segment, length in zip(self.segments, lengths, strict=True)
            for _ in range(length)
        ]
