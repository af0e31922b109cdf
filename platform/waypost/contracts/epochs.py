"""Routers that are trained epoch by epoch: with progress, early stopping, checkpoints and resume.

    training = router.fit_epochs(data)
    for done in training:                      # trains one more epoch
        training.settle()                      # the router is what fit leaves, had it ended here
        state = training.state()               # named arrays: they go through safetensors
    training.settle()                          # now the router is exactly what fit(data) leaves

    router.set_params(learning_rate=1e-4)      # of `changeable_parameters` only
    training = router.fit_epochs(data, state)  # goes on after the state's last epoch

An epoch without `settle` costs its training only.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from waypost.contracts.errors import (
    ArtifactFormatError,
    ConfigError,
    Fault,
    NotFittedError,
    SchemaError,
)
from waypost.contracts.router import TrainableRouter
from waypost.contracts.routing_data import RoutingData

Arrays = dict[str, NDArray[Any]]

FORMAT = "waypost-epochs/1"

ABOUT = "about"
"""Array of a state that describes it (see `read_about`): JSON in UTF-8, as uint8."""


class EpochRouter(TrainableRouter):
    """A router that is trained in epochs; `fit` runs all of them.

    A subclass writes `_training`.
    """

    changeable_parameters: ClassVar[tuple[str, ...]] = ()
    """Parameters that may change between epochs; a change of any other needs a new fit."""

    @abstractmethod
    def _training(self, data: RoutingData) -> EpochTraining:
        """Return a training that has not begun. The data is checked and the shared state is set."""

    def fit_epochs(
        self, data: RoutingData, state: Mapping[str, NDArray[Any]] | None = None
    ) -> EpochTraining:
        """Begin a training, or resume one.

        The router cannot predict before `EpochTraining.settle`; later epochs change its
        predictions only at the next `settle`. Resumed with the parameters of the state, the
        training ends exactly as one that was never interrupted.

        Args:
            data: As for `fit`.
            state: From `EpochTraining.state`, of the same router and data; None starts anew.

        Raises:
            ConfigError, SchemaError: as `fit`.
            ConfigError: parameters differ from the state's that may not change; all are named.
            SchemaError: the state belongs to other data.
            ArtifactFormatError: not a state, or one of another router.
        """
        self._prepare(data)
        self._unsettled = True
        training = self._training(data)
        if state is not None:
            training.restore(state)
        return training

    def _fit(self, data: RoutingData) -> None:
        training = self._training(data)
        for _ in training:
            pass
        training.settle()

    def _require_fitted(self) -> None:
        super()._require_fitted()
        if getattr(self, "_unsettled", False):
            raise NotFittedError(
                f"{self.name or type(self).__name__} is being trained by epochs; call settle on "
                "its training before it is asked"
            )


class EpochTraining(ABC):
    """One training of a router. Each iteration trains one epoch and yields how many are done.

    A subclass writes `_advance`, `_settle`, `_arrays` and `_restore`.

    Attributes:
        router: The router that is trained.
        data: Its training data.
        total: Maximum number of epochs; early stopping may end the training before.
        done: Number of finished epochs.
        stopped: Whether early stopping has ended the training.
        schedule: Values of the router's `changeable_parameters` by the epoch from which they hold
            (0 is the first); more than one entry where they were changed.
    """

    def __init__(self, router: EpochRouter, data: RoutingData, total: int) -> None:
        self.router, self.data = router, data
        self.total, self.done, self.stopped = total, 0, False
        self.schedule: list[tuple[int, dict[str, Any]]] = [(0, self._changeable())]

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> int:
        if self.stopped or self.done >= self.total:
            raise StopIteration
        self.stopped = not self._advance()
        self.done += 1
        return self.done

    @property
    def losses(self) -> list[float]:
        """Router-specific loss on held-out questions after each epoch; lower is better.

        Empty where the router uses no held-out questions.
        """
        return []

    def settle(self) -> None:
        """Set the router to the state that `fit` would leave if training ended after this epoch.

        This may retrain on all questions up to the best epoch so far, and calibrate. Later
        calls do not repeat that work.

        Raises:
            NotFittedError: before the first epoch.
        """
        if self.total and not self.done:
            raise NotFittedError(f"{self.router.name}: settle comes after the first epoch")
        self._settle()
        self.router.__dict__.pop("_unsettled", None)

    def change(self, **values: Any) -> None:
        """Set parameters of the router from the next epoch on.

        Raises:
            ConfigError: unknown, out of range, or not of `changeable_parameters`; all are named.
        """
        self.router.check_params(values)
        self._refuse({k for k in values if k not in self.router.changeable_parameters})
        self.router.set_params(**values)
        self._note_changes()

    def settings(self, epoch: int) -> dict[str, Any]:
        """Return the values of the changeable parameters in an epoch, counted from 0."""
        return [values for start, values in self.schedule if start <= epoch][-1]

    def state(self) -> Arrays:
        """Return the checkpoint needed to resume, as named contiguous arrays.

        It holds weights, moments, random states, the history of early stopping, and what `settle`
        computed.
        """
        about = {
            "format": FORMAT,
            "router": self.router.name,
            "parameters": self.router.get_params(),
            "data": self._data_key(),
            "done": self.done,
            "stopped": self.stopped,
            "schedule": self.schedule,
        }
        head = np.frombuffer(json.dumps(about, sort_keys=True).encode(), np.uint8)
        arrays = {name: np.asarray(part, order="C") for name, part in self._arrays().items()}
        return {ABOUT: head, **arrays}

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Restore a state; see `EpochRouter.fit_epochs`."""
        about, name = read_about(state), self.router.name
        if about["router"] != name:
            raise ArtifactFormatError(f"epoch state: is of {about['router']}, expected {name}")
        now, then = self.router.get_params(), about["parameters"]
        changed = {key for key in now if json.loads(json.dumps(now[key])) != then.get(key)}
        self._refuse({key for key in changed if key not in self.router.changeable_parameters})
        if about["data"] != self._data_key():
            raise SchemaError(
                f"epoch state: {name} was trained on other data; resume it with the same rows "
                "and embeddings, or begin anew"
            )
        self.schedule = [(int(start), dict(values)) for start, values in about["schedule"]]
        self.done, self.stopped = int(about["done"]), bool(about["stopped"])
        try:
            self._restore({key: np.array(part) for key, part in state.items() if key != ABOUT})
        except (KeyError, ValueError, IndexError) as error:
            raise ArtifactFormatError(f"epoch state of {name}: is not whole: {error}") from None
        self._note_changes()

    def _data_key(self) -> list[Any]:
        return [self.data.digest, self.data.encoder_id, self.router.n_features_in_]

    def _changeable(self) -> dict[str, Any]:
        return {key: getattr(self.router, key) for key in self.router.changeable_parameters}

    def _note_changes(self) -> None:
        if (values := self._changeable()) != self.schedule[-1][1]:
            kept = [entry for entry in self.schedule if entry[0] < self.done]
            self.schedule = [*kept, (self.done, values)]

    def _refuse(self, keys: set[str]) -> None:
        allowed = ", ".join(self.router.changeable_parameters) or "none"
        where = self.router.name
        if keys:
            raise ConfigError(
                Fault(
                    f"{where}: {key}",
                    f"cannot change while it is trained; those that can: {allowed}",
                )
                for key in sorted(keys)
            )

    @abstractmethod
    def _advance(self) -> bool:
        """Train one epoch with ``settings(done)``; return whether another may follow."""

    @abstractmethod
    def _settle(self) -> None:
        """Set the router's learned attributes."""

    @abstractmethod
    def _arrays(self) -> Mapping[str, NDArray[Any]]:
        """Return the state by name."""

    @abstractmethod
    def _restore(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Restore what `_arrays` returned; ``done`` and ``schedule`` are set already."""


def read_about(state: Mapping[str, NDArray[Any]]) -> dict[str, Any]:
    """Return the description in a state: router, parameters, done, stopped, schedule.

    Raises:
        ArtifactFormatError: not a state of this format.
    """
    try:
        found = json.loads(np.asarray(state[ABOUT], np.uint8).tobytes())
        if found["format"] != FORMAT:
            raise ArtifactFormatError(f"epoch state: format {found['format']}, expected {FORMAT}")
    except (KeyError, TypeError, ValueError) as error:
        raise ArtifactFormatError(f"epoch state: cannot be read: {error}") from None
    return dict(found)


def random_state(draw: np.random.Generator) -> NDArray[np.uint64]:
    """Return the state of numpy's default generator (PCG64), (6,)."""
    known: Any = draw.bit_generator.state
    inner, low = known["state"], (1 << 64) - 1
    parts = [inner["state"] >> 64, inner["state"] & low, inner["inc"] >> 64, inner["inc"] & low]
    return np.array([*parts, known["has_uint32"], known["uinteger"]], np.uint64)


def set_random_state(draw: np.random.Generator, state: NDArray[Any]) -> None:
    """Set what `random_state` returned."""
    high, low, inc_high, inc_low, has, value = (int(part) for part in state)
    draw.bit_generator.state = {
        "bit_generator": "PCG64",
        "state": {"state": high << 64 | low, "inc": inc_high << 64 | inc_low},
        "has_uint32": has,
        "uinteger": value,
    }
