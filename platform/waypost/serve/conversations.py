"""Models of a Serve config that say what of a conversation is routed on, and what is kept of it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Discriminator, Field, Tag

from waypost.config import StrictModel
from waypost.contracts.session import MOST_TURNS, STAY_BONUS
from waypost.serve.limits import switch
from waypost.sessions.cleaning import KNOWN, Mark, marks_of


class Span(StrictModel):
    """Literal marks of a span that is left out of what is routed on.

    Attributes:
        start: Its first characters.
        end: Its last characters; where they do not follow, nothing is left out.
    """

    start: str = Field(min_length=1, max_length=200)
    end: str = Field(min_length=1, max_length=200)


def _known(name: str) -> str:
    if name not in KNOWN:
        raise ValueError(f"no marks are known by that name; known: {', '.join(KNOWN)}")
    return name


Known = Annotated[str, AfterValidator(_known)]
"""Name of a set of marks."""

_NAME, _SPAN = "[name]", "[span]"  # brackets: faults leave out such parts of a path


def _kind(value: Any) -> str:
    return _SPAN if isinstance(value, Span | dict) else _NAME


Marks = Annotated[Annotated[Known, Tag(_NAME)] | Annotated[Span, Tag(_SPAN)], Discriminator(_kind)]
"""Name of a set of marks, or marks: what is wrong is told of the one that was meant."""


class SessionArgs(StrictModel):
    """Sessions that keep their LLM.

    A request has a session where it has a session id or a session token, and its router decides
    once (no step router). The id is ``waypost.session_id`` or ``x-waypost-session-id``.

    Attributes:
        stay_bonus: Utility, in points of quality, by which another LLM must be ahead before a
            session moves to it.
        from_first_messages: Make the id of a chat without one from user, system messages and first
            user message.
        max_turns: Most turns of a chat, the last one included, that are decided to find the LLM of
            the turn before.
    """

    stay_bonus: float = Field(default=STAY_BONUS, ge=0, le=1)
    from_first_messages: bool = False
    max_turns: int = Field(default=32, ge=1, le=MOST_TURNS)


Sessions = Annotated[SessionArgs | None, switch(SessionArgs)]
"""``on``, ``off``, or the settings of `SessionArgs`."""


class ConversationArgs(StrictModel):
    """Keys of a Serve file about conversations.

    Attributes:
        route_on: The part of a chat that is routed on: the last user message, or all turns.
        route_clean: What is left out of it: names of sets of marks of known harnesses, or marks.
            LLMs get the text whole.
        sessions: Whether conversations keep their LLM: ``off``, ``on``, or the settings below.
    """

    route_on: Literal["current_only", "full_context"] = "current_only"
    route_clean: tuple[Marks, ...] = Field(default=(), max_length=64)
    sessions: Sessions = None

    @property
    def marks(self) -> tuple[Mark, ...]:
        """The marks of ``route_clean``."""
        found: list[Mark] = []
        for one in self.route_clean:
            found += [(one.start, one.end)] if isinstance(one, Span) else marks_of([one])
        return tuple(found)
