"""An episode in the policy's tokens: what it sampled, what the environment added, and the mask."""

from __future__ import annotations

from dataclasses import dataclass, replace

from waypost.contracts.questions import Question
from waypost_rl.protocol import Delegate
from waypost_rl.reward import Call
from waypost_rl.transcript import Author, Segment, Transcript


@dataclass(frozen=True, slots=True)
class TokenSegment:
    """Consecutive tokens of one author.

    Attributes:
        author: ``policy`` for sampled tokens, ``environment`` for encoded ones.
        ids: The tokens. Sampled ones are kept as they were; a text is never encoded again.
        text: Their text.
    """

    author: Author
    ids: tuple[int, ...]
    text: str


@dataclass(frozen=True, slots=True)
class TokenEpisode:
    """An episode, which grows turn by turn.

    Attributes:
        question: What is asked, with the accepted answers.
        prompt_ids: Tokens of the prompt.
        segments: What follows the prompt. Environment segments have mask 0.
        calls: The calls that were sent to a candidate, in order; a failed one has no output tokens.
        turns: Generations of the policy so far.
        pending: The search to send next; None if the policy writes next or the episode is over.
        done: Whether the episode is over.
        alpha: Weight of cost in its reward, in [0, 1).
        answered: Searches that got a reply, with it. One of them is not sent again.
        failed_calls: Calls without a reply.
    """

    question: Question
    prompt_ids: tuple[int, ...]
    segments: tuple[TokenSegment, ...] = ()
    calls: tuple[Call, ...] = ()
    turns: int = 0
    pending: Delegate | None = None
    done: bool = False
    alpha: float = 0.0
    answered: tuple[tuple[Delegate, str], ...] = ()
    failed_calls: int = 0

    def add(self, author: Author, ids: tuple[int, ...], text: str) -> TokenEpisode:
        """Return the episode with one more segment; one without tokens is left out."""
        if not ids:
            return self
        return replace(self, segments=(*self.segments, TokenSegment(author, ids, text)))

    @property
    def told_ids(self) -> tuple[int, ...]:
        """Tokens of the environment that follow the policy's last generation; () if none do."""
        last = self.segments[-1] if self.segments else None
        return last.ids if last is not None and last.author == "environment" else ()

    @property
    def response_ids(self) -> tuple[int, ...]:
        """All tokens after the prompt."""
        return tuple(token for segment in self.segments for token in segment.ids)

    @property
    def mask(self) -> tuple[int, ...]:
        """One number for each of `response_ids`: 1 if the policy sampled it, else 0."""
        return tuple(
            int(segment.author == "policy") for segment in self.segments for _ in segment.ids
        )

    @property
    def policy_tokens(self) -> int:
        """Number of sampled tokens."""
        return sum(self.mask)

    @property
    def transcript(self) -> Transcript:
        """The text after the prompt, by author."""
        return Transcript(tuple(Segment(one.author, one.text) for one in self.segments))
