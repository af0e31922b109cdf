"""The trial queue: hands out tasks in batches and writes rows to the journal.

Workers (Ray Tune trials, or a plain loop) take a batch and record rows. Unmeasured tasks of a batch
go back into the queue.

A batch is half an even share of the remaining tasks (guided self-scheduling; Polychronopoulos and
Kuck, 1987), so that large batches come first and the last ones end together. It holds at least
`FLOOR_S` seconds of work, by the mean time of the trials so far.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from waypost.tune.journal import Journal, Task, TrialRow
from waypost.tune.searchers import Proposals, RowCallback

FLOOR_S = 2.0
SLICE_S = 20.0
"""Time limit of a batch, after which its remaining tasks are shared among all workers."""

MOST_DEATHS = 2
"""Worker deaths after which a task counts as failed."""


class TrialQueue:
    """The tasks of a sweep until all are measured or the time limit has passed.

    Args:
        journal: Receives the rows.
        workers: Number of concurrent workers.
        tasks: First tasks; those in the journal are left out.
        proposals: Source of further tasks.
        max_batch: Maximum tasks of a batch; None is no limit.
        time_s: Time limit of the sweep in seconds, including the time of rows in the journal.
        after: Returns further tasks; called once, when all others are done or the time has passed.
        on_row: Called with each new row.
        on_epoch: Called with each intermediate row of a running trial.
    """

    def __init__(
        self,
        journal: Journal,
        workers: int,
        tasks: Sequence[Task] = (),
        proposals: Proposals | None = None,
        max_batch: int | None = None,
        time_s: float | None = None,
        after: Callable[[], Sequence[Task]] | None = None,
        on_row: RowCallback | None = None,
        on_epoch: RowCallback | None = None,
    ) -> None:
        self.workers = workers
        self._journal, self._proposals, self.max_batch = journal, proposals, max_batch
        self._time_s, self._after = time_s, after
        self._on_row, self._on_epoch = on_row, on_epoch
        self._began = time.monotonic() - journal.elapsed_s
        self._waiting = deque(task for task in tasks if task.place not in journal.rows)
        self._out: dict[tuple[str, int], Task] = {}
        self._deaths: dict[tuple[str, int], int] = {}
        self._seconds = [row.seconds for row in journal.rows.values() if row.status == "done"]

    @property
    def elapsed_s(self) -> float:
        """Seconds of the sweep's own time."""
        return time.monotonic() - self._began

    @property
    def left_s(self) -> float:
        """Seconds until the time limit; infinite without one."""
        return math.inf if self._time_s is None else self._time_s - self.elapsed_s

    @property
    def left(self) -> int:
        """Number of tasks not yet taken, as far as known; 0 after the time limit."""
        if self.left_s <= 0:
            return 0
        return len(self._waiting) + (0 if self._proposals is None else self._proposals.left)

    @property
    def is_done(self) -> bool:
        """Whether no task is left or running."""
        self._go_on()
        return not self._out and self.left == 0

    def take(self) -> list[Task]:
        """Return the next batch; empty if no task is available now (see `is_done`)."""
        self._go_on()
        wanted = self._batch() if self.left else 0
        found: list[Task] = []
        while len(found) < wanted:
            if self._waiting:
                task = self._waiting.popleft()
            elif self._proposals is None or (proposed := self._proposals.next()) is None:
                break
            else:
                task = proposed
            self._out[task.place] = task
            found.append(task)
        return found

    def record(self, rows: Iterable[TrialRow]) -> None:
        """Write finished rows to the journal."""
        for row in rows:
            if self._out.pop(row.place, None) is None:
                continue
            known = replace(row, at_s=round(self.elapsed_s, 3))
            self._journal.add(known)
            if self._proposals is not None:
                self._proposals.tell(known)
            if known.status == "done":
                self._seconds.append(known.seconds)
            if self._on_row is not None:
                self._on_row(known)

    def report_progress(self, rows: Iterable[TrialRow]) -> None:
        """Pass on intermediate rows of running trials; nothing is written."""
        for row in rows:
            if self._on_epoch is not None and row.place in self._out:
                self._on_epoch(row)

    def give_back(self, tasks: Sequence[Task], died: str | None = None) -> None:
        """Put unmeasured tasks of a batch back into the queue.

        Args:
            tasks: The batch, in order.
            died: Cause of the worker's death during the first unmeasured task; None without one.
        """
        back = [self._out[task.place] for task in tasks if task.place in self._out]
        if died is not None and back:
            first = back[0]
            self._deaths[first.place] = self._deaths.get(first.place, 0) + 1
            if self._deaths[first.place] >= MOST_DEATHS:
                error = f"its worker died {MOST_DEATHS} times: {died}"
                self.record([row_of(first, 0.0, status="failed", score=None, error=error)])
                back = back[1:]
        for task in back:
            del self._out[task.place]
        self._waiting.extendleft(reversed(back))

    def _go_on(self) -> None:
        """Switch to the tasks of ``after`` when all others are done or the time has passed."""
        if self._after is None or self._out or self.left:
            return
        tasks, self._after = self._after(), None
        self._proposals = self._time_s = None
        self._waiting = deque(task for task in tasks if task.place not in self._journal.rows)

    def _batch(self) -> int:
        share = math.ceil(self.left / (2 * self.workers))
        mean = sum(self._seconds) / len(self._seconds) if self._seconds else FLOOR_S
        floor = math.ceil(FLOOR_S / max(mean, 1e-3))
        size = max(share, min(floor, math.ceil(self.left / self.workers)))
        limits = [self.max_batch, None if self._proposals is None else self._proposals.at_once]
        return min([size, *(limit for limit in limits if limit is not None)])


def row_of(task: Task, seconds: float, **found: object) -> TrialRow:
    """Return the row of a task."""
    same = {"number": task.number, "key": task.key, "setting": task.setting, "deal": task.deal}
    return TrialRow(**same, seconds=round(seconds, 4), **found)  # type: ignore[arg-type]
