"""Routers that work in steps: what they are told, and what they may ask for."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

import numpy as np

from waypost.contracts import policy
from waypost.contracts.records import Query, RouterFamily, RouterKind
from waypost.contracts.router import MetaRouter, TrainableRouter
from waypost.contracts.steps import (
    ANSWER,
    Action,
    Call,
    CallResult,
    Delegate,
    EpisodeState,
    FinalAnswer,
    Vote,
    action_from_dict,
    action_to_dict,
)

__all__ = [
    "ANSWER",
    "Action",
    "Call",
    "CallResult",
    "Delegate",
    "EpisodeState",
    "FinalAnswer",
    "StepRouter",
    "TrainableStepRouter",
    "Vote",
    "action_from_dict",
    "action_to_dict",
]


class StepRouter(MetaRouter):
    """A router that works in steps. It decides; the episode loop calls the LLMs."""

    kind: ClassVar[RouterKind] = "step"
    router_family: ClassVar[RouterFamily] = "multi-round"

    replayable: ClassVar[bool] = False
    """True where it asks for answers to the query itself and for verdicts on them, and nothing
    else: recorded data then shows what it earns."""

    @abstractmethod
    def step(self, state: EpisodeState) -> Action:
        """Say what to do next: delegate to LLMs, or answer. Pure but for seeded draws."""

    def fallback(self, state: EpisodeState) -> Action:
        """Say what to do where a cap forbids further steps. Pure.

        The latest answer to a call of purpose `ANSWER` ends the episode; without one the query
        is put to `last_resort`, whose answer does.
        """
        for results in reversed(state.steps):
            for result in results:
                if result.ok and result.call.purpose == ANSWER:
                    return FinalAnswer(result.text, result.call.model)
        return Delegate((Call(self.last_resort(state.query), state.query.text, final=True),))

    def last_resort(self, query: Query) -> str:
        """Name the LLM to ask where nothing was answered; its first choice by default."""
        return self.route_single(query).model


class TrainableStepRouter(TrainableRouter, StepRouter):
    """A step router that learns from routing data."""

    def last_resort(self, query: Query) -> str:
        """Name the LLM of the highest training mean among those allowed."""
        known = self.model_names
        allowed = policy.allowed_mask([query], self.policy, known)[0]
        return known[int(np.argmax(np.where(allowed, self.mean_quality_, -np.inf)))]
