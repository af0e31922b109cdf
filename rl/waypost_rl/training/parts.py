"""Interfaces of the parts of a training run: sampler, pool of candidates, learner.

The parts know nothing of each other. A further sampler, pool or training method implements one of
these interfaces.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from waypost.contracts.questions import Question


@dataclass(frozen=True, slots=True)
class Sampled:
    """One generation of the policy.

    Attributes:
        ids: Tokens as they were sampled, up to and with the one that ends the generation: the
            token that completes a stop string, or the end token.
        reason: ``stop`` for a stop string, ``end`` for an end token, ``length`` for the limit.
    """

    ids: tuple[int, ...]
    reason: Literal["stop", "end", "length"]


class Sampler(Protocol):
    """Samples from the policy for a batch of rows whose context grows turn by turn.

    It samples from the policy's own distribution (no top-k, no top-p, no minimum length).
    """

    def begin(self, rows: int, *, seed: int, temperature: float = 1.0) -> None:
        """Start a batch of empty rows; what an earlier batch kept is dropped.

        Args:
            rows: Number of rows.
            seed: The same seed, policy and turns give the same tokens.
            temperature: 0 takes the most likely token.
        """

    def turn(
        self, added: Mapping[int, Sequence[int]], max_tokens: Mapping[int, int]
    ) -> dict[int, Sampled]:
        """Append tokens to some rows and sample one generation for each of them.

        Args:
            added: Row -> tokens of the environment that follow the row's context: the prompt at
                first, at least one token; then what the environment adds, which is empty where it
                says nothing (a malformed action that is not corrected). What was sampled is part
                of the context already.
            max_tokens: Row -> maximum tokens of this generation, at least 1.

        Returns:
            Row -> its generation, for each row of ``added``.
        """

    def update(self) -> None:
        """Take over the policy's present weights. Called after every learning step."""

    def close(self) -> None:
        """Free what the sampler holds."""


@dataclass(frozen=True, slots=True)
class Ask:
    """A query to a candidate.

    Attributes:
        candidate: Name of the pool.
        query: Text the policy wrote.
        question: The question of the episode; a replayed pool looks up its recorded answer.
    """

    candidate: str
    query: str
    question: Question


@dataclass(frozen=True, slots=True)
class Reply:
    """The reply of a candidate.

    Attributes:
        text: The answer; None if the call failed or timed out.
        input_tokens: Tokens of the candidate's prompt; 0 if unknown.
        output_tokens: Tokens of its answer; 0 for a failed call.
        fault: Why the call failed; empty if it did not.
        cached: Whether the answer was recorded earlier and nothing was sent.
    """

    text: str | None
    input_tokens: int = 0
    output_tokens: int = 0
    fault: str = ""
    cached: bool = False


class DelegatePool(Protocol):
    """The LLMs that the policy may query."""

    async def ask(self, ask: Ask) -> Reply:
        """Return the reply of a candidate.

        A call that fails or takes longer than the pool's time-out returns a reply without text: it
        never raises for what a candidate did.
        """

    async def close(self) -> None:
        """Close connections and files."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One episode as a learner takes it.

    Attributes:
        prompt_ids: Tokens of the prompt, at least one.
        response_ids: All tokens after it, at least one.
        mask: One number for each response token: 1 if the policy sampled it, else 0; at least
            one is 1.
        score: The reward, placed on the last sampled token.
    """

    prompt_ids: tuple[int, ...]
    response_ids: tuple[int, ...]
    mask: tuple[int, ...]
    score: float


class Learner(Protocol):
    """A policy and the method that trains it.

    Attributes:
        policy: The model with a language-model head, which a sampler reads: a causal model of
            transformers, without a value head; adapters are inside it.
        tokenizer: Its tokenizer.
    """

    policy: Any
    tokenizer: Any

    def step(self, samples: Sequence[Sample]) -> dict[str, float]:
        """Take one learning step on a batch; return its statistics by name."""

    def save(self, folder: Path) -> None:
        """Write all that a run needs to continue: weights, optimizer, controllers."""

    def load(self, folder: Path) -> None:
        """Continue from what `save` wrote."""

    def save_policy(self, folder: Path) -> None:
        """Write the policy alone: a plain checkpoint that any engine loads, adapters merged."""
