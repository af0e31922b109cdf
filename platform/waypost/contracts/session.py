"""The conversation that a query belongs to: what of it is routed on, and how it keeps its LLM."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, TypeAlias

from waypost.contracts.errors import SchemaError

STAY_BONUS = 0.02
"""Utility, in points of quality, by which another LLM must be ahead before a session moves."""

MOST_TURNS = 256
"""Most earlier turns of one query."""

RouteOn: TypeAlias = Literal["current_only", "full_context", "retrieval"]
"""The part of a chat that is routed on: the last user message, all turns, or the last user message
with the earlier ones that are most like it."""

MODES: tuple[RouteOn, ...] = ("current_only", "full_context", "retrieval")

TOP_K = 3
MOST_TOP_K = 32
"""Most earlier turns that retrieval adds: unless another number is asked for, and at all."""


@dataclass(frozen=True, slots=True)
class Turn:
    """An earlier turn.

    Attributes:
        text: The text that it was routed on.
        input_tokens: Its prompt tokens, those of the conversation before it included; None
            estimates them from the text.
        cached_tokens: Those of the conversation before it.
    """

    text: str
    input_tokens: int | None = None
    cached_tokens: int = 0

    @classmethod
    def of(cls, turn: Any) -> Turn:
        """Read a turn: a text, or a mapping with ``query`` and the other attributes by name.

        Raises:
            SchemaError: it is neither, or has another key.
        """
        if isinstance(turn, str):
            return cls(turn)
        if not isinstance(turn, Mapping) or not isinstance(turn.get("query"), str):
            raise SchemaError("session: earlier: expected texts, or mappings with one under query")
        _known(turn, ("query", "input_tokens", "cached_tokens"), "session: earlier")
        tokens = turn.get("input_tokens")
        tokens = None if tokens is None else _count(tokens, "input_tokens")
        return cls(turn["query"], tokens, _count(turn.get("cached_tokens", 0), "cached_tokens"))


@dataclass(frozen=True, slots=True)
class Session:
    """What a query's session knows.

    Attributes:
        earlier: The earlier turns that are decided again, oldest first.
        cached_tokens: Prompt tokens of the query that belong to the conversation before it. Where
            the LLM stays, they cost its ``cached_input_price``.
        stay_bonus: Utility, 0 to 1, by which another LLM must be ahead before the session moves.
        last_model: The LLM that answered before the first turn of `earlier` (before the query,
            where that is empty); None where nothing is known of it.
        note: What else to tell in the reason; may be empty.
    """

    earlier: tuple[Turn, ...] = ()
    cached_tokens: int = 0
    stay_bonus: float = STAY_BONUS
    last_model: str | None = None
    note: str = ""

    @classmethod
    def of(cls, session: Any) -> Session:
        """Read a session: a mapping with the attributes by name, all optional.

        Raises:
            SchemaError: it has another form.
        """
        if isinstance(session, Session):
            return session
        if not isinstance(session, Mapping):
            raise SchemaError("session: expected a mapping with earlier, stay_bonus, last_model")
        _known(session, tuple(field.name for field in fields(cls)), "session")
        earlier = session.get("earlier", ())
        if not isinstance(earlier, list | tuple) or len(earlier) > MOST_TURNS:
            raise SchemaError(f"session: earlier: expected a list of at most {MOST_TURNS} turns")
        bonus = session.get("stay_bonus", STAY_BONUS)
        if isinstance(bonus, bool) or not isinstance(bonus, int | float) or not 0 <= bonus <= 1:
            raise SchemaError("session: stay_bonus: expected a number from 0 to 1")
        last, note = session.get("last_model"), session.get("note", "")
        if not isinstance(last, str | None) or not isinstance(note, str):
            raise SchemaError("session: last_model and note: expected texts")
        return cls(
            tuple(Turn.of(turn) for turn in earlier),
            _count(session.get("cached_tokens", 0), "cached_tokens"),
            float(bonus),
            last,
            note,
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the mapping that `of` reads."""
        turns = [asdict(turn) for turn in self.earlier]
        earlier = [{"query": turn.pop("text"), **turn} for turn in turns]
        return {
            "earlier": earlier,
            "cached_tokens": self.cached_tokens,
            "stay_bonus": self.stay_bonus,
            "last_model": self.last_model,
            "note": self.note,
        }


def _known(data: Mapping[str, Any], names: tuple[str, ...], where: str) -> None:
    if strange := [key for key in data if key not in names]:
        raise SchemaError(f"{where}: {strange[0]}: unknown key; known: {', '.join(names)}")


def _count(value: Any, name: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise SchemaError(f"session: {name}: expected a whole number of at least 0")
    return value
