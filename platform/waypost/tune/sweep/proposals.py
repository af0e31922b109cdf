"""From a searcher's settings to tasks: numbered, none twice, the default first."""

from __future__ import annotations

from collections.abc import Callable

from waypost.tune.sweep.journal import Journal, Row, Task
from waypost.tune.sweep.searchers import Searcher
from waypost.tune.sweep.settings import SearchSpace, Setting

LEARNING_SHARE = 0.05
"""Most settings that are asked at once of a searcher that learns, as a share of all trials."""

SAME_AGAIN = 300
"""Proposals in a row that were there already, after which there are no others."""


class Proposals:
    """What a sweep is to measure, in the order in which it is proposed.

    Args:
        space: The search space.
        searcher: Who proposes; it is told what the journal holds.
        journal: Of the sweep.
        trials: Most of them, the default with them.
        sign: 1 where a high metric is good, -1 where a low one is.
    """

    def __init__(
        self, space: SearchSpace, searcher: Searcher, journal: Journal, trials: int, sign: float
    ) -> None:
        self._space, self._searcher, self._journal = space, searcher, journal
        self._trials, self._sign = trials, sign
        self._proposed = {row.key for row in journal.search()}
        self._next = max((row.number for row in journal.search()), default=0) + 1
        self._exhausted = False
        for row in journal.search():
            self.tell(row)

    @property
    def left(self) -> int:
        """Settings still to be proposed, as far as is known."""
        return 0 if self._exhausted else max(self._trials - len(self._proposed), 0)

    @property
    def at_once(self) -> int:
        """Most settings that should be out with one worker."""
        return max(1, int(self._trials * LEARNING_SHARE)) if self._searcher.learns else self._trials

    def next(self) -> Task | None:
        """Return the next task, None where there is no other."""
        if self.left and self._space.key({}) not in self._proposed:
            return self._task({}, 0)
        for _ in range(SAME_AGAIN + len(self._proposed)):
            setting = self._searcher.ask() if self.left else None
            if setting is None:
                break
            key = self._space.key(setting)
            if key not in self._proposed:
                number, self._next = self._next, self._next + 1
                return self._task(setting, number)
            known = self._journal.rows.get((key, 0))
            self._searcher.tell(setting, None if known is None else self._earned(known))
        self._exhausted = True
        return None

    def tell(self, row: Row) -> None:
        """Let the searcher know what a setting earned."""
        self._searcher.tell(row.setting, self._earned(row))

    def _task(self, setting: Setting, number: int) -> Task:
        key = self._space.key(setting)
        self._proposed.add(key)
        return Task(number, key, setting, self._space.parameters(setting))

    def _earned(self, row: Row) -> float | None:
        return None if row.score is None else self._sign * row.score


Told = Callable[[Row], None]
"""Told of each new row."""
