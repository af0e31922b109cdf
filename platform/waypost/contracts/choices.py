"""The text that is routed on: a question together with its options.

Routing data keeps the options of a multiple-choice question in a column of their own, while a
served prompt contains them. A router must be trained on what it will see.
"""

from __future__ import annotations

import json
from string import ascii_uppercase


def with_choices(query: str, choices: str | None) -> str:
    """Return the question followed by one line an option ("A. ..."), where it lacks them.

    Args:
        query: The question.
        choices: JSON text as in the column ``choices``: ``{"text": [...], "label": [...]}`` (or
            ``labels``), a list of ``{"label", "text"}``, or a list of texts (labelled A, B,
            ...). Null, other JSON, and the tests of a program leave the question as it is.
    """
    options = _options(choices)
    if len(options) < 2 or all(text in query for _, text in options):
        return query
    return "\n".join([query, *(f"{label}. {text}" for label, text in options)])


def _options(choices: str | None) -> list[tuple[str, str]]:
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
