"""The desk: hands out tasks in batches, takes in what they earned, and writes it down.

Whoever measures (Ray Tune's trials, or a plain loop) takes a batch and brings rows; what a batch
did not get to is given back and handed out again.

Sizes of batches: half an even share of what is left (guided self-scheduling; Polychronopoulos and
Kuck, 1987), so that large ones come first and the last ones end together; but at least `FLOOR_S`
seconds of work, as the trials measured so far have taken.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from waypost.tune.journal import Journal, Row, Task
from waypost.tune.searchers import Proposals, Told

FLOOR_S = 2.0
SLICE_S = 20.0
"""A batch is cut off after so long, so that others may share what it did not get to."""

MOST_DEATHS = 2
"""Workers that may die over a task before it counts as failed."""


class Desk:
    """The tasks of a sweep, until all are measured or its time is over.

    Args:
        journal: Where rows go.
        workers: Who measures at a time.
        tasks: What is to be measured; those in the journal are left out.
        proposals: Where further tasks come from.
        most: Largest batch.
        time_s: Most seconds of the sweep's own time; those in the journal count.
        after: What is to be measured when all this is done or its time is over; asked then.
        told: Of each new row.
        heard: Of each row of a trial that goes on.
    """

    def __init__(
        self,
        journal: Journal,
        workers: int,
        tasks: Sequence[Task] = (),
        proposals: Proposals | None = None,
        most: int | None = None,
        time_s: float | None = None,
        after: Callable[[], Sequence[Task]] | None = None,
        told: Told | None = None,
        heard: Told | None = None,
    ) -> None:
        self.workers = workers
        self._journal, self._proposals, self.most = journal, proposals, most
        self._time_s, self._after = time_s, after
        self._told, self._heard = told, heard
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
        """Seconds that are left; infinite without a limit."""
        return math.inf if self._time_s is None else self._time_s - self.elapsed_s

    @property
    def left(self) -> int:
        """Tasks that nobody has begun, as far as is known; 0 when the time is over."""
        if self.left_s <= 0:
            return 0
        return len(self._waiting) + (0 if self._proposals is None else self._proposals.left)

    @property
    def is_done(self) -> bool:
        """Whether nothing is left, and nothing is out that might come back."""
        self._go_on()
        return not self._out and self.left == 0

    def take(self) -> list[Task]:
        """Return the next batch; empty where there is none now (see `is_done`)."""
        self._go_on()
        wanted = self._batch() if self.left else 0
        found: list[Task] = []
        while len(found) < wanted:
            task = self._waiting.popleft() if self._waiting else self._next()
            if task is None:
                break
            self._out[task.place] = task
            found.append(task)
        return found

    def bring(self, rows: Iterable[Row]) -> None:
        """Take in what was measured."""
        for row in rows:
            if self._out.pop(row.place, None) is None:
                continue
            known = replace(row, at_s=round(self.elapsed_s, 3))
            self._journal.add(known)
            if self._proposals is not None:
                self._proposals.tell(known)
            if known.status == "done":
                self._seconds.append(known.seconds)
            if self._told is not None:
                self._told(known)

    def hear(self, rows: Iterable[Row]) -> None:
        """Pass on how trials that are not at their end are doing; nothing is written down."""
        for row in rows:
            if self._heard is not None and row.place in self._out:
                self._heard(row)

    def give_back(self, tasks: Sequence[Task], died: str | None = None) -> None:
        """Take back what was not measured; tasks whose rows were brought are left out.

        Args:
            tasks: In the order of their turns.
            died: What the worker died of, while it was at the first of them; None is nothing.
        """
        back = [self._out[task.place] for task in tasks if task.place in self._out]
        if died is not None and back:
            first = back[0]
            self._deaths[first.place] = self._deaths.get(first.place, 0) + 1
            if self._deaths[first.place] >= MOST_DEATHS:
                error = f"its worker died {MOST_DEATHS} times: {died}"
                self.bring([row_of(first, 0.0, status="failed", score=None, error=error)])
                back = back[1:]
        for task in back:
            del self._out[task.place]
        self._waiting.extendleft(reversed(back))

    def _go_on(self) -> None:
        """When all is done, or the time is over, go on to what comes after."""
        if self._after is None or self._out or self.left:
            return
        tasks, self._after = self._after(), None
        self._proposals = self._time_s = None
        self._waiting = deque(task for task in tasks if task.place not in self._journal.rows)

    def _next(self) -> Task | None:
        return None if self._proposals is None else self._proposals.next()

    def _batch(self) -> int:
        share = math.ceil(self.left / (2 * self.workers))
        mean = sum(self._seconds) / len(self._seconds) if self._seconds else FLOOR_S
        floor = math.ceil(FLOOR_S / max(mean, 1e-3))
        size = max(share, min(floor, math.ceil(self.left / self.workers)))
        limits = [self.most, None if self._proposals is None else self._proposals.at_once]
        return min([size, *(limit for limit in limits if limit is not None)])


def row_of(task: Task, seconds: float, **found: object) -> Row:
    """Return the row of a task."""
    same = {"number": task.number, "key": task.key, "setting": task.setting, "deal": task.deal}
    return Row(**same, seconds=round(seconds, 4), **found)  # type: ignore[arg-type]
