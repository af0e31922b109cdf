"""Early stopping, and the choice of the epoch to keep, on held-out questions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from waypost.contracts.epochs import Arrays
from waypost.contracts.types import Floats
from waypost_routers._learned import earned

_TIE = 1e-9


class Watch:
    """A judge that sets when to stop and which epoch to keep.

    Args:
        scores: (n_held, n_llms), NaN where not measured; every row has a score.
        patience: Epochs without a lower loss before training stops.
        predict: Function from a learner to its raw scores of the questions, (n_held, n_llms), in
            units of quality.
        before: Evaluations before the first epoch: 1 if the untrained learner is evaluated, else 0.
    """

    def __init__(
        self,
        scores: Floats,
        patience: int,
        predict: Callable[[Any], Floats],
        before: int = 0,
    ) -> None:
        self.scores = scores
        self.patience = patience
        self.losses: list[float] = []
        self._predict, self._before = predict, before
        self._raw: list[Floats] = []
        self._earned: list[Floats] = []

    def see(self, learner: Any) -> bool:
        """Evaluate an epoch's predictions; return whether to continue."""
        self._add(self._predict(learner))
        return len(self.losses) - 1 - int(np.argmin(self.losses)) < self.patience

    def _add(self, raw: Floats) -> None:
        quality = np.clip(raw, 0, 1)
        self.losses.append(float(np.nanmean((quality - self.scores) ** 2)))
        self._earned.append(earned(quality, self.scores))
        self._raw.append(raw)

    @property
    def best(self) -> int:
        """Number of epochs to train."""
        return best_epoch(self._earned, self.losses) + 1 - self._before

    @property
    def outside(self) -> Floats:
        """Raw scores of the questions after `best` epochs, (n_held, n_llms)."""
        return self._raw[best_epoch(self._earned, self.losses)]

    def state(self) -> Arrays:
        """Return all raw scores, (n_seen, n_held, n_llms), from which the rest is computed."""
        return {"raw": np.stack(self._raw) if self._raw else np.empty((0, *self.scores.shape))}

    def restore(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Set the state from the arrays of `state`."""
        self.losses, self._earned, self._raw = [], [], []
        for raw in arrays["raw"]:
            self._add(raw)


def best_epoch(earnings: Sequence[Floats], losses: Sequence[float]) -> int:
    """Return the epoch of lowest loss among those whose choices score as well as the best.

    As well means within one standard error of the difference, because the best of many noisy means
    is partly chance.

    Args:
        earnings: For each epoch the scores of its choices on the questions, (n_held,).
        losses: For each epoch the mean squared error.
    """
    table = np.stack(earnings)
    lost = table[int(np.argmax(table.mean(axis=1)))] - table
    alike = lost.mean(axis=1) <= lost.std(axis=1) / np.sqrt(table.shape[1]) + _TIE
    return int(np.argmin(np.where(alike, losses, np.inf)))
