"""Constraints of the parameters of router_r1."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Pairs:
    """A mapping from names to texts, or null.

    Attributes:
        text: What the texts are, for messages.
        empty: Whether a text may be empty.
    """

    text: str
    empty: bool = False

    def allows(self, value: Any) -> bool:
        """Return whether a value is one."""
        if value is None:
            return True
        pairs = value.items() if isinstance(value, Mapping) else [(None, None)]
        return bool(pairs) and all(
            isinstance(key, str)
            and bool(key.strip())
            and isinstance(text, str)
            and (self.empty or bool(text.strip()))
            for key, text in pairs
        )

    def __str__(self) -> str:
        return f"a mapping from the policy's name of an LLM to {self.text}, or null"


@dataclass(frozen=True)
class Texts:
    """A list of texts, or null.

    Attributes:
        length: Number of texts; None is any.
    """

    length: int | None = None

    def allows(self, value: Any) -> bool:
        """Return whether a value is one."""
        if value is None:
            return True
        listed = isinstance(value, list | tuple) and all(isinstance(one, str) for one in value)
        return listed and self.length in (None, len(value))

    def __str__(self) -> str:
        return f"a list of {self.length or 'some'} texts, or null"


@dataclass(frozen=True)
class Template:
    """A prompt with the question, or null."""

    def allows(self, value: Any) -> bool:
        """Return whether a value is one."""
        return value is None or (isinstance(value, str) and "{question}" in value)

    def __str__(self) -> str:
        return "a text that contains {question}, or null"
