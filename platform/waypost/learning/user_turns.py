"""What users said of answers, in a file for each query encoder: the latest turns of each user.

The file is an SQLite database that several processes of one machine may use at a time. A user's
version, which every change raises, tells each of them whether what it made of the turns is stale.
"""

from __future__ import annotations

import hashlib
import sqlite3
import threading
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from waypost.contracts.errors import ConfigError, Fault, SchemaError, StorageError
from waypost.contracts.user_state import UserHistory

KEPT = 50
"""Turns that are kept of a user, the oldest dropped first."""

FORMAT = "waypost-user-states/3"

FORGOTTEN_S = 7 * 86_400.0
"""Seconds for which turns from before a user was forgotten are refused."""

_BUSY_S = 10.0
_TABLES = """
CREATE TABLE IF NOT EXISTS about (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS users (user_id TEXT PRIMARY KEY, version INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS turns (
    number INTEGER PRIMARY KEY AUTOINCREMENT, user_id TEXT NOT NULL, key TEXT NOT NULL,
    llm TEXT NOT NULL, other TEXT, value REAL NOT NULL, time REAL NOT NULL, embedding BLOB NOT NULL,
    UNIQUE (user_id, key)
);
CREATE INDEX IF NOT EXISTS users_version ON users (version);
CREATE TABLE IF NOT EXISTS forgotten (
    user BLOB PRIMARY KEY, time REAL NOT NULL, version INTEGER NOT NULL
) WITHOUT ROWID;
"""
# forgotten.user is a digest: who is forgotten leaves no name


@dataclass(frozen=True, eq=False)
class UserTurn:
    """One rating or preference.

    Attributes:
        key: The rated request, or the pair of requests. Of the turns of a user with one key the
            latest counts.
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


@dataclass(frozen=True, eq=False)
class Told:
    """A turn, with its user and the encoder of its question."""

    user_id: str
    encoder_id: str
    turn: UserTurn


class Changes(NamedTuple):
    """What changed in a file of turns.

    Attributes:
        version: The version of the file; no later change has this or a smaller one.
        users: Those with new turns.
        forgotten: `user_digest` of those who were forgotten.
    """

    version: int
    users: list[str]
    forgotten: list[bytes]


def turns_path(folder: Path, encoder_id: str) -> Path:
    """Return the file of the turns whose questions an encoder embedded."""
    return folder / f"users-{encoder_id}.sqlite"


class UserTurns:
    """The turns of all users; safe for threads and for processes of one machine.

    Args:
        path: The database; made where there is none. It may not lie on a network file system.
        encoder_id: Encoder of the embeddings; a database of another one is refused. None is that
            of the database, which exists.
        kept: See `KEPT`.

    Raises:
        ConfigError: The file cannot be opened, is no such database, or has another encoder.
    """

    def __init__(self, path: Path, encoder_id: str | None, *, kept: int = KEPT) -> None:
        self._path, self._kept = path, kept
        self._lock = threading.Lock()
        try:
            self._database = sqlite3.connect(
                path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False
            )
            # a deleted user's bytes are overwritten, not only unlinked
            for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "secure_delete=ON"):
                self._database.execute(f"PRAGMA {pragma}")
            self._database.executescript(_TABLES)
            self._check_about(encoder_id)
        except sqlite3.Error as error:
            raise self._fault(f"cannot be opened as a store of users: {error}") from None

    def _check_about(self, encoder_id: str | None) -> None:
        wanted = {"format": FORMAT} | ({} if encoder_id is None else {"encoder": encoder_id})
        with self._writing():
            for row in wanted.items():
                self._database.execute("INSERT OR IGNORE INTO about VALUES (?, ?)", row)
        found = dict(self._database.execute("SELECT key, value FROM about").fetchall())
        for key, value in wanted.items():
            if found[key] != value:
                self._database.close()
                raise self._fault(f"has {key} {found[key]}; expected {value}; use a new file")

    def _fault(self, problem: str) -> ConfigError:
        return ConfigError([Fault(str(self._path), problem)])

    @contextmanager
    def _naming(self) -> Iterator[None]:
        with self._lock:
            try:
                yield
            except sqlite3.Error as error:
                raise StorageError(f"{self._path}: cannot be read or written: {error}") from None

    @contextmanager
    def _writing(self) -> Iterator[None]:
        self._database.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._database.execute("ROLLBACK")
            raise
        self._database.execute("COMMIT")

    def add_all(self, turns: Sequence[tuple[str, UserTurn]]) -> None:
        """Store turns of users, in order, all or none.

        A turn that is older than another one of its user and key, or than the moment in which its
        user was forgotten, is left out. All is on disk when this returns, but for a crash of the
        machine in the next moment, which may lose the latest turns.

        Raises:
            SchemaError: A value is not from 0 to 1, or an embedding is of another width.
            StorageError: The file cannot be written.
        """
        now = time.time()
        rows = [_row(user, turn, now) for user, turn in turns]
        if not rows:
            return
        with self._naming(), self._writing():
            self._check_width({len(row["embedding"]) for row in rows})
            changed: dict[str, None] = {}
            for row in rows:
                if self._database.execute(_ADD, row).rowcount > 0:
                    changed[row["user_id"]] = None
            for user in changed:
                now_at = (user, self._next_version())
                self._database.execute("INSERT OR REPLACE INTO users VALUES (?, ?)", now_at)
                self._database.execute(_DROP_OLDEST, (user, user, self._kept))

    def _check_width(self, found: set[int]) -> None:
        first = str(min(found) // 4)
        self._database.execute("INSERT OR IGNORE INTO about VALUES ('width', ?)", (first,))
        row = self._database.execute("SELECT value FROM about WHERE key = 'width'").fetchone()
        if found != {int(row[0]) * 4}:
            raise SchemaError(f"{self._path}: embeddings have {row[0]} numbers; found others")

    def _next_version(self) -> int:
        # versions come from one counter, so that a user who is forgotten and comes back never has
        # a version that another process still remembers
        self._database.execute(
            "INSERT INTO about VALUES ('versions', '1') ON CONFLICT (key) DO UPDATE "
            "SET value = CAST(value AS INTEGER) + 1"
        )
        return self._version()

    def _version(self) -> int:
        found = self._database.execute("SELECT value FROM about WHERE key = 'versions'").fetchone()
        return 0 if found is None else int(found[0])

    def version(self, user_id: str) -> int | None:
        """Return a number that every change of a user's turns raises; None for an unknown user.

        Raises:
            StorageError: The file cannot be read.
        """
        with self._naming():
            row = self._database.execute(
                "SELECT version FROM users WHERE user_id = ?", (user_id,)
            ).fetchone()
        return None if row is None else int(row[0])

    def history(self, user_id: str) -> UserHistory:
        """Return a user's kept turns, oldest first; empty for an unknown user.

        Raises:
            StorageError: The file cannot be read.
        """
        with self._naming():
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

    def changes(self, since: int | None) -> Changes:
        """Return what changed after a version; None is now.

        Raises:
            StorageError: The file cannot be read.
        """
        with self._naming():
            version = self._version()
            after = (version if since is None else since,)
            users = self._database.execute("SELECT user_id FROM users WHERE version > ?", after)
            gone = self._database.execute("SELECT user FROM forgotten WHERE version > ?", after)
            return Changes(version, [row[0] for row in users], [row[0] for row in gone])

    def forget(self, user_id: str, about: Iterable[tuple[str, str]] = ()) -> int:
        """Delete all that is stored of a user; return the number of turns.

        Args:
            user_id: The user.
            about: User and key of turns of others, whose questions this user asked.

        Raises:
            StorageError: The file cannot be written.
        """
        now = time.time()
        with self._naming():
            with self._writing():
                found = self._database.execute("DELETE FROM turns WHERE user_id = ?", (user_id,))
                gone = found.rowcount + self._drop(about)
                self._database.execute("DELETE FROM users WHERE user_id = ?", (user_id,))
                self._database.execute("DELETE FROM forgotten WHERE time < ?", (now - FORGOTTEN_S,))
                row = (user_digest(user_id), now, self._next_version())
                self._database.execute("INSERT OR REPLACE INTO forgotten VALUES (?, ?, ?)", row)
            # the write-ahead log still has the deleted pages until it is written back and cut
            self._database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        return gone

    def _drop(self, turns: Iterable[tuple[str, str]]) -> int:
        gone = 0
        for user, key in turns:
            found = self._database.execute(
                "DELETE FROM turns WHERE user_id = ? AND key = ?", (user, key)
            )
            if found.rowcount > 0:
                gone += found.rowcount
                # the user stays, also without a turn: who has made a state is told of the change
                now_at = (user, self._next_version())
                self._database.execute("INSERT OR REPLACE INTO users VALUES (?, ?)", now_at)
        return gone

    def __len__(self) -> int:
        """Return the number of users with turns."""
        with self._naming():
            return int(self._database.execute("SELECT count(*) FROM users").fetchone()[0])

    def close(self) -> None:
        """Close the database."""
        with self._lock:
            self._database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


class TurnFolder:
    """The turns in a folder, a file for each encoder; used by one thread at a time.

    Args:
        folder: The folder, which exists.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._open: dict[str, UserTurns] = {}

    def add(self, told: Iterable[Told]) -> None:
        """Store turns, in order; those of one encoder all or none.

        Raises:
            ConfigError: A file is not what its name says.
            SchemaError, StorageError: See `UserTurns.add_all`.
        """
        by_encoder: dict[str, list[tuple[str, UserTurn]]] = {}
        for each in told:
            by_encoder.setdefault(each.encoder_id, []).append((each.user_id, each.turn))
        for encoder_id, turns in by_encoder.items():
            self.of(encoder_id).add_all(turns)

    def of(self, encoder_id: str) -> UserTurns:
        """Return the turns whose questions an encoder embedded; the file is opened once.

        Raises:
            ConfigError: See `UserTurns`.
        """
        if encoder_id not in self._open:
            path = turns_path(self._folder, encoder_id)
            self._open[encoder_id] = UserTurns(path, encoder_id)
        return self._open[encoder_id]

    def close(self) -> None:
        """Close the files."""
        while self._open:
            self._open.popitem()[1].close()


def forget_turns(folder: Path, user_id: str, about: Collection[tuple[str, str]] = ()) -> int:
    """Delete a user's turns from all files of a folder; return their number.

    Args:
        folder: The folder.
        user_id: The user.
        about: See `UserTurns.forget`.

    Raises:
        ConfigError, StorageError: A file cannot be read or written.
    """
    found = 0
    for path in sorted(folder.glob(turns_path(Path(), "*").name)):
        with UserTurns(path, None) as turns:
            found += turns.forget(user_id, about)
    return found


_ADD = """
INSERT OR REPLACE INTO turns (user_id, key, llm, other, value, time, embedding)
SELECT :user_id, :key, :llm, :other, :value, :time, :embedding
WHERE NOT EXISTS (SELECT 1 FROM turns WHERE user_id = :user_id AND key = :key AND time > :time)
AND NOT EXISTS (SELECT 1 FROM forgotten WHERE user = :digest AND time > :time)
"""

_DROP_OLDEST = """
DELETE FROM turns WHERE user_id = ? AND number <= (
    SELECT number FROM turns WHERE user_id = ? ORDER BY number DESC LIMIT 1 OFFSET ?
)
"""


def _row(user_id: str, turn: UserTurn, now: float) -> dict[str, Any]:
    if not 0 <= turn.value <= 1:
        raise SchemaError(f"user event {turn.key}: value is {turn.value}; expected 0 to 1")
    return {
        "user_id": user_id,
        "key": turn.key,
        "llm": turn.llm,
        "other": turn.other,
        "value": float(turn.value),
        "time": now if turn.time is None else turn.time,
        "embedding": np.ascontiguousarray(turn.embedding, "<f4").tobytes(),
        "digest": user_digest(user_id),
    }


def user_digest(user_id: str) -> bytes:
    """Return what the files have in place of the name of a forgotten user, (16,) bytes."""
    content = user_id.encode("utf-8", "surrogatepass")
    return hashlib.blake2b(content, digest_size=16).digest()
