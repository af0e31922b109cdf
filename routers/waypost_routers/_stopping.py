"""Which epoch to keep, judged on held-out questions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from waypost_routers._learned import earned

Floats = NDArray[np.float64]

_TIE = 1e-9


class Watch:
    """Follows a fit on held-out questions and says when to stop and what to keep.

    Args:
        scores: Measured, (n_held, n_llms), NaN where not; every row has one.
        patience: Epochs without a lower loss after which to stop.
    """

    def __init__(self, scores: Floats, patience: int) -> None:
        self.scores = scores
        self.patience = patience
        self.losses: list[float] = []
        self._earned: list[Floats] = []

    def see(self, quality: Floats) -> bool:
        """Take an epoch's predictions (n_held, n_llms); say whether to go on."""
        self.losses.append(float(np.nanmean((quality - self.scores) ** 2)))
        self._earned.append(earned(quality, self.scores))
        return len(self.losses) - 1 - int(np.argmin(self.losses)) < self.patience

    @property
    def best(self) -> int:
        """Number of epochs to train, from 1."""
        return best_epoch(self._earned, self.losses) + 1


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
