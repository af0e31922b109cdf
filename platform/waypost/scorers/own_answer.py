"""Find what of a response is the answer: before a further question, inside a field of JSON."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

_FURTHER = re.compile(
    r"^[ \t]*(?:\*\*|#{1,6}[ \t]*)?(?:(?:next|new|another)[ \t]+)?"
    r"(?:question|problem|exercise|q|input|instruction|user|human)(?:[ \t]*\d{1,4})?"
    r"(?:\*\*)?[ \t]*:",
    re.IGNORECASE | re.MULTILINE,
)
"""A line on which a model that goes on by itself begins another question or the other's turn."""

_TURN = re.compile(r"<\|im_start\|>|<\|user\|>|<\|start_header_id\|>|<start_of_turn>|\[INST\]")
_STATED = re.compile(r"####[ \t]*\S|\\boxed\{|\banswer\b[ \t]*(?:is|=|:)", re.IGNORECASE)
_FEW_WORDS = 2
"""A last line of so few words is an answer, not an announcement of the question's repetition."""

_FIELDS = (
    "final_answer", "answer", "correct_answer", "final", "result", "solution", "output", "value",
    "choice", "option", "letter", "response",
)  # fmt: skip
"""Names of a field that holds an answer, in the order in which they are looked for."""

_MOST_OBJECTS = 32


def own_answer(response: str) -> str:
    """Return a response up to where the model begins another question.

    Models without a stop string go on with a next question and answer it as well. A question that
    is repeated before anything was answered stays: its answer follows.
    """
    if turn := _TURN.search(response):
        before = response[: turn.start()]
        response = before if before.strip() else response
    for match in _FURTHER.finditer(response):
        before = response[: match.start()]
        if _answers(before):
            return before
    return response


def _answers(text: str) -> bool:
    lines = text.strip().splitlines()
    if not lines:
        return False
    last = lines[-1].strip()
    few = len(last.split()) <= _FEW_WORDS and not last.endswith(":")
    return few or _STATED.search(text) is not None


def answer_field(response: str) -> str | None:
    """Return the answer in a JSON object of a response, as text; None if there is none.

    Of several objects the last one with such a field counts, of several fields the first name of
    the list. Numbers are returned as they were written.
    """
    found = None
    for value in _objects(response):
        named = {str(key).strip().casefold().replace(" ", "_"): of for key, of in value.items()}
        for name in _FIELDS:
            if isinstance(named.get(name), str | bool):
                found = str(named[name])
                break
    return found


def _objects(text: str) -> Iterator[dict[str, Any]]:
    """Yield the outermost JSON objects of a text, numbers as strings."""
    decoder = json.JSONDecoder(parse_float=str, parse_int=str)
    at = text.find("{")
    for _ in range(_MOST_OBJECTS):
        if at < 0:
            return
        try:
            value, end = decoder.raw_decode(text, at)
        except (ValueError, RecursionError):
            end = at + 1
        else:
            if isinstance(value, dict):
                yield value
        at = text.find("{", end)
