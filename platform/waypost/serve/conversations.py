"""Models of a Serve config that say what of a conversation is routed on, and what is kept of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, Discriminator, Field, Tag

from waypost.config import StrictModel
from waypost.contracts.artifact import Manifest
from waypost.contracts.errors import Fault
from waypost.contracts.session import MOST_TOP_K, MOST_TURNS, STAY_BONUS, TOP_K, RouteOn
from waypost.serve.limits import Positive, switch
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


def encoding_routers(manifests: Mapping[str, Manifest]) -> tuple[str, ...]:
    """Return the names of the routers that have a query encoder."""
    return tuple(name for name, manifest in manifests.items() if manifest.encoder is not None)


def retrieval_faults(
    route_on: RouteOn, manifests: Mapping[str, Manifest], where: str
) -> list[Fault]:
    """Return why every request to a router would be refused where it says nothing of retrieval."""
    if route_on != "retrieval":
        return []
    lacking = sorted({*manifests} - {*encoding_routers(manifests)})
    problem = "has no encoder, which compares the earlier turns"
    return [Fault(f"{where}: route_on", f"router {name} {problem}") for name in lacking]


class KeepTurnsArgs(StrictModel):
    """What each gateway replica keeps of users' turns, in its memory and nowhere else.

    A turn is kept once it was answered, where the request names its user (or its session), cut to
    2,000 characters. ``waypost data forget --user`` on ``feedback_dir`` or ``decision_log`` of this
    machine deletes a user's turns here, too, and so does ``DELETE /v1/turns``.

    Attributes:
        most_turns: Latest turns of each user.
        most_mb: Megabytes of all turns; beyond it the user who was silent longest is dropped.
        hours: Hours after which a turn is deleted.
    """

    most_turns: int = Field(default=64, ge=1, le=MOST_TURNS)
    most_mb: Positive = 32
    hours: float = Field(default=24.0, gt=0)


class RetrievalArgs(StrictModel):
    """What ``route_on: retrieval`` adds to the last user message.

    These are the earlier turns that are most like it, by the router's own encoder: turns of the
    request's own messages, and those that are kept of its user.

    Attributes:
        top_k: Most turns that are added; a request may ask for another number.
        keep_turns: Whether turns of earlier conversations are kept: ``off``, ``on``, or the
            settings below.
    """

    top_k: int = Field(default=TOP_K, ge=1, le=MOST_TOP_K)
    keep_turns: Annotated[KeepTurnsArgs | None, switch(KeepTurnsArgs)] = None


class ConversationArgs(StrictModel):
    """Keys of a Serve file about conversations.

    Attributes:
        route_on: The part of a chat that is routed on: the last user message, all turns, or the
            last user message with the earlier ones that are most like it. A request may ask for
            another.
        retrieval: Which earlier turns ``retrieval`` adds.
        route_clean: What is left out of it: names of sets of marks of known harnesses, or marks.
            LLMs get the text whole.
        sessions: Whether conversations keep their LLM: ``off``, ``on``, or the settings below.
    """

    route_on: RouteOn = "current_only"
    retrieval: RetrievalArgs = RetrievalArgs()
    route_clean: tuple[Marks, ...] = Field(default=(), max_length=64)
    sessions: Sessions = None

    @property
    def marks(self) -> tuple[Mark, ...]:
        """The marks of ``route_clean``."""
        found: list[Mark] = []
        for one in self.route_clean:
            found += [(one.start, one.end)] if isinstance(one, Span) else marks_of([one])
        return tuple(found)
