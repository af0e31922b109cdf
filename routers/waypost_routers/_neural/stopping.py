"""Which epoch to keep, judged on held-out questions."""

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
    """Follows a fit on held-out questions and says when to stop and what to keep.

    Args:
        scores: Measured, (n_held, n_llms), NaN where not; every row has one.
        patience: Epochs without a lower loss after which to stop.
        predict: Returns a learner's raw scores of the questions, (n_held, n_llms), in units of
            quality.
        before: What it has seen before the first epoch: 1 where that was the untrained learner.
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
        """Look at an epoch's predictions; say whether to go on."""
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
        """Raw scores of the questions after so many."""
        return self._raw[best_epoch(self._earned, self.losses)]

    def state(self) -> Arrays:
        """Return all raw scores, (n_seen, n_held, n_llms); the rest follows from them."""
        return {"raw": np.stack(self._raw) if self._raw else np.empty((0, *self.scores.shape))}

    def restore(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Take over what `state` returned."""
        self.losses, self._earned, self._raw = [], [], []
        for raw in arrays["raw"]:
            self._add(raw)


def best_epoch(earnings: Sequence[Floats], losses: Sequence[float]) -> int:
    """Return the epoch of the lowest loss among those that earn as much as the best.

    As much is within one standard error of the difference: the best of many noisy means is picked
    by chance as much as by merit.

    Args:
        earnings: For each epoch what its choices scored on each question, (n_held,).
        losses: For each epoch the mean squared error.
    """
    table = np.stack(earnings)
    lost = table[int(np.argmax(table.mean(axis=1)))] - table
    alike = lost.mean(axis=1) <= lost.std(axis=1) / np.sqrt(table.shape[1]) + _TIE
    return int(np.argmin(np.where(alike, losses, np.inf)))
