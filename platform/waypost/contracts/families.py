"""Families of LLMs: those of one maker and line, as their names tell."""

from __future__ import annotations

import re

_LINES = {"mixtral": "mistral", "mathstral": "mistral", "codestral": "mistral"}


def family_of(name: str) -> str:
    """Return the family of an LLM: ``codegemma-7b`` and ``google/gemma-2-9b-it`` are gemma."""
    short = name.lower().rpartition("/")[2]
    found = re.match(r"[a-z]+", short.removeprefix("code"))
    word = found[0] if found else short
    return _LINES.get(word, word)
