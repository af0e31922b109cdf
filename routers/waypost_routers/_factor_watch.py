"""When to stop a factorisation: where its loss on held-out questions is lowest."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from waypost.contracts.epochs import Arrays
from waypost.contracts.routing_data import RoutingData
from waypost.contracts.types import Floats
from waypost_routers._factors import Factors, all_opponents, loss
from waypost_routers._learned import embeddings_of

_TIE = 1e-6


class LowestLoss:
    """Follows the loss of a factorisation.

    Args:
        held_out: Questions not learned from.
        target: See `loss`.
        patience: Steps without a lower loss after which to stop.
    """

    def __init__(self, held_out: RoutingData, target: str, patience: int) -> None:
        self._rows = embeddings_of(held_out)
        by_name = held_out.select_llms(sorted(held_out.names))
        self._known = ~np.isnan(by_name.quality)
        self._scores = np.where(self._known, by_name.quality, 0).astype(np.float32)
        self._target, self._patience = target, patience
        self._looks, self._step, self._lowest = 0, 0, np.inf
        self.best = 0
        self.losses: list[float] = []
        self._model: NDArray[np.float32] | None = None

    def see(self, learner: Factors) -> bool:
        """Look at a factorisation; say whether to go on."""
        self._looks += 1
        now = self._loss(learner.matrix())
        self.losses.append(now)
        if now < self._lowest - _TIE or self._model is None:
            self.best, self._step, self._lowest = self._looks, learner.step, now
            self._model = learner.model()
            return True
        return learner.step < self._step + self._patience

    @property
    def outside(self) -> Floats:
        """Raw scores of the questions where the loss was lowest."""
        assert self._model is not None  # asked after the first epoch only
        return raw_scores(self._rows, self._model)

    def state(self) -> Arrays:
        """Return the best model, when it was, and the loss at each look."""
        found: Arrays = {
            "at": np.array([self._looks, self.best, self._step]),
            "lowest": np.array([self._lowest]),
            "losses": np.array(self.losses, np.float64),
        }
        return found if self._model is None else {**found, "model": self._model}

    def restore(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Take over what `state` returned."""
        self._looks, self.best, self._step = (int(part) for part in arrays["at"])
        self._lowest = float(arrays["lowest"][0])
        self.losses = [float(one) for one in arrays["losses"]]
        self._model = arrays.get("model")

    def _loss(self, matrix: NDArray[np.float32]) -> float:
        logits = self._rows @ matrix[:-1] + matrix[-1]
        opponents = all_opponents(self._scores.shape[1])
        return loss(logits, self._scores, self._known, self._target, opponents)[0]


def raw_scores(rows: NDArray[Any], model: NDArray[np.float32]) -> Floats:
    """Return the scores (n, n_llms) of a factorisation's model."""
    return np.asarray(rows @ model[:-1] + model[-1], np.float64)
