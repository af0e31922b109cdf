"""Training by epochs with held-out questions; state of models and optimizers as named arrays."""

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
    """Return copies of the arrays of each list, named ``list.index``."""
    return {f"{name}.{i}": p.copy() for name, ps in lists.items() for i, p in enumerate(ps)}


def take_over(arrays: Mapping[str, NDArray[Any]], **targets: Lists) -> None:
    """Copy saved arrays in place into arrays, or lists of arrays, of the same names.

    Raises:
        KeyError: a saved array is missing.
        ValueError: a saved array has another shape.
    """
    for name, target in targets.items():
        one = [(name, target)] if isinstance(target, np.ndarray) else []
        for key, into in one or [(f"{name}.{i}", part) for i, part in enumerate(target)]:
            if arrays[key].shape != into.shape:
                raise ValueError(f"{key} has shape {arrays[key].shape}, expected {into.shape}")
            into[...] = arrays[key]


def within(arrays: Mapping[str, NDArray[Any]], prefix: str) -> Arrays:
    """Return the arrays whose names begin with ``prefix.``, with that prefix removed."""
    start = f"{prefix}."
    return {k.removeprefix(start): v for k, v in arrays.items() if k.startswith(start)}


def under(prefix: str, arrays: Mapping[str, NDArray[Any]]) -> Arrays:
    """Return the arrays with ``prefix.`` added to their names."""
    return {f"{prefix}.{key}": value for key, value in arrays.items()}


def module_arrays(module: Any) -> Arrays:
    """Return copies of a torch module's parameters and buffers, by name."""
    return {k: v.detach().cpu().numpy().copy() for k, v in module.state_dict().items()}


def restore_module(module: Any, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Load the arrays of `module_arrays` into a module.

    Raises:
        ValueError: names or shapes differ.
    """
    import torch

    try:
        module.load_state_dict({key: torch.from_numpy(np.array(v)) for key, v in arrays.items()})
    except RuntimeError as error:
        raise ValueError(str(error).splitlines()[0]) from None


def optimizer_arrays(optimizer: Any) -> Arrays:
    """Return copies of each group's learning rate and each parameter's step and moments."""
    known = optimizer.state_dict()
    found: Arrays = {"rates": np.array([group["lr"] for group in known["param_groups"]])}
    for number, parts in known["state"].items():
        for key, value in parts.items():
            found[f"{number}.{key}"] = value.detach().cpu().numpy().copy()
    return found


def restore_optimizer(optimizer: Any, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Load the arrays of `optimizer_arrays` into an optimizer of the same parameters."""
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
    """A model in training on fixed data, one epoch at a time."""

    @abstractmethod
    def epoch(self) -> None:
        """Train for one more epoch."""

    @abstractmethod
    def model(self) -> Any:
        """Return the trained model; later epochs do not change it."""

    @abstractmethod
    def change(self, settings: Mapping[str, Any]) -> None:
        """Set these changeable parameters of the router for later epochs."""

    @abstractmethod
    def state(self) -> Arrays:
        """Return the training state as named arrays."""

    @abstractmethod
    def restore(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Set the training state; call `change` with the settings of its last epoch before."""


class Judge(Protocol):
    """The evaluation of a learner on held-out questions after each epoch.

    Attributes:
        best: Number of epochs after which the learner was best.
        outside: (n_held, n_llms), its raw scores after that epoch.
        losses: Losses of all evaluations; the last ones are those of the epochs.
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
        """Evaluate a learner after one more epoch; return whether to continue."""

    def state(self) -> Arrays:
        """Return the state as named arrays."""

    def restore(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Set the state."""


class HeldOutEpochRouter(EpochRouter, CalibratedRouter):
    """A calibrated router trained by epochs, whose number is chosen on held-out questions.

    A subclass implements `_most_epochs`, `_learner`, `_judge`, `_take` and `_raw`. With too few
    questions to hold any out there is no judge, and all `_most_epochs` are trained.
    """

    @abstractmethod
    def _most_epochs(self, *, judged: bool) -> int:
        """Return the number of epochs; with a judge it is the maximum."""

    @abstractmethod
    def _learner(self, data: RoutingData, *, judged: bool) -> Learner:
        """Return an untrained learner of this data."""

    @abstractmethod
    def _judge(self, learner: Any, held_out: RoutingData) -> Judge:
        """Return a judge without evaluations, or with one of the untrained learner."""

    @abstractmethod
    def _take(self, learner: Any, epochs: int) -> None:
        """Set the learned attributes from a learner trained for ``epochs``."""

    def _training(self, data: RoutingData) -> HeldOutTraining:
        return HeldOutTraining(self, data)


class HeldOutTraining(EpochTraining):
    """Two passes: one on four fifths with a judge, then one on all for the best epochs."""

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
        """Loss on the held-out fifth after each epoch of the first pass."""
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
        """Return a learner of all questions after ``epochs``; restart it if it is past them."""
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
