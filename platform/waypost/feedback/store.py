"""The feedback store: events about answered requests, each counted once wherever it lands.

All gateway replicas of a machine share one database. A replica writes the requests that it answers
a few times a second, and events before it acknowledges them. Whatever waits is written together.
What users say then goes into their turns, of which personal routers make the users' states.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import sqlite3
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from waypost.contracts.errors import ConfigError, StorageError
from waypost.contracts.feedback import FeedbackEvent
from waypost.feedback.database import (
    ANSWERED,
    DATABASE,
    EVENT,
    VECTOR,
    answered_row,
    naming,
    open_database,
)
from waypost.feedback.outcome import Outcome, plain
from waypost.feedback.taste import told_by
from waypost.learning.user_turns import Told, TurnFolder

logger = logging.getLogger(__name__)

FLUSH_S = 0.2
"""Seconds after which every replica can find an answered request, and the loss window of a kill."""

_WAITS_S = (FLUSH_S, 2 * FLUSH_S)
"""An event about a request that is not found is tried again: another replica may be writing it."""

MOST_PENDING = 100_000
"""Answered requests that wait in memory while the database cannot be written; older ones go."""

MOST_AT_ONCE = 1_000
"""Events of one transaction."""

_PRUNED_AT_ONCE = 500
_OF_REQUEST = (*ANSWERED, *VECTOR)
_COLUMNS = ", ".join(_OF_REQUEST)
_MARKS = ", ".join("?" * len(_OF_REQUEST))
_REMEMBER = f"INSERT OR IGNORE INTO recent ({_COLUMNS}) VALUES ({_MARKS})"
_SAID = (*EVENT, "body", "slot", "replaced")
_TAKE = f"INSERT INTO events ({', '.join(_SAID)}) VALUES ({', '.join('?' * len(_SAID))})"
_FACTS = "SELECT at, model_name, user_id FROM {} WHERE request_id = ?"

Status = Literal["kept", "unknown", "too_old", "conflict"]


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
    """

    status: Status
    request_id: str
    model: str | None = None
    replaced: bool = False


class _Waiting:
    def __init__(self, events: Sequence[FeedbackEvent], done: asyncio.Future[list[Taken]]) -> None:
        self.events, self.done = events, done


def _fail(waiting: Sequence[_Waiting], error: Exception) -> None:
    for each in waiting:
        if not each.done.done():
            each.done.set_exception(error)


class FeedbackStore:
    """Keeps answered requests and the events about them in a folder.

    Args:
        folder: The folder, on a disk of this machine.
        keep_queries: Whether the text of requests is kept.
        most: Number of latest answered requests that can be rated.
        max_age_s: Seconds after which an answered request can no longer be rated.
    """

    def __init__(self, folder: Path, *, keep_queries: bool, most: int, max_age_s: float) -> None:
        self._folder = folder
        self._keep_queries = keep_queries
        self._most = most
        self._max_age_s = max_age_s
        self._thread = ThreadPoolExecutor(1, "feedback")
        self._database: sqlite3.Connection | None = None
        self._turns = TurnFolder(folder)
        self._pending: list[Outcome] = []
        self._flush_at: asyncio.TimerHandle | None = None
        self._flush_due = False
        self._waiting: list[_Waiting] = []
        self._work: asyncio.Task[None] | None = None
        self._closing = False

    async def start(self) -> None:
        """Open the database.

        Raises:
            StorageError: it cannot be made or read.
        """
        await asyncio.get_running_loop().run_in_executor(self._thread, self._db)

    async def close(self) -> None:
        """Write what is pending, and close the database."""
        self._closing = True
        if self._flush_at is not None:
            self._flush_at.cancel()
            self._flush()
        while self._work is not None:
            await asyncio.wait([self._work])
        if self._pending:
            logger.error("%s: %d answered requests are lost", self._folder, len(self._pending))
        if self._database is not None:
            self._thread.submit(self._database.close)
            self._thread.submit(self._turns.close)
            self._database = None
        await asyncio.to_thread(self._thread.shutdown)

    def remember(self, outcome: Outcome) -> None:
        """Keep an answered request, so that it can be rated; it is on disk `FLUSH_S` later."""
        self._pending.append(outcome)
        if self._flush_at is None:
            self._flush_at = asyncio.get_running_loop().call_later(FLUSH_S, self._flush)

    async def add(self, events: Sequence[FeedbackEvent]) -> list[Taken]:
        """Take events; return when those kept are on disk.

        An event with the idempotency key of an earlier one is that event. A later event of one
        user, source and kind about the same request (or pair) replaces the earlier one: both are
        kept, the later one counts. A user that the event does not name is that of its request.

        Raises:
            StorageError: the database cannot be written; no event is kept.
        """
        found = await self._add(events)
        for wait_s in _WAITS_S:
            missing = [i for i, taken in enumerate(found) if taken.status == "unknown"]
            if not missing:
                break
            await asyncio.sleep(wait_s)
            again = await self._add([events[i] for i in missing])
            for i, taken in zip(missing, again, strict=True):
                found[i] = taken
        return found

    async def _add(self, events: Sequence[FeedbackEvent]) -> list[Taken]:
        done: asyncio.Future[list[Taken]] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Waiting(events, done))
        self._begin()
        return await done

    def _flush(self) -> None:
        self._flush_at, self._flush_due = None, True
        self._begin()

    def _begin(self) -> None:
        if self._work is None:
            self._work = asyncio.get_running_loop().create_task(self._write_all())

    async def _write_all(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while self._waiting or self._flush_due:
                self._flush_due = False
                taken, outcomes = self._next(), self._pending
                self._pending = []
                events = [each.events for each in taken]
                try:
                    found = await loop.run_in_executor(self._thread, self._write, outcomes, events)
                except StorageError as error:
                    self._keep_for_later(outcomes, error)
                    _fail(taken, error)
                except Exception as error:  # noqa: BLE001 - told to those who wait
                    lost = len(outcomes)
                    logger.error("%s: %s: %d requests are lost", self._folder, error, lost)
                    _fail(taken, error)
                else:
                    for each, answers in zip(taken, found, strict=True):
                        if not each.done.done():  # the caller may have gone
                            each.done.set_result(answers)
        finally:
            self._work = None

    def _next(self) -> list[_Waiting]:
        """Return what is written next: about `MOST_AT_ONCE` events."""
        size = count = 0
        for each in self._waiting:
            if size and size + len(each.events) > MOST_AT_ONCE:
                break
            size, count = size + len(each.events), count + 1
        taken = self._waiting[:count]
        del self._waiting[:count]
        return taken

    def _keep_for_later(self, outcomes: list[Outcome], error: StorageError) -> None:
        every = outcomes + self._pending
        lost = max(len(every) - MOST_PENDING, 0)
        self._pending = every[lost:]
        if self._pending and self._flush_at is None and not self._closing:
            self._flush_at = asyncio.get_running_loop().call_later(10 * FLUSH_S, self._flush)
        logger.error("%s; %d answered requests wait, %d are lost", error, len(self._pending), lost)

    # -- in the thread ------------------------------------------------------------------------

    def _db(self) -> sqlite3.Connection:
        if self._database is None:
            self._database = open_database(self._folder)
        return self._database

    def _write(
        self, outcomes: list[Outcome], batches: list[Sequence[FeedbackEvent]]
    ) -> list[list[Taken]]:
        rows = [answered_row(each, keep_query=self._keep_queries) for each in outcomes]
        with naming(self._folder / DATABASE):
            db = self._db()
            # an answered request may be lost with the machine, an acknowledged event may not
            db.execute(f"PRAGMA synchronous={'FULL' if batches else 'NORMAL'}")
            db.execute("BEGIN IMMEDIATE")
            try:
                now = time.time()
                if rows:
                    db.executemany(_REMEMBER, rows)
                    self._prune(db, now)
                slots: dict[bytes, None] = {}
                found = [
                    [self._take(db, event, now, slots) for event in batch] for batch in batches
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

    def _take(
        self, db: sqlite3.Connection, event: FeedbackEvent, now: float, slots: dict[bytes, None]
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
            if now - row[0] > self._max_age_s:
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
        return Taken("kept", event.request_id, facts[0][1], same is not None)

    def _prune(self, db: sqlite3.Connection, now: float) -> None:
        """Delete the oldest of the answered requests.

        They stay for twice the age in which they can be rated, so that the reason can be told.
        """
        db.execute("DELETE FROM recent WHERE n <= (SELECT max(n) FROM recent) - ?", (self._most,))
        oldest = db.execute(
            "SELECT n, at FROM recent ORDER BY n LIMIT ?", (_PRUNED_AT_ONCE,)
        ).fetchall()
        old = [(n,) for n, at in oldest if now - at > 2 * self._max_age_s]
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
