"""What an event says about the taste of its user, for personal routers."""

from __future__ import annotations

import sqlite3

import numpy as np

from waypost.contracts.feedback import PREFERENCE_VALUES
from waypost.learning.user_turns import Told, UserTurn

_COUNTS = (
    "SELECT request_id, other_request_id, rating, preference, source, user_id, time FROM events "
    "WHERE slot = ? ORDER BY time DESC, n DESC LIMIT 1"
)
_ABOUT = "SELECT model_name, encoder_id, embedding FROM rated WHERE request_id = ?"


def told_by(database: sqlite3.Connection, slot: bytes) -> Told | None:
    """Return what the event of a slot that counts says about its user's taste.

    The same event always says the same, under the same key, so it may be stored twice.

    Returns:
        None where it says nothing: a verdict (whether an LLM fits a question is no taste), an event
        that no user sent or of no known user, a preference between two answers of one LLM, or a
        request whose question was not embedded.
    """
    request_id, other_id, rating, preference, source, user_id, at = database.execute(
        _COUNTS, (slot,)
    ).fetchone()
    value = rating if preference is None else PREFERENCE_VALUES[preference]
    if value is None or source != "user" or user_id is None:
        return None
    llm, encoder_id, embedding = database.execute(_ABOUT, (request_id,)).fetchone()
    other = None
    if other_id is not None:
        other, *vector = database.execute(_ABOUT, (other_id,)).fetchone()
        if embedding is None:  # that request named its LLM, so no router read the question
            encoder_id, embedding = vector
    if embedding is None or llm == other:
        return None
    question = np.frombuffer(embedding, "<f4")
    return Told(user_id, encoder_id, UserTurn(slot.hex(), question, llm, value, other, at))
