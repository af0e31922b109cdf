"""The states of users: made of their turns in a file, those of the users who ask kept in memory.

`UserStates.get` returns what `QueryBatch.users` carries: None for an unknown user.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Self

from waypost.contracts.user_state import UserHistory, UserState
from waypost.learning.user_turns import KEPT, UserTurn, UserTurns

HOT = 5_000
"""Users whose state is kept in memory, the least recently used dropped first."""


class UserStates:
    """The states of all users for one router; safe for threads and for processes of one machine.

    Args:
        path: See `UserTurns`.
        make: Makes a state of a history: `user_state` of a fitted personal router.
        encoder_id: See `UserTurns`.
        hot: See `HOT`.
        kept: See `UserTurns`.

    Raises:
        ConfigError: As `UserTurns`.
    """

    def __init__(
        self,
        path: str | Path,
        make: Callable[[UserHistory], UserState],
        encoder_id: str,
        *,
        hot: int = HOT,
        kept: int = KEPT,
    ) -> None:
        self._turns = UserTurns(Path(path), encoder_id, kept=kept)
        self._make, self._hot = make, hot
        self._lock = threading.Lock()
        self._states: OrderedDict[str, tuple[int, UserState]] = OrderedDict()

    def add(self, user_id: str, turn: UserTurn) -> UserState | None:
        """Store one turn of a user and return the user's new state; see `UserTurns.add_all`."""
        self.add_all([(user_id, turn)])
        return self.get(user_id)

    def add_all(self, turns: Sequence[tuple[str, UserTurn]]) -> None:
        """Store turns of users; see `UserTurns.add_all`."""
        self._turns.add_all(turns)

    def get(self, user_id: str) -> UserState | None:
        """Return a user's state, made anew where a turn came since; None for an unknown user.

        Raises:
            StorageError: The file cannot be read.
        """
        # before the turns are read: a turn that comes in between is then seen at the next look
        version = self._turns.version(user_id)
        with self._lock:
            if version is None:
                self._states.pop(user_id, None)
                return None
            known = self._states.get(user_id)
            if known is not None and known[0] == version:
                self._states.move_to_end(user_id)
                return known[1]
        history = self._turns.history(user_id)
        if not len(history):  # each turn was about the question of a user who is forgotten
            with self._lock:
                self._states.pop(user_id, None)
            return None
        state = self._make(history)
        with self._lock:
            self._states[user_id] = (version, state)
            self._states.move_to_end(user_id)
            while len(self._states) > self._hot:
                self._states.popitem(last=False)
        return state

    def history(self, user_id: str) -> UserHistory:
        """Return a user's kept turns, oldest first; see `UserTurns.history`."""
        return self._turns.history(user_id)

    def forget(self, user_id: str) -> bool:
        """Delete all that is stored of a user; return whether there was anything.

        Other processes drop the state at their next `get`.

        Raises:
            StorageError: The file cannot be written.
        """
        found = self._turns.forget(user_id) > 0
        with self._lock:
            self._states.pop(user_id, None)
        return found

    def __len__(self) -> int:
        """Return the number of users with turns."""
        return len(self._turns)

    @property
    def in_memory(self) -> int:
        """Number of users whose state is in memory."""
        return len(self._states)

    def close(self) -> None:
        """Close the file; the states in memory are gone."""
        self._turns.close()
        with self._lock:
            self._states.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
