"""The metric ``preference``: how many choices of users a router foresees on held-out questions."""

from __future__ import annotations

from typing import Any

import numpy as np

from waypost.contracts.errors import SchemaError
from waypost.contracts.feedback import UserEvents
from waypost.contracts.records import Query, QueryBatch
from waypost.contracts.router import ScoreRouter, TrainableRouter
from waypost.contracts.routing_data import RoutingData
from waypost.contracts.types import Floats
from waypost.contracts.user_state import PersonalRouter, UserHistory, UserState
from waypost.learning.user_turns import KEPT


def foreseen(router: TrainableRouter, training: RoutingData, held_out: RoutingData) -> Floats:
    """Return the share of users' choices between two LLMs that a router foresees, (n_held_out,).

    The router knows each user by the events on training questions, the latest that serving keeps;
    a router that is not personal knows no user. A router that predicts the same score for both LLMs
    foresees half a choice. NaN where a question has no choice.

    Raises:
        SchemaError: The router predicts no scores, or the data has no events.
    """
    events = held_out.events
    if events is None or training.events is None or not isinstance(router, ScoreRouter):
        raise SchemaError("metric preference: needs feedback in the data and a router with scores")
    found = np.full(len(held_out), np.nan)
    place = {name: j for j, name in enumerate(router.model_names)}
    column = np.array([place.get(name, -1) for name in held_out.names])
    events = events.where((events.other >= 0) & (events.value != 0.5))
    events = events.where((column[events.llm] >= 0) & (column[events.other] >= 0))
    if not len(events):
        return found
    known: dict[int, UserState | None] = {
        int(user): _state(router, training, int(user)) for user in np.unique(events.user)
    }
    rows = held_out.embeddings
    quality = router.predict_quality(
        QueryBatch(
            tuple(Query(held_out.queries[i]) for i in events.query.tolist()),
            rows[events.query] if router.needs_embeddings and rows is not None else None,
            tuple(known[user] for user in events.user.tolist()),
        )
    )
    at = np.arange(len(events))
    gain = quality[at, column[events.llm]] - quality[at, column[events.other]]
    right = np.where(gain == 0, 0.5, (gain > 0) == (events.value > 0.5))
    counts = np.bincount(events.query, minlength=len(held_out))
    sums = np.bincount(events.query, right, minlength=len(held_out))
    np.divide(sums, counts, out=found, where=counts > 0)
    return found


def _state(router: Any, training: RoutingData, user: int) -> UserState | None:
    events, rows = training.events, training.embeddings
    if events is None or rows is None or not isinstance(router, PersonalRouter):
        return None
    mine: UserEvents = events.where(np.isin(np.arange(len(events)), _latest(events, user)))
    return router.user_state(
        UserHistory(
            np.asarray(rows[mine.query], np.float32),
            tuple(training.names[j] for j in mine.llm),
            tuple(None if j < 0 else training.names[j] for j in mine.other),
            mine.value,
        )
    )


def _latest(events: UserEvents, user: int) -> Any:
    return np.flatnonzero(events.user == user)[-KEPT:]
