"""The states of users: their latest events in a file, the states of those who ask in memory.

    states = UserStates(path, router.user_state, encoder.id)
    states.add("ann", UserTurn(key="request-1", embedding=vector, llm="small", value=0.8))
    state = states.get("ann")            # None for an unknown user; goes into QueryBatch.users
    states.forget("ann")

The file is an SQLite database that several processes of one machine may use at a time. A user's
version, which every change raises, tells each of them whether the state in its memory is stale.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from waypost.contracts.errors import ConfigError, Fault, SchemaError
from waypost.contracts.user_state import UserHistory, UserState

HOT = 5_000
"""Users whose state is kept in memory, the least recently used dropped first."""

KEPT = 50
"""Events that are kept of a user, the oldest dropped first."""

FORMAT = "waypost-user-states/1"

_BUSY_S = 10.0
_TABLES = """
CREATE TABLE IF NOT EXISTS about (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS users (user_id TEXT PRIMARY KEY, version INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS turns (
    number INTEGER PRIMARY KEY AUTOINCREMENT, user_id TEXT NOT NULL, key TEXT NOT NULL,
    llm TEXT NOT NULL, other TEXT, value REAL NOT NULL, time REAL NOT NULL, embedding BLOB NOT NULL,
    UNIQUE (user_id, key)
);
"""


@dataclass(frozen=True, eq=False)
class UserTurn:
    """One rating or preference.

    Attributes:
        key: The rated request, or the pair of requests. A later turn of a user with the same key
            replaces the earlier one.
        embedding: float32 (d,), the question.
        llm: The LLM that was rated, or stood left.
        value: 0 to 1: the rating, or how much the left answer was preferred.
        other: The LLM that stood right; None for a rating.
        time: Unix seconds; None is now.
    """

    key: str
    embedding: NDArray[np.float32]
    llm: str
    value: float
    other: str | None = None
    time: float | None = None


class UserStates:
    """The states of all users for one router; safe for threads and for processes of one machine.

    Args:
        path: The database; made where there is none. It may not lie on a network file system.
        make: Makes a state of a history: `user_state` of a fitted personal router.
        encoder_id: Encoder of the embeddings; a database of another one is refused.
        hot: See `HOT`.
        kept: See `KEPT`.

    Raises:
        ConfigError: The file cannot be opened, is no such database, or has another encoder.
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
        self._path, self._make, self._hot, self._kept = Path(path), make, hot, kept
        self._lock = threading.Lock()
        self._states: OrderedDict[str, tuple[int, UserState]] = OrderedDict()
        try:
            self._database = sqlite3.connect(
                self._path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False
            )
            # a deleted user's bytes are overwritten, not only unlinked
            for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "secure_delete=ON"):
                self._database.execute(f"PRAGMA {pragma}")
            self._database.executescript(_TABLES)
            self._check_about(encoder_id)
        except sqlite3.Error as error:
            raise self._fault(f"cannot be opened as a store of users: {error}") from None

    def _check_about(self, encoder_id: str) -> None:
        with self._writing():
            for key, value in (("format", FORMAT), ("encoder", encoder_id)):
                self._database.execute("INSERT OR IGNORE INTO about VALUES (?, ?)", (key, value))
        found = dict(self._database.execute("SELECT key, value FROM about").fetchall())
        for key, value in (("format", FORMAT), ("encoder", encoder_id)):
            if found[key] != value:
                self._database.close()
                raise self._fault(f"has {key} {found[key]}; expected {value}; use a new file")

    def _fault(self, problem: str) -> ConfigError:
        return ConfigError([Fault(str(self._path), problem)])

    @contextmanager
    def _writing(self) -> Iterator[None]:
        self._database.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._database.execute("ROLLBACK")
            raise
        self._database.execute("COMMIT")

    def add(self, user_id: str, turn: UserTurn) -> UserState:
        """Store one event of a user and return the user's new state.

        It is on disk when this returns, but for a crash of the machine in the next moment: then
        the latest events may be lost, which the store of feedback still has.

        Raises:
            SchemaError: The value is not from 0 to 1, or the embedding is of another width.
        """
        self.add_all([(user_id, turn)])
        state = self.get(user_id)
        assert state is not None  # it was stored; only `forget` from elsewhere could differ
        return state

    def add_all(self, turns: Sequence[tuple[str, UserTurn]]) -> None:
        """Store events of users, in order, all or none.

        Raises:
            SchemaError: As `add`.
        """
        rows = [
            (user, one.key, one.llm, one.other, _checked(one), one.time or time.time(), _blob(one))
            for user, one in turns
        ]
        with self._lock, self._writing():
            self._check_width(len(rows[0][-1]) if rows else None, {len(row[-1]) for row in rows})
            self._database.executemany(
                "INSERT OR REPLACE INTO turns (user_id, key, llm, other, value, time, embedding) "
                "VALUES (?, ?, ?, ?, ?, ?, ?)",
                rows,
            )
            for user in dict.fromkeys(row[0] for row in rows):
                self._changed(user)
                self._database.execute(
                    "DELETE FROM turns WHERE user_id = ? AND number <= (SELECT number FROM turns "
                    "WHERE user_id = ? ORDER BY number DESC LIMIT 1 OFFSET ?)",
                    (user, user, self._kept),
                )

    def _check_width(self, width: int | None, found: set[int]) -> None:
        if width is None:
            return
        self._database.execute(
            "INSERT OR IGNORE INTO about VALUES ('width', ?)", (str(width // 4),)
        )
        row = self._database.execute("SELECT value FROM about WHERE key = 'width'").fetchone()
        if found != {int(row[0]) * 4}:
            raise SchemaError(f"{self._path}: embeddings have {row[0]} numbers; found others")

    def _changed(self, user_id: str) -> None:
        # versions come from one counter, so that a user who is forgotten and comes back never has
        # a version that another process still remembers
        self._database.execute(
            "INSERT INTO about VALUES ('versions', '1') ON CONFLICT (key) DO UPDATE "
            "SET value = CAST(value AS INTEGER) + 1"
        )
        self._database.execute(
            "INSERT OR REPLACE INTO users SELECT ?, CAST(value AS INTEGER) FROM about "
            "WHERE key = 'versions'",
            (user_id,),
        )

    def get(self, user_id: str) -> UserState | None:
        """Return a user's state, made anew where an event came since; None for an unknown user."""
        with self._lock:
            row = self._database.execute(
                "SELECT version FROM users WHERE user_id = ?", (user_id,)
            ).fetchone()
            if row is None:
                self._states.pop(user_id, None)
                return None
            known = self._states.get(user_id)
            if known is None or known[0] != row[0]:
                known = (row[0], self._make(self._history(user_id)))
                self._states[user_id] = known
            self._states.move_to_end(user_id)
            while len(self._states) > self._hot:
                self._states.popitem(last=False)
            return known[1]

    def history(self, user_id: str) -> UserHistory:
        """Return a user's kept events, oldest first; empty for an unknown user."""
        with self._lock:
            return self._history(user_id)

    def _history(self, user_id: str) -> UserHistory:
        rows = self._database.execute(
            "SELECT llm, other, value, embedding FROM turns WHERE user_id = ? ORDER BY number",
            (user_id,),
        ).fetchall()
        vectors = [np.frombuffer(row[3], "<f4") for row in rows]
        return UserHistory(
            np.stack(vectors).astype(np.float32) if rows else np.empty((0, 0), np.float32),
            tuple(row[0] for row in rows),
            tuple(row[1] for row in rows),
            np.array([row[2] for row in rows], float),
        )

    def forget(self, user_id: str) -> bool:
        """Delete all that is stored of a user; return whether there was anything.

        Other processes drop the state at their next `get`.
        """
        with self._lock:
            with self._writing():
                self._database.execute("DELETE FROM turns WHERE user_id = ?", (user_id,))
                gone = self._database.execute("DELETE FROM users WHERE user_id = ?", (user_id,))
            self._states.pop(user_id, None)
            # the write-ahead log still has the deleted pages until it is written back and cut
            self._database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            return gone.rowcount > 0

    def __len__(self) -> int:
        """Return the number of users with events."""
        with self._lock:
            return int(self._database.execute("SELECT count(*) FROM users").fetchone()[0])

    @property
    def in_memory(self) -> int:
        """Number of users whose state is in memory."""
        return len(self._states)

    def close(self) -> None:
        """Close the database; the states in memory are gone."""
        with self._lock:
            self._database.close()
            self._states.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def _checked(turn: UserTurn) -> float:
    if not 0 <= turn.value <= 1:
        raise SchemaError(f"user event {turn.key}: value is {turn.value}; expected 0 to 1")
    return float(turn.value)


def _blob(turn: UserTurn) -> bytes:
    return np.ascontiguousarray(turn.embedding, "<f4").tobytes()
