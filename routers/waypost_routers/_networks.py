"""Several networks of one shape, trained side by side on scaled inputs, averaged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from waypost.contracts.epochs import Arrays
from waypost.contracts.types import Floats, Floats32
from waypost_routers._epochs import Learner
from waypost_routers._kept import under, within
from waypost_routers._mlp import Network, Training, forward

FEWEST_BATCHES, SMALLEST_BATCH = 16, 16
"""A pass over few rows is cut into so many steps, of at least so many rows."""


@dataclass(frozen=True, eq=False)
class Networks:
    """Networks of one shape.

    Attributes:
        layers: Matrix (n_members, inputs, outputs) and bias (n_members, outputs) of each layer,
            in turn; float32 values in float64.
    """

    layers: tuple[Floats, ...]

    def logits(self, rows: NDArray[Any]) -> Floats:
        """Return each member's, (n_members, n, n_outputs)."""
        rows = np.asarray(rows, np.float64)
        members = range(len(self.layers[0]))
        return np.stack([forward(rows, [part[i] for part in self.layers]) for i in members])

    def with_outputs(self, order: NDArray[np.intp]) -> Networks:
        """Return them with output ``order[k]`` at place k."""
        matrix, bias = self.layers[-2:]
        return Networks((*self.layers[:-2], matrix[..., order], bias[..., order]))

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Return the state as named arrays."""
        return {str(i): part.astype(np.float32) for i, part in enumerate(self.layers)}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Networks:
        """Rebuild them from `to_arrays`."""
        return cls(tuple(arrays[str(i)].astype(np.float64) for i in range(len(arrays))))


class NetworksLearner(Learner):
    """Members that differ by their seed, trained side by side.

    Args:
        rows: (n, d), distinct and in an order of their own; scaled to mean 0 and variance 1 here.
        scores: (n, n_outputs), in [0, 1].
        weights: (n, n_outputs), 0 leaves a cell out; each column sums to 1, or to 0.
        widths: Units of each hidden layer.
        how: The settings; fewer rows than `FEWEST_BATCHES` batches make these smaller.
        members: Number of networks.
        order: (n_outputs,); the model has output ``order[k]`` at place k.
    """

    def __init__(
        self,
        rows: Floats32,
        scores: Floats,
        weights: Floats,
        widths: Sequence[int],
        how: Training,
        members: int,
        order: NDArray[np.intp],
    ) -> None:
        self._order = order
        self._centre = rows.mean(axis=0)
        self._scale = 1 / max(float(np.sqrt(((rows - self._centre) ** 2).mean())), 1e-6)
        scaled = ((rows - self._centre) * np.float32(self._scale)).astype(np.float32)
        targets = scores.astype(np.float32)
        shares = (weights * len(rows)).astype(np.float32)
        few = max(len(rows) // FEWEST_BATCHES, SMALLEST_BATCH)
        own = [how.member(i, min(how.batch_size, few)) for i in range(members)]
        self.networks = [Network(scaled, targets, shares, widths, one) for one in own]

    def epoch(self) -> None:
        """Train each member for one more."""
        for network in self.networks:
            network.epoch()

    def model(self) -> Networks:
        """Return all of them."""
        layers = [network.layers for network in self.networks]
        return _stacked(layers, self._centre, self._scale).with_outputs(self._order)

    def change(self, settings: Mapping[str, Any]) -> None:
        """Use these settings of `Training` from now on."""
        for network in self.networks:
            network.how = replace(network.how, **settings)

    def state(self) -> Arrays:
        """Return each member's."""
        return {
            name: part
            for i, network in enumerate(self.networks)
            for name, part in under(str(i), network.state()).items()
        }

    def restore(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Take over what `state` returned."""
        for i, network in enumerate(self.networks):
            network.restore(within(arrays, str(i)))


def _stacked(several: Sequence[Sequence[Floats32]], centre: Floats32, scale: float) -> Networks:
    """Stack the members, with the scaling of the inputs in their first layer."""
    parts = [np.stack(part).astype(np.float64) for part in zip(*several, strict=True)]
    parts[1] -= scale * (centre.astype(np.float64) @ parts[0])
    parts[0] *= scale
    return Networks(tuple(part.astype(np.float32).astype(np.float64) for part in parts))
