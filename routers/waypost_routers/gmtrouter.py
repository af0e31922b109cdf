"""Score LLMs for the user who asks, from a graph of the user's rated turns (GMTRouter)."""

from __future__ import annotations

from typing import Any

from waypost_routers._personal.model import Ops, Turns, Values, expected
from waypost_routers._personal.router import PersonalScoreRouter
from waypost_routers._personal.training import Shapes

ROUNDS = 6
"""Rounds of message passing."""


class GmtRouter(PersonalScoreRouter):
    """A graph network over users, sessions, questions, LLMs and what users said of answers.

    The method is GMTRouter (arXiv 2511.08590). A turn of a session joins a question, one or two
    LLMs, and the user's rating or preference. In each of six rounds every visible turn sends the
    user a message: the answer's vector (for a preference, the difference of both), times what the
    user said less what was expected of this user until then. Attention of the user's state to the
    turn weighs the message. The messages are summed over the sessions, shrunk by n / (n + n0), and
    added to the state through a matrix of the round. So a state is inferred, not trained: a new
    user, or a new event, changes no weight.

    In training, the events of a user are cut at random into visible ones and targets, and the
    targets are predicted from the visible ones: pairs by the logistic loss on the difference of
    the scores. A user without events has the zero state, and gets a score that is not personal.

    When to take it:
        When users rate or compare answers and differ in what they want, and the training data has
        feedback of at least some dozens of users. Without feedback it scores as linearrouter does.
    """

    name = "gmtrouter"
    router_family = "personal"

    def _shapes(self, width: int) -> Shapes:
        return {
            "key": ((width, width), width**-0.5),
            "ask": ((width, width), 0.1 * width**-0.5),
            "level": ((2,), 0.0),
            "turn": ((width, width), 0.0),
            "gate": ((1,), -0.4),
        }

    @staticmethod
    def _encoder(p: Values, turns: Turns, ops: Ops) -> Any:
        length = (turns.difference**2).sum(-1) * turns.there
        gate = 1 / (1 + p["gate"][0] ** 2 * length.sum(-1))[..., None]
        state = turns.difference.sum(-2) * 0.0
        keys = turns.difference @ p["key"]
        level = p["level"][0] + turns.rated * p["level"][1]
        for _ in range(ROUNDS):
            surprise = (turns.value - expected(p, state, turns, ops)) * turns.there
            asked = (state @ p["ask"])[..., None, :]
            weight = 2 * ops.sigmoid((keys * asked).sum(-1) + level) * surprise
            told = (weight[..., None] * turns.difference).sum(-2)
            state = state + gate * (told + told @ p["turn"] - state)
        return state
