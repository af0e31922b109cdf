"""The feedback store: events about answered requests, each counted once wherever it lands.

A gateway replica writes the requests that it answers a few times a second, and events before it
acknowledges them. Whatever waits is written together, by a `Writer`: that of the folder on this
machine, which all replicas of the machine share, or a process elsewhere that owns the folder.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

from waypost.contracts.errors import StorageError
from waypost.contracts.feedback import FeedbackEvent
from waypost.feedback.database import answered_row
from waypost.feedback.ledger import Ledger, Retention, Row, Taken
from waypost.feedback.outcome import Outcome

logger = logging.getLogger(__name__)

FLUSH_S = 0.2
"""Seconds after which every replica can find an answered request, and the loss window of a kill."""

_WAITS_S = (FLUSH_S, 2 * FLUSH_S)
"""An event about a request that is not found is tried again: another replica may be writing it."""

MOST_PENDING = 100_000
MOST_SIZE = 64 * 1024 * 1024
"""Answered requests that wait in memory while the folder cannot be written, and the characters of
their texts and bytes of their embeddings together; older ones go, and are counted."""

MOST_AT_ONCE = 1_000
"""Events of one transaction."""

MOST_ROWS = 5_000
MOST_ROWS_SIZE = 8 * 1024 * 1024
"""Answered requests of one transaction, and their size, as in `MOST_SIZE`."""

CLOSING_S = 2.0
"""Longest wait for the writer at the end of this process."""


class Writer(Protocol):
    """Writes a feedback folder."""

    async def start(self) -> None:
        """Open the folder, where it is this process that writes it.

        Raises:
            StorageError: it cannot be made or read.
        """

    async def close(self) -> None:
        """Close it."""

    async def write(
        self, rows: Sequence[Row], batches: Sequence[Sequence[FeedbackEvent]], kept: Retention
    ) -> list[list[Taken]]:
        """Write records, then events; see `Ledger.write`.

        Raises:
            StorageError: the folder cannot be reached or written now. A record or an event may
                have been written nevertheless; sent again it is not counted twice.
        """


class FolderWriter:
    """Writes a folder of this machine in a thread.

    Args:
        folder: The folder, on a disk of this machine.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._ledger = Ledger(folder)
        self._thread = ThreadPoolExecutor(1, "feedback")

    def __str__(self) -> str:
        return str(self._folder)

    async def start(self) -> None:  # noqa: D102 - as the protocol says
        await asyncio.get_running_loop().run_in_executor(self._thread, self._ledger.open)

    async def close(self) -> None:  # noqa: D102
        self._thread.submit(self._ledger.close)
        await asyncio.to_thread(self._thread.shutdown)

    async def write(  # noqa: D102
        self, rows: Sequence[Row], batches: Sequence[Sequence[FeedbackEvent]], kept: Retention
    ) -> list[list[Taken]]:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, self._ledger.write, rows, batches, kept)


class _Waiting:
    def __init__(self, events: Sequence[FeedbackEvent], done: asyncio.Future[list[Taken]]) -> None:
        self.events, self.done = events, done


class FeedbackStore:
    """Keeps answered requests and the events about them in a folder.

    Args:
        where: The folder, on a disk of this machine, or what writes it.
        keep_queries: Whether the text of requests is kept; may be changed.
        most: Number of latest answered requests that can be rated.
        max_age_s: Seconds after which an answered request can no longer be rated.

    Attributes:
        retention: ``most`` and ``max_age_s``; may be changed.
        lost: Number of answered requests that could not be written.
    """

    def __init__(
        self, where: Path | Writer, *, keep_queries: bool, most: int, max_age_s: float
    ) -> None:
        self._writer = FolderWriter(where) if isinstance(where, Path) else where
        self.keep_queries = keep_queries
        self.retention = Retention(most, max_age_s)
        self.lost = 0
        self._pending: list[Outcome] = []
        self._size = 0  # of what is pending
        self._flush_at: asyncio.TimerHandle | None = None
        self._flush_due = False
        self._waiting: list[_Waiting] = []
        self._work: asyncio.Task[None] | None = None
        self._failing = self._closing = False

    async def start(self) -> None:
        """Open the folder.

        Raises:
            StorageError: it cannot be made or read.
        """
        await self._writer.start()

    async def close(self) -> None:
        """Write what is pending within `CLOSING_S`, and close the folder."""
        self._closing = True
        if self._flush_at is not None:
            self._flush_at.cancel()
            self._flush()
        if self._work is not None:
            await asyncio.wait([self._work], timeout=CLOSING_S)
        if self._work is not None:
            self._work.cancel()
            await asyncio.wait([self._work])
        self._lose(len(self._pending))
        self._pending.clear()
        await self._writer.close()

    def remember(self, outcome: Outcome) -> None:
        """Keep an answered request, so that it can be rated; it is on disk `FLUSH_S` later."""
        self._pending.append(outcome)
        self._size += _size(outcome)
        if self._flush_at is None:
            self._flush_at = asyncio.get_running_loop().call_later(FLUSH_S, self._flush)

    async def add(self, events: Sequence[FeedbackEvent]) -> list[Taken]:
        """Take events; return when those kept are on disk.

        An event with the idempotency key of an earlier one is that event. A later event of one
        user, source and kind about the same request (or pair) replaces the earlier one: both are
        kept, the later one counts. A user that the event does not name is that of its request.

        Raises:
            StorageError: the folder cannot be written; send all events again.
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
        taken: list[_Waiting] = []
        outcomes: list[Outcome] = []
        try:
            while self._waiting or (self._flush_due and self._pending):
                taken, outcomes = self._next(), self._next_outcomes()
                try:
                    found = await self._write(outcomes, [each.events for each in taken])
                except StorageError as error:
                    self._keep_for_later(outcomes, error)
                    _fail(taken + self._waiting, error)  # else they wait for a time-out in turn
                    self._waiting.clear()
                except Exception as error:  # noqa: BLE001 - told to those who wait
                    logger.error("%s: %s: %s", self._writer, type(error).__name__, error)
                    self._lose(len(outcomes))
                    _fail(taken, error)
                else:
                    if self._failing:
                        logger.warning("%s: can be written again", self._writer)
                        self._failing = False
                    for each, answers in zip(taken, found, strict=True):
                        if not each.done.done():  # the caller may have gone
                            each.done.set_result(answers)
                taken, outcomes = [], []
            self._flush_due = False
        finally:
            self._lose(len(outcomes))  # none, unless it was cancelled
            _fail(taken, StorageError(f"{self._writer}: was closed"))
            self._work = None

    async def _write(
        self, outcomes: Sequence[Outcome], batches: Sequence[Sequence[FeedbackEvent]]
    ) -> list[list[Taken]]:
        rows: list[Row] = []
        if outcomes:  # digests of long texts take their time
            rows = await asyncio.to_thread(_rows, outcomes, self.keep_queries)
        return await self._writer.write(rows, batches, self.retention)

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

    def _next_outcomes(self) -> list[Outcome]:
        size = count = 0
        for each in self._pending[:MOST_ROWS]:
            length = _size(each)
            if count and size + length > MOST_ROWS_SIZE:
                break
            size, count = size + length, count + 1
        taken = self._pending[:count]
        del self._pending[:count]
        self._size -= size
        return taken

    def _keep_for_later(self, outcomes: list[Outcome], error: StorageError) -> None:
        self._pending[:0] = outcomes
        self._size += sum(_size(each) for each in outcomes)
        too_many = max(len(self._pending) - MOST_PENDING, 0)
        for count, each in enumerate(self._pending):
            if count >= too_many and self._size <= MOST_SIZE:
                break
            self._size -= _size(each)
            too_many = max(too_many, count + 1)
        del self._pending[:too_many]
        self._lose(too_many)
        self._flush_due = False
        if self._pending and self._flush_at is None and not self._closing:
            self._flush_at = asyncio.get_running_loop().call_later(FLUSH_S, self._flush)
        if not self._failing:
            logger.error("%s; answered requests wait", error)
            self._failing = True

    def _lose(self, count: int) -> None:
        if count:
            self.lost += count
            logger.error("%s: %d answered requests are lost", self._writer, count)


def _size(outcome: Outcome) -> int:
    vector = outcome.vector
    return len(outcome.query["query"]) + (0 if vector is None else len(vector.data))


def _rows(outcomes: Sequence[Outcome], keep_queries: bool) -> list[Row]:
    return [answered_row(each, keep_query=keep_queries) for each in outcomes]


def _fail(waiting: Sequence[_Waiting], error: Exception) -> None:
    for each in waiting:
        if not each.done.done():
            each.done.set_exception(error)
