"""Routers that work in steps: what they are told, and what they may ask for."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TypeAlias

from waypost.contracts.records import Query
from waypost.contracts.router import MetaRouter


@dataclass(frozen=True, slots=True)
class Call:
    """One LLM call that a step router asks for.

    Attributes:
        model: Name of the LLM.
        prompt: What it is asked, as one user message.
        max_tokens: Most tokens of the answer; None is the engine's default.
        temperature: 0 is greedy.
    """

    model: str
    prompt: str
    max_tokens: int | None = None
    temperature: float = 0.0


@dataclass(frozen=True, slots=True)
class CallResult:
    """What came of a call: the answer, or the error's message; dollars where known."""

    call: Call
    text: str | None
    error: str | None = None
    input_tokens: int = 0
    output_tokens: int = 0
    cost_usd: float | None = None


@dataclass(frozen=True, slots=True)
class Delegate:
    """Ask these LLMs, at the same time."""

    calls: tuple[Call, ...]


@dataclass(frozen=True, slots=True)
class FinalAnswer:
    """End the episode with this text."""

    text: str


Action: TypeAlias = "Delegate | FinalAnswer"


@dataclass(frozen=True)
class EpisodeState:
    """What a step router knows: the query and the results of every step so far."""

    query: Query
    steps: tuple[tuple[CallResult, ...], ...] = field(default=())

    def after(self, results: Sequence[CallResult]) -> EpisodeState:
        """Return the state with one more step."""
        return replace(self, steps=(*self.steps, tuple(results)))


class StepRouter(MetaRouter):
    """A router that works in steps. It decides; the episode loop calls the LLMs."""

    @abstractmethod
    def step(self, state: EpisodeState) -> Action:
        """Say what to do next: delegate to LLMs, or answer. Pure but for seeded draws."""
