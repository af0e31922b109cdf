"""What a request says, as plain text."""

from __future__ import annotations

import re
from typing import Any

from waypost.contracts.generation import GenerateRequest

_PIECE = re.compile(r"\s*\S{1,16}|\s+")
_FINE = 8_192
_BLOCK = 1_024


def content_text(content: Any) -> str:
    """Return the text of a message's content: a string, a list of parts, or nothing."""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        parts = (part.get("text") for part in content if isinstance(part, dict))
        return "".join(text for text in parts if isinstance(text, str))
    return ""


def prompt_text(request: GenerateRequest) -> str:
    """Return everything the request says, messages joined by newlines."""
    if request.messages is None:
        return request.prompt or ""
    return "\n".join(content_text(message.get("content")) for message in request.messages)


def last_user_text(request: GenerateRequest) -> str:
    """Return the last message of the user, or the prompt; empty where there is neither."""
    for message in reversed(request.messages or []):
        if message.get("role") == "user":
            return content_text(message.get("content"))
    return request.prompt or ""


def pieces(text: str) -> list[str]:
    """Cut a text into words with the space before them; joined they are the text.

    They stand for tokens where there is no tokenizer. A word of more than 16 characters is cut,
    so that text in a script without spaces has pieces too. What follows the first 8,192 characters
    is cut into blocks of 1,024: playing a million words of one prompt would hold up everybody.
    """
    found: list[str] = _PIECE.findall(text[:_FINE])
    found.extend(text[at : at + _BLOCK] for at in range(_FINE, len(text), _BLOCK))
    return found
