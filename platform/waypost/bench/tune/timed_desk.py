"""A desk that notes when each worker began to fit."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence

from waypost.tune.journal import Journal, Row, Task
from waypost.tune.trial_queue import Desk


def timed_desk(
    journal: Journal,
    workers: int,
    tasks: Sequence[Task],
    now: Callable[[], float] = time.monotonic,
) -> tuple[Desk, list[float]]:
    """Return a desk, and a list that fills with the moment of each worker's first fit.

    The first batches, one a worker, go to different ones. A worker began when its first rows
    came, less the seconds of their fits.
    """
    batches: list[set[tuple[str, int]]] = []
    began: list[float] = []

    class TimedDesk(Desk):
        def take(self) -> list[Task]:
            found = super().take()
            if found and len(began) + len(batches) < workers:
                batches.append({task.place for task in found})
            return found

        def bring(self, rows: Iterable[Row]) -> None:
            rows = list(rows)
            for batch in list(batches):
                own = [row.seconds for row in rows if row.place in batch]
                if own:
                    began.append(now() - sum(own))
                    batches.remove(batch)
            super().bring(rows)

    return TimedDesk(journal, workers, tasks), began
