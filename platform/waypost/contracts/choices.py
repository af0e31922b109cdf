"""Options of multiple-choice questions, as they stand in a column and in a prompt."""

from __future__ import annotations

import json
from string import ascii_uppercase


def with_choices(query: str, choices: str | None) -> str:
    """Return the question with its options appended, one per line ("A. ..."), where it lacks them.

    Args:
        query: The question.
        choices: JSON text as in the column ``choices``: ``{"text": [...], "label": [...]}`` (or
            ``labels``), a list of ``{"label", "text"}``, or a list of texts (labelled A, B,
            ...). Null, other JSON, and the tests of a program leave the question as it is.
    """
    options = options_of(choices)
    if len(options) < 2 or all(text in query for _, text in options):
        return query
    return "\n".join([query, *(f"{label}. {text}" for label, text in options)])


def options_of(choices: str | None) -> list[tuple[str, str]]:
    """Return label and text of the options in the column ``choices``; see `with_choices`."""
    try:
        data = json.loads(choices) if choices else None
    except ValueError:
        return []
    if isinstance(data, dict):
        texts, labels = data.get("text"), data.get("label", data.get("labels"))
    elif isinstance(data, list) and data and all(isinstance(item, dict) for item in data):
        texts, labels = [item.get("text") for item in data], [item.get("label") for item in data]
    else:
        texts, labels = data, list(ascii_uppercase)
    if not (isinstance(texts, list) and isinstance(labels, list)):
        return []
    pairs = [(str(label), text) for label, text in zip(labels, texts, strict=False)]
    if not all(isinstance(text, str) and not text.startswith("assert ") for _, text in pairs):
        return []
    return [(label, str(text)) for label, text in pairs]
