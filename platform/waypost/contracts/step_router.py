"""Base classes of step routers, which see earlier answers and may ask for further calls."""

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
    """True where it asks only for answers to the query itself and for verdicts on them. It can then
    be evaluated on recorded data."""

    @abstractmethod
    def step(self, state: EpisodeState) -> Action:
        """Return the next action: delegate to LLMs, or answer. Pure except for seeded draws."""

    def fallback(self, state: EpisodeState) -> Action:
        """Return the action where a cap forbids further steps. Pure.

        The default ends the episode with the latest answer to a call of purpose `ANSWER`. Without
        such an answer it asks `last_resort`, whose answer ends the episode.
        """
        for results in reversed(state.steps):
            for result in results:
                if result.ok and result.call.purpose == ANSWER:
                    return FinalAnswer(result.text, result.call.model)
        return Delegate((Call(self.last_resort(state.query), state.query.text, final=True),))

    def last_resort(self, query: Query) -> str:
        """Return the LLM to ask where no call was answered; by default the router's own choice."""
        return self.route_single(query).model


class TrainableStepRouter(TrainableRouter, StepRouter):
    """A step router that learns from routing data."""

    def last_resort(self, query: Query) -> str:
        """Return the allowed LLM with the highest training mean."""
        known = self.model_names
        allowed = policy.allowed_mask([query], self.policy, known)[0]
        return known[int(np.argmax(np.where(allowed, self.mean_quality_, -np.inf)))]
