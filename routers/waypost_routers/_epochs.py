"""Learning by epochs, twice: without a fifth of the questions, then with all of them.

The first pass finds out, on the questions held out, how many epochs are best, and what raw scores
mean. The second makes as many on all questions. It is made when the router is settled, and goes on
from where the last settling left it: epochs that nobody settles cost the first pass only.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from waypost.contracts.epochs import Arrays, EpochRouter, EpochTraining
from waypost.contracts.routing_data import RoutingData
from waypost.contracts.types import Floats
from waypost_routers._kept import under, within
from waypost_routers._learned import CalibratedRouter, measured, split_off


class Learner(ABC):
    """Learns from fixed data, an epoch at a time."""

    @abstractmethod
    def epoch(self) -> None:
        """Train one more."""

    @abstractmethod
    def model(self) -> Any:
        """Return what it has learned; later epochs leave it as it is."""

    @abstractmethod
    def change(self, settings: Mapping[str, Any]) -> None:
        """Use these values of the router's changeable parameters from now on."""

    @abstractmethod
    def state(self) -> Arrays:
        """Return what is needed to go on, by name."""

    @abstractmethod
    def restore(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Take over a state; `change` was called with what held in its last epoch."""


class Judge(Protocol):
    """Follows a learner on held-out questions.

    Attributes:
        best: Epochs after which the learner was best, of those it has seen.
        outside: (n_held, n_llms), its raw scores then.
        losses: Of the learner each time it was seen; the last ones are those of the epochs.
    """

    losses: list[float]

    @property
    def best(self) -> int: ...

    @property
    def outside(self) -> Floats: ...

    def see(self, learner: Any) -> bool:
        """Look at a learner after one more epoch; say whether to go on."""

    def state(self) -> Arrays:
        """Return what it has seen."""

    def restore(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Take over a state."""


class HeldOutEpochRouter(EpochRouter, CalibratedRouter):
    """A calibrated router that learns by epochs; how many is chosen on held-out questions.

    A subclass writes `_most_epochs`, `_learner`, `_judge`, `_take` and `_raw`. Where there are too
    few questions to hold any out, nobody judges, and `_most_epochs` are made.
    """

    @abstractmethod
    def _most_epochs(self, *, judged: bool) -> int:
        """Return how many epochs are made, at most where somebody judges."""

    @abstractmethod
    def _learner(self, data: RoutingData, *, judged: bool) -> Learner:
        """Return a learner from this data that has not begun."""

    @abstractmethod
    def _judge(self, learner: Any, held_out: RoutingData) -> Judge:
        """Return one who has seen nothing, or the learner before its first epoch."""

    @abstractmethod
    def _take(self, learner: Any, epochs: int) -> None:
        """Set what the router learns, from a learner that has made so many epochs."""

    def _training(self, data: RoutingData) -> HeldOutTraining:
        return HeldOutTraining(self, data)


class HeldOutTraining(EpochTraining):
    """The two passes; see the module."""

    router: HeldOutEpochRouter

    def __init__(self, router: HeldOutEpochRouter, data: RoutingData) -> None:
        self._questions = measured(data)
        seed = getattr(router, "seed", 0)
        self._rows, training, held_out = split_off(self._questions, seed)
        self._judged = held_out is not None
        super().__init__(router, data, router._most_epochs(judged=self._judged))
        self._last: Learner | None = None
        self._made = 0
        self._has_lengths = False
        if held_out is not None:
            self._first = router._learner(training, judged=True)
            self._judge = router._judge(self._first, held_out)

    @property
    def losses(self) -> list[float]:
        """Loss on the fifth that is held out, after each epoch of the first pass."""
        return self._judge.losses[-self.done :] if self._judged and self.done else []

    def _advance(self) -> bool:
        if not self._judged:
            self._go_to(self.done + 1)
            return True
        self._first.change(self.settings(self.done))
        self._first.epoch()
        return self._judge.see(self._first)

    def _settle(self) -> None:
        outside = self._judge.outside if self._judged else np.empty((0, len(self.data.llms)))
        best = self._judge.best if self._judged else self.done
        self.router._take(self._go_to(best), best)
        self.router._calibrate(self._questions, self._rows, outside)
        if not self._has_lengths:
            self.router._learn_lengths(self._questions)
            self._has_lengths = True

    def _go_to(self, epochs: int) -> Learner:
        """Have all questions learned from for so many epochs; anew where it was more."""
        last = self._last
        if last is None or self._made > epochs:
            last, self._made = self._new_last(0), 0
        for epoch in range(self._made, epochs):
            last.change(self.settings(epoch))
            last.epoch()
        self._last, self._made = last, epochs
        return last

    def _new_last(self, made: int) -> Learner:
        learner = self.router._learner(self._questions, judged=self._judged)
        learner.change(self.settings(max(made - 1, 0)))
        return learner

    def _arrays(self) -> Arrays:
        found: Arrays = {"made": np.array([self._made])}
        if self._judged:
            found |= under("first", self._first.state()) | under("judge", self._judge.state())
        if self._last is not None:
            found |= under("last", self._last.state())
        return found

    def _restore(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        if self._judged:
            self._first.change(self.settings(max(self.done - 1, 0)))
            self._first.restore(within(arrays, "first"))
            self._judge.restore(within(arrays, "judge"))
        self._made = int(arrays["made"][0])
        if last := within(arrays, "last"):
            self._last = self._new_last(self._made)
            self._last.restore(last)
