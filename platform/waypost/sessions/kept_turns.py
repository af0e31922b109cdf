"""The latest turns of each user, in memory, for routing on those that are like a query."""

from __future__ import annotations

import time
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field

from waypost.sessions.retrieval import TURN_CHARACTERS

_OVERHEAD = 200
"""Bytes of a turn beside its text: the string's head, the tuple, the place in the deque."""

Key = tuple[str, str]
"""``user`` or ``session``, and its id."""


@dataclass(slots=True)
class _Turns:
    found: deque[tuple[float, str]] = field(default_factory=deque)
    size: int = 0


class KeptTurns:
    """The latest turns by user, oldest first; bounded for each user, in all, and in age.

    Where the bound of all is reached, the user who was silent longest is dropped.

    Args:
        most_turns: Most turns of a user.
        most_bytes: Most bytes of all turns.
        max_age_s: Seconds for which a turn is kept.
        forgotten: Returns the Unix seconds until which a user's turns are deleted; None where the
            user is not forgotten.
        now: The clock, Unix seconds.
    """

    def __init__(
        self,
        most_turns: int,
        most_bytes: int,
        max_age_s: float,
        forgotten: Callable[[str], float | None] = lambda user: None,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._most_turns, self._most_bytes, self._max_age_s = most_turns, most_bytes, max_age_s
        self._forgotten = forgotten
        self._now = now
        self._users: OrderedDict[Key, _Turns] = OrderedDict()
        self.size_bytes = 0

    def __len__(self) -> int:
        """Number of users."""
        return len(self._users)

    def add(self, key: Key, text: str) -> None:
        """Keep a turn."""
        text = text[:TURN_CHARACTERS]
        if not text.strip():
            return
        turns = self._users.setdefault(key, _Turns())
        self._users.move_to_end(key)
        turns.found.append((self._now(), text))
        self._resize(turns, _size(text))
        while len(turns.found) > self._most_turns:
            self._drop_first(turns)
        self._shrink()

    def of(self, key: Key) -> list[str]:
        """Return the turns of a user, oldest first."""
        self._expire(key)
        turns = self._users.get(key)
        return [] if turns is None else [text for _, text in turns.found]

    def forget(self, key: Key) -> int:
        """Delete the turns of a user; return how many there were."""
        turns = self._users.pop(key, None)
        if turns is None:
            return 0
        self.size_bytes -= turns.size
        return len(turns.found)

    def sweep(self) -> None:
        """Delete what is too old or belongs to a forgotten user, also of users who do not ask."""
        for key in tuple(self._users):
            self._expire(key)

    def _expire(self, key: Key) -> None:
        turns = self._users.get(key)
        if turns is None:
            return
        oldest = self._now() - self._max_age_s
        if key[0] == "user" and (until := self._forgotten(key[1])) is not None:
            oldest = max(oldest, until)
        while turns.found and turns.found[0][0] <= oldest:
            self._drop_first(turns)
        if not turns.found:
            del self._users[key]

    def _drop_first(self, turns: _Turns) -> None:
        _, text = turns.found.popleft()
        self._resize(turns, -_size(text))

    def _resize(self, turns: _Turns, by: int) -> None:
        turns.size += by
        self.size_bytes += by

    def _shrink(self) -> None:
        while self.size_bytes > self._most_bytes and self._users:
            self.forget(next(iter(self._users)))


def _size(text: str) -> int:
    return len(text.encode("utf-8", "surrogatepass")) + _OVERHEAD


def key_of(user_id: str | None, session_id: str | None) -> Key | None:
    """Return whose turns a request's are: the user's, else the session's; None where neither is."""
    if user_id is not None:
        return "user", user_id
    return None if session_id is None else ("session", session_id)
