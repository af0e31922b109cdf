"""Talks as files: JSON with all that is known, and FastChat's vote lines."""

from __future__ import annotations

import json
from collections.abc import Iterable

from waypost.chat.talk import Answer, Talk
from waypost.contracts.feedback import VOTES

_TYPES = {preference: kind for kind, preference in VOTES.items()}


def as_json(talk: Talk) -> str:
    """Return a talk with its answers, decisions, dollars, ratings and votes.

    The names of a battle without a vote are in it: they are the user's own data.
    """
    told = {"title": talk.title, **talk.model_dump(exclude_none=True)}
    return json.dumps(told, ensure_ascii=False, indent=2)


def as_votes(talks: Iterable[Talk], user_id: str | None = None) -> str:
    """Return the votes of talks as JSON lines in FastChat's form.

    `waypost data import-votes` and FastChat's own tools read them.
    """
    lines = []
    for talk in talks:
        for index, turn in enumerate(talk.turns):
            if turn.vote is None:
                continue
            line = {
                "tstamp": round(talk.at, 4),
                "type": _TYPES[turn.vote],
                "models": [answer.model or answer.asked for answer in turn.answers],
                "states": [_state(talk, index, side) for side in range(len(turn.answers))],
                "user_id": user_id,
            }
            lines.append(json.dumps(line, ensure_ascii=False))
    return "".join(f"{line}\n" for line in lines)


def _state(talk: Talk, index: int, side: int) -> dict[str, object]:
    answer: Answer = talk.turns[index].answers[side]
    messages = []
    for turn in talk.turns[: index + 1]:
        messages.append(["user", turn.question])
        messages.append(["assistant", turn.answers[side].text])
    return {
        "template_name": answer.model or answer.asked,
        "system_message": "",
        "roles": ["user", "assistant"],
        "messages": messages,
        "offset": 0,
        "conv_id": answer.request_id or talk.id,
        "model_name": answer.model or answer.asked,
    }
