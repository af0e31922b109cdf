"""What is known of a request while LLMs are asked in turn, and how it ends."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field

from waypost.contracts.generation import Answer
from waypost.serve.backends.failures import Failure, Piece
from waypost.serve.backends.hedging import Hedged


@dataclass(slots=True)
class Opened:
    """An answer that has begun.

    Attributes:
        model: The LLM that answers.
        attempts: Number of calls tried, this one included.
        pieces: The answer from its first token on; raises EngineError where it ends early.
        failed: LLMs that were called before and did not answer.
        empty: Whether the answer has no word, and neither had that of any other LLM.
    """

    model: str
    attempts: int
    pieces: AsyncGenerator[list[Piece], None]
    failed: frozenset[str] = frozenset()
    empty: bool = False


@dataclass(slots=True)
class Whole:
    """Whole answers, one for each request; see `Opened` for the other fields.

    Attributes:
        hedged: How the hedge ended, where there was one.
    """

    model: str
    attempts: int
    answers: list[Answer]
    failed: frozenset[str] = frozenset()
    empty: bool = False
    hedged: Hedged | None = None


@dataclass(slots=True)
class Walk:
    """The LLMs that may still be asked for one request, and what those asked before did."""

    turns: deque[str]
    deadline: float
    single: bool
    wait: bool
    failures: list[Failure] = field(default_factory=list)
    hedged: Hedged | None = None

    def others(self, model: str) -> tuple[str, ...]:
        """Return the LLMs that may be asked after this one."""
        return () if self.single else tuple(name for name in self.turns if name != model)
