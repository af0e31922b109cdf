"""A small neural network from the query's embedding to each LLM's score."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from waypost.contracts.parameters import Integer, Real
from waypost.contracts.router import QueryBatch
from waypost.contracts.routing_data import RoutingData
from waypost_routers._distinct import Distinct, distinct
from waypost_routers._learned import Floats, HeldOutRouter, embeddings_of
from waypost_routers._logistic import sigmoid
from waypost_routers._mlp import Rows, Training, forward, train
from waypost_routers._stopping import Watch

FEWEST_BATCHES, SMALLEST_BATCH = 16, 16
"""A pass over few rows is cut into so many steps, of at least so many rows."""


@dataclass(frozen=True, eq=False)
class Networks:
    """Networks of one shape, whose logits are averaged.

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

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Return the state as named arrays."""
        return {str(i): part.astype(np.float32) for i, part in enumerate(self.layers)}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Networks:
        """Rebuild them from `to_arrays`."""
        return cls(tuple(arrays[str(i)].astype(np.float64) for i in range(len(arrays))))


class MLPRouter(HeldOutRouter):
    """ReLU layers and a sigmoid for each LLM, trained by cross-entropy on the scores themselves.

    Scores between 0 and 1 are soft targets, unmeasured cells have no part, and several LLMs may
    be right at once. The epochs are chosen on held-out questions: of those that earn as much as
    the best (within one standard error), that of the lowest loss.

    Args:
        hidden: Units of the first hidden layer.
        layers: Hidden layers; each has half the units of the one before.
        learning_rate: Of AdamW; falls to 0 as a cosine over ``epochs``.
        weight_decay: Decoupled.
        dropout: Share of the hidden units left out in each step.
        epochs: Most passes over the questions.
        patience: Passes without a lower held-out loss after which to stop.
        batch_size: Questions in a step, at most; less where there are few.
        members: Networks from different seeds; their logits are averaged.
        seed: Of networks and held-out questions.

    Learned by ``fit``:
        networks_: The members.
        epochs_: Passes that were made.
    """

    name = "mlprouter"
    link = "identity"
    state_parts: ClassVar = {**HeldOutRouter.state_parts, "networks_": Networks}
    parameter_constraints: ClassVar = {
        "hidden": Integer(1, 4096),
        "layers": Integer(1, 4),
        "learning_rate": Real(0, 1, open_low=True),
        "weight_decay": Real(0, 10),
        "dropout": Real(0, 0.9),
        "epochs": Integer(1),
        "patience": Integer(1),
        "batch_size": Integer(1),
        "members": Integer(1, 64),
        "seed": Integer(0),
    }

    networks_: Networks
    epochs_: int

    def __init__(
        self,
        hidden: int = 128,
        layers: int = 2,
        learning_rate: float = 1e-3,
        weight_decay: float = 0.1,
        dropout: float = 0.2,
        epochs: int = 40,
        patience: int = 10,
        batch_size: int = 256,
        members: int = 3,
        seed: int = 0,
    ) -> None:
        self.hidden = hidden
        self.layers = layers
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.dropout = dropout
        self.epochs = epochs
        self.patience = patience
        self.batch_size = batch_size
        self.members = members
        self.seed = seed

    def predict_std(self, batch: QueryBatch) -> Floats:
        """Return by how much the members differ about each LLM's quality, (n_queries, n_llms)."""
        return np.asarray(sigmoid(self.networks_.logits(np.asarray(batch.embeddings))).std(axis=0))

    def _fit(self, data: RoutingData) -> None:
        self.epochs_ = self.epochs
        super()._fit(data)

    def _learn(self, data: RoutingData, held_out: RoutingData | None) -> None:
        known = distinct(data)
        if held_out is None:
            *_, self.networks_ = self._passes(known, self.epochs_)
            return
        watch = Watch(held_out.quality, self.patience)
        kept = []
        for networks in self._passes(known, self.epochs):
            kept.append(networks)
            if not watch.see(sigmoid(networks.logits(embeddings_of(held_out)).mean(axis=0))):
                break
        self.epochs_ = watch.best
        self.networks_ = kept[self.epochs_ - 1]

    def _passes(self, known: Distinct, epochs: int) -> Iterator[Networks]:
        """Train all members side by side; yield them after each of the first ``epochs`` passes."""
        centre = known.rows.mean(axis=0)
        scale = 1 / max(float(np.sqrt(((known.rows - centre) ** 2).mean())), 1e-6)
        rows = ((known.rows - centre) * np.float32(scale)).astype(np.float32)
        scores = known.scores.astype(np.float32)
        weights = (known.weights * len(rows)).astype(np.float32)
        members = [
            train(rows, scores, weights, self._widths, self._training(len(rows), member))
            for member in range(self.members)
        ]
        for _, several in zip(range(epochs), zip(*members, strict=True), strict=False):
            yield _networks(several, centre, scale, known)

    @property
    def _widths(self) -> list[int]:
        return [max(self.hidden >> i, 1) for i in range(self.layers)]

    def _training(self, n_rows: int, member: int) -> Training:
        few = max(n_rows // FEWEST_BATCHES, SMALLEST_BATCH)
        return Training(
            learning_rate=self.learning_rate,
            weight_decay=self.weight_decay,
            dropout=self.dropout,
            batch_size=min(self.batch_size, few),
            epochs=self.epochs,
            seed=self.seed * 64 + member,
        )

    def _raw(self, batch: QueryBatch) -> Floats:
        return sigmoid(self.networks_.logits(np.asarray(batch.embeddings)).mean(axis=0))


def _networks(
    several: Sequence[Sequence[Rows]], centre: Rows, scale: float, known: Distinct
) -> Networks:
    """Stack the members, the scaling of the inputs in the first layer, the LLMs as in the data."""
    stacked = [np.stack(part).astype(np.float64) for part in zip(*several, strict=True)]
    stacked[1] -= np.float64(scale) * (centre.astype(np.float64) @ stacked[0])
    stacked[0] *= scale
    stacked[-2:] = [known.in_data_order(part) for part in stacked[-2:]]
    return Networks(tuple(part.astype(np.float32).astype(np.float64) for part in stacked))
