"""The writer of a feedback folder: records of requests and events, each transaction all or none.

What users say then goes into their turns, of which personal routers make the users' states.
"""

from __future__ import annotations

import hashlib
import sqlite3
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from waypost.contracts.errors import ConfigError, StorageError
from waypost.contracts.feedback import FeedbackEvent
from waypost.feedback.database import (
    ANSWERED,
    DATABASE,
    EVENT,
    VECTOR,
    naming,
    open_database,
)
from waypost.feedback.outcome import plain, query_digest
from waypost.feedback.taste import told_by
from waypost.learning.user_turns import Told, TurnFolder

_PRUNED_AT_ONCE = 500
_OF_REQUEST = (*ANSWERED, *VECTOR)
_COLUMNS = ", ".join(_OF_REQUEST)
_MARKS = ", ".join("?" * len(_OF_REQUEST))
_REMEMBER = f"INSERT OR IGNORE INTO recent ({_COLUMNS}) VALUES ({_MARKS})"
_SAID = (*EVENT, "body", "slot", "replaced")
_TAKE = f"INSERT INTO events ({', '.join(_SAID)}) VALUES ({', '.join('?' * len(_SAID))})"
_FACTS = "SELECT at, model_name, user_id, predicted_quality FROM {} WHERE request_id = ?"

_USER, _AT = ANSWERED.index("user_id"), ANSWERED.index("at")

Row = Sequence[Any]
"""An answered request: columns `ANSWERED` and `VECTOR`."""

Status = Literal["kept", "unknown", "too_old", "conflict"]


class Retention(NamedTuple):
    """What can be rated.

    Attributes:
        most: Number of latest answered requests.
        max_age_s: Seconds after which an answered request can no longer be rated.
    """

    most: int
    max_age_s: float


@dataclass(frozen=True, slots=True)
class Taken:
    """What became of one event.

    Attributes:
        status: ``kept``: it is on disk, now or since it was first sent. ``unknown``: no such
            request. ``too_old``: its request was answered too long ago. ``conflict``: its
            idempotency key came with another event.
        request_id: The request that was found, or not.
        model: The LLM that answered it.
        replaced: Whether it replaces an earlier event of the same user.
        predicted_quality: Score in [0, 1] that the router predicted for that LLM; None where it
            predicted none, or the event came before.
    """

    status: Status
    request_id: str
    model: str | None = None
    replaced: bool = False
    predicted_quality: float | None = None


class Ledger:
    """The database of a folder, opened for writing; one thread at a time uses it.

    Args:
        folder: The folder, on a disk of this machine.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._database: sqlite3.Connection | None = None
        self._turns = TurnFolder(folder)

    def open(self) -> sqlite3.Connection:
        """Open the database where it is not open.

        Raises:
            StorageError: it cannot be made or read.
        """
        if self._database is None:
            self._database = open_database(self._folder)
        return self._database

    def close(self) -> None:
        """Close the database."""
        self._turns.close()
        if self._database is not None:
            self._database.close()
            self._database = None

    def write(
        self, rows: Sequence[Row], batches: Sequence[Sequence[FeedbackEvent]], kept: Retention
    ) -> list[list[Taken]]:
        """Write records of requests, then events, in one transaction; see `FeedbackStore.add`.

        A record that is there already stays as it is.

        Returns:
            What became of each event of each batch. What is ``kept`` outlives the machine's power.

        Raises:
            StorageError: the database cannot be written; nothing is kept.
        """
        with naming(self._folder / DATABASE):
            db = self.open()
            # an answered request may be lost with the machine, an acknowledged event may not
            db.execute(f"PRAGMA synchronous={'FULL' if batches else 'NORMAL'}")
            db.execute("BEGIN IMMEDIATE")
            try:
                now = time.time()
                if rows:
                    db.executemany(_REMEMBER, _without_forgotten(db, rows))
                    _prune(db, now, kept)
                slots: dict[bytes, None] = {}
                found = [
                    [_take(db, event, now, kept.max_age_s, slots) for event in batch]
                    for batch in batches
                ]
                told = [told_by(db, slot) for slot in slots]
            except BaseException:
                db.execute("ROLLBACK")
                raise
            db.execute("COMMIT")
        self._tell([each for each in told if each is not None])
        return found

    def _tell(self, told: Sequence[Told]) -> None:
        """Store turns of users. If this fails, the events are sent again, and say the same."""
        try:
            self._turns.add(told)
        except ConfigError as error:
            raise StorageError(str(error)) from None


def _without_forgotten(db: sqlite3.Connection, rows: Sequence[Row]) -> Sequence[Row]:
    """Leave out requests from before their user was forgotten: they waited in a gateway."""
    forgotten: dict[str, float] = dict(db.execute("SELECT user, time FROM forgotten"))
    if not forgotten:
        return rows
    return [row for row in rows if not _is_forgotten(row, forgotten)]


def _is_forgotten(row: Row, forgotten: Mapping[str, float]) -> bool:
    user, at = row[_USER], row[_AT]
    return user is not None and at <= forgotten.get(query_digest(user), 0.0)


def _take(
    db: sqlite3.Connection,
    event: FeedbackEvent,
    now: float,
    max_age_s: float,
    slots: dict[bytes, None],
) -> Taken:
    """Take an event; put the slot of one that is kept into ``slots``."""
    body = digest(event)
    if event.idempotency_key is not None:
        earlier = db.execute(
            "SELECT body, request_id, replaced, slot FROM events WHERE idempotency_key = ?",
            (event.idempotency_key,),
        ).fetchone()
        if earlier is not None:
            if earlier[0] != body:
                return Taken("conflict", event.request_id)
            slots[earlier[3]] = None
            return Taken("kept", earlier[1], _model(db, earlier[1]), bool(earlier[2]))
    about = [event.request_id, *([event.other_request_id] if event.other_request_id else [])]
    facts = []
    for request_id in about:
        row = db.execute(_FACTS.format("rated"), (request_id,)).fetchone()
        row = row or db.execute(_FACTS.format("recent"), (request_id,)).fetchone()
        if row is None:
            return Taken("unknown", request_id)
        if now - row[0] > max_age_s:
            return Taken("too_old", request_id)
        facts.append(row)
    for request_id in about:
        db.execute(
            f"INSERT OR IGNORE INTO rated ({_COLUMNS}) "
            f"SELECT {_COLUMNS} FROM recent WHERE request_id = ?",
            (request_id,),
        )
    user = plain(event.user_id) or facts[0][2]
    slot = _digest(event.kind, *sorted(about), user or "", event.source)
    same = db.execute("SELECT 1 FROM events WHERE slot = ? LIMIT 1", (slot,)).fetchone()
    # a clock that is ahead must not win over all that is said later
    at = now if event.time is None else min(event.time, now)
    given = [getattr(event, name) for name in EVENT[:-4]]
    last = (user, plain(event.reason), event.idempotency_key, at, body, slot, same is not None)
    db.execute(_TAKE, (*given, *last))
    slots[slot] = None
    return Taken("kept", event.request_id, facts[0][1], same is not None, facts[0][3])


def _prune(db: sqlite3.Connection, now: float, kept: Retention) -> None:
    """Delete the oldest of the answered requests.

    They stay for twice the age in which they can be rated, so that the reason can be told.
    """
    db.execute("DELETE FROM recent WHERE n <= (SELECT max(n) FROM recent) - ?", (kept.most,))
    oldest = db.execute(
        "SELECT n, at FROM recent ORDER BY n LIMIT ?", (_PRUNED_AT_ONCE,)
    ).fetchall()
    old = [(n,) for n, at in oldest if now - at > 2 * kept.max_age_s]
    if old:
        db.executemany("DELETE FROM recent WHERE n = ?", old)


def digest(event: FeedbackEvent) -> bytes:
    """Return the digest of what an event says, without its key."""
    said = event.model_dump_json(exclude={"idempotency_key"}, exclude_none=True)
    return _digest(said)


def _digest(*parts: str) -> bytes:
    content = "\x1f".join(parts).encode("utf-8", "surrogatepass")
    return hashlib.blake2b(content, digest_size=16).digest()


def _model(db: sqlite3.Connection, request_id: str) -> str | None:
    row = db.execute(_FACTS.format("rated"), (request_id,)).fetchone()
    return None if row is None else row[1]
