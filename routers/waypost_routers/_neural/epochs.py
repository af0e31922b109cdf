"""What is being trained, as named arrays and back: lists of arrays, and torch's optimizers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from waypost.contracts.epochs import Arrays, EpochRouter, EpochTraining
from waypost.contracts.routing_data import RoutingData
from waypost.contracts.types import Floats
from waypost_routers._learned import CalibratedRouter, measured, split_off

Lists = Sequence[NDArray[Any]] | NDArray[Any]


def lists_to_arrays(**lists: Sequence[NDArray[Any]]) -> Arrays:
    """Return copies of the arrays of each list, named by list and number."""
    return {f"{name}.{i}": p.copy() for name, ps in lists.items() for i, p in enumerate(ps)}


def take_over(arrays: Mapping[str, NDArray[Any]], **targets: Lists) -> None:
    """Fill arrays, and those of lists, in place with what was saved under their names.

    Raises:
        KeyError: one is missing.
        ValueError: one has another shape.
    """
    for name, target in targets.items():
        one = [(name, target)] if isinstance(target, np.ndarray) else []
        for key, into in one or [(f"{name}.{i}", part) for i, part in enumerate(target)]:
            if arrays[key].shape != into.shape:
                raise ValueError(f"{key} has shape {arrays[key].shape}, expected {into.shape}")
            into[...] = arrays[key]


def within(arrays: Mapping[str, NDArray[Any]], prefix: str) -> Arrays:
    """Return the arrays whose names begin with ``prefix.``, without it."""
    start = f"{prefix}."
    return {k.removeprefix(start): v for k, v in arrays.items() if k.startswith(start)}


def under(prefix: str, arrays: Mapping[str, NDArray[Any]]) -> Arrays:
    """Return the arrays with ``prefix.`` before their names."""
    return {f"{prefix}.{key}": value for key, value in arrays.items()}


def module_arrays(module: Any) -> Arrays:
    """Return copies of a torch module's parameters and buffers, by name."""
    return {k: v.detach().cpu().numpy().copy() for k, v in module.state_dict().items()}


def restore_module(module: Any, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Take over what `module_arrays` returned.

    Raises:
        ValueError: names or shapes are others.
    """
    import torch

    try:
        module.load_state_dict({key: torch.from_numpy(np.array(v)) for key, v in arrays.items()})
    except RuntimeError as error:
        raise ValueError(str(error).splitlines()[0]) from None


def optimizer_arrays(optimizer: Any) -> Arrays:
    """Return the learning rate of each group, and steps and moments of each parameter."""
    known = optimizer.state_dict()
    found: Arrays = {"rates": np.array([group["lr"] for group in known["param_groups"]])}
    for number, parts in known["state"].items():
        for key, value in parts.items():
            found[f"{number}.{key}"] = value.detach().cpu().numpy().copy()
    return found


def restore_optimizer(optimizer: Any, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Take over what `optimizer_arrays` returned for the same parameters."""
    import torch

    known = optimizer.state_dict()
    for group, rate in zip(known["param_groups"], arrays["rates"], strict=True):
        group["lr"] = float(rate)
    state: dict[int, dict[str, Any]] = {}
    for name, value in arrays.items():
        number, _, key = name.partition(".")
        if key:
            state.setdefault(int(number), {})[key] = torch.from_numpy(np.array(value))
    optimizer.load_state_dict({"state": state, "param_groups": known["param_groups"]})


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
    def best(self) -> int:
        """See the class."""
        ...

    @property
    def outside(self) -> Floats:
        """See the class."""
        ...

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
