"""Read a chat: what it is routed on, what its earlier turns were routed on, and its session.

A turn is a user message that was answered, or waits for an answer. Of several in a row it is the
last. Calls of tools and their results belong to the turn that led to them.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from waypost.contracts.cost import DEFAULT_TOKENS_PER_CHARACTER
from waypost.contracts.session import Session, Turn
from waypost.sessions.cleaning import Mark, clean
from waypost.sessions.token import Token

ROUTED_END = 65_536
"""Characters kept at each end of a text for routing, where it is longer than twice as much."""

Said = tuple[str, str]
"""Role and text of a message."""


@dataclass(frozen=True, slots=True)
class Conversation:
    """A chat as it is routed.

    Attributes:
        now: The turn that waits for an answer.
        earlier: Answered turns, oldest first. The turn that waits is the last of them, too, where
            its answer goes on after calls of tools.
        goes_on: Whether it is.
    """

    now: Turn
    earlier: tuple[Turn, ...] = ()
    goes_on: bool = False


def tokens_of(characters: int) -> int:
    """Return the estimated tokens of a prompt of so many characters."""
    return math.ceil(characters * DEFAULT_TOKENS_PER_CHARACTER)


def cut(turn: Turn) -> Turn:
    """Cut the middle out of a very long text: encoders do not read it, and sending it is slow.

    The predicted cost counts the whole text.
    """
    text = turn.text
    if len(text) <= 2 * ROUTED_END:
        return turn
    tokens = tokens_of(len(text)) if turn.input_tokens is None else turn.input_tokens
    return replace(turn, text=f"{text[:ROUTED_END]}\n{text[-ROUTED_END:]}", input_tokens=tokens)


def last_turn(said: Sequence[Said], *, whole: bool, marks: Sequence[Mark] = ()) -> Turn:
    """Return the turn of a chat that waits for an answer.

    Args:
        said: The messages, at least one.
        whole: Whether all turns are routed on, and not only the last user message.
        marks: See `clean`. A user message that is empty without their spans is no turn.
    """
    if len(said) == 1 and not marks:
        return cut(Turn(said[0][1]))
    return cut(_Reader(said, whole, marks).turn(len(said)))


def read_conversation(
    said: Sequence[Said], *, whole: bool, marks: Sequence[Mark] = (), most: int
) -> Conversation:
    """Return the last turns of a chat; see `last_turn`.

    Args:
        said: The messages, at least one.
        whole: See `last_turn`.
        marks: See `last_turn`.
        most: Most turns that are read, the last one included.
    """
    reader = _Reader(said, whole, marks)
    ends: list[tuple[int, int]] = []  # of turns: messages when it was asked, and in a cache by then
    asked, answered = False, 0
    for index, (role, text) in enumerate(said):
        if role == "assistant":
            if asked:
                ends.append((index, answered))
                asked = False
            answered = index + 1
        elif role == "user" and reader.is_turn(text):
            asked = True
    earlier = [cut(reader.turn(*end)) for end in ends[max(0, len(ends) - most + 1) :]]
    skipped = len(ends) - len(earlier)
    goes_on = not asked and bool(ends)
    now = cut(reader.turn(len(said), answered))
    return Conversation(now, (*[_SKIPPED] * skipped, *earlier), goes_on)


_SKIPPED = Turn("")
"""Stands for a turn that is not read."""


class _Reader:
    def __init__(self, said: Sequence[Said], whole: bool, marks: Sequence[Mark]) -> None:
        self._said = said
        self._whole = whole
        self._marks = marks
        self._cleaned: dict[str, str] = {}  # each turn is made of the texts before it again
        self._lengths = [0]
        for _, text in said:
            so_far = self._lengths[-1]
            self._lengths.append(so_far + len(text) + (so_far > 0) if text else so_far)

    def is_turn(self, text: str) -> bool:
        return not (self._marks and text) or bool(self._clean(text))

    def _clean(self, text: str) -> str:
        if not self._marks:
            return text
        found = self._cleaned.get(text)
        if found is None:
            found = self._cleaned[text] = clean(text, self._marks)
        return found

    def turn(self, end: int, cached: int = 0) -> Turn:
        """Return the turn that waited when the chat had ``end`` messages."""
        text, length = self._text(self._said[:end]), self._lengths[end]
        # routers estimate the tokens of what they see
        tokens = None if len(text) == length else tokens_of(length)
        return Turn(text, tokens, tokens_of(self._lengths[cached]))

    def _text(self, said: Sequence[Said]) -> str:
        if self._whole:
            found = "\n".join(text for _, each in said if (text := self._clean(each)))
            return found or "\n".join(text for _, text in said if text)
        last = None
        for role, text in reversed(said):
            if role == "user":
                if self.is_turn(text):
                    return self._clean(text)
                last = text if last is None else last
        return said[-1][1] if last is None else last


@dataclass(frozen=True, slots=True)
class Place:
    """Where a request stands in its session: number of its turn, from 1, and what routers get."""

    turn: int
    session: Session


def place_of(
    talk: Conversation, bonus: float, token: Token | None = None, note: str = "", *, most: int
) -> Place:
    """Return the place of a chat in its session.

    Without a token the earlier turns are folded. A token of the last answered turn replaces them;
    one of an earlier turn replaces the turns until then.

    Args:
        talk: As `read_conversation` returns it.
        bonus: See `Session.stay_bonus`.
        token: What the client returned.
        note: See `Session.note`.
        most: As `read_conversation` got it.
    """
    answered = len(talk.earlier)
    first = max(0, answered - most + 1)
    last = None
    if token is not None and token.turn < first:
        told = f"the session token is of turn {token.turn}, and {most} turns are looked at"
        note = f"{note}; {told}" if note else told
    elif token is not None:
        first, last = min(token.turn, answered), token.model
        answered = max(token.turn, answered)
    session = Session(talk.earlier[first:], talk.now.cached_tokens, bonus, last, note)
    return Place(answered + (0 if talk.goes_on and answered else 1), session)


def derived_id(said: Sequence[Said], user_id: str | None, marks: Sequence[Mark] = ()) -> str:
    """Return an id from the user, the system messages and the first user message of a chat."""
    first = next((text for role, text in said if role == "user" and clean(text, marks)), "")
    system = [text for role, text in said if role in {"system", "developer"}]
    digest = hashlib.blake2b(digest_size=12)
    for part in (user_id or "", *system, "", clean(first, marks)):
        data = part.encode("utf-8", "surrogatepass")
        digest.update(len(data).to_bytes(8, "big") + data)
    return f"first-{digest.hexdigest()}"
