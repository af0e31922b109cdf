"""Predict each LLM's score by a small neural network on the query's embedding.

RouterBench (arXiv 2403.12031) regresses the scores with such a network.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from waypost.contracts.parameters import Integer, Real
from waypost.contracts.router import QueryBatch
from waypost.contracts.routing_data import RoutingData
from waypost.contracts.types import Floats
from waypost_routers._learned import embeddings_of
from waypost_routers._linear.logistic import sigmoid
from waypost_routers._neural.epochs import HeldOutEpochRouter
from waypost_routers._neural.networks import Networks, NetworksLearner, Training
from waypost_routers._neural.stopping import Watch
from waypost_routers._shared import distinct


class MLPRouter(HeldOutEpochRouter):
    """A network with ReLU layers and one sigmoid output per LLM, trained by cross-entropy.

    The targets are the scores, as soft labels, so several LLMs may be right at once. Unmeasured
    cells are masked. The number of epochs is chosen on held-out questions: among the epochs whose
    choices score within one standard error of the best, the one with the lowest loss.

    When to take it:
        With thousands of questions: the time of a decision does not depend on their number.

    Args:
        hidden: Units of the first hidden layer.
        layers: Number of hidden layers; each has half the units of the one before.
        learning_rate: Initial learning rate of AdamW; falls to 0 as a cosine over ``epochs``.
        weight_decay: Decoupled weight decay of the weight matrices.
        dropout: Share of the hidden units dropped in each step.
        epochs: Maximum number of passes over the questions.
        patience: Passes without a lower held-out loss before training stops.
        batch_size: Maximum number of questions in a step; fewer for small training sets.
        members: Number of networks, trained from different seeds; their logits are averaged.
        seed: Seed of the networks and the held-out questions.

    Learned by ``fit``:
        networks_: The trained networks.
        epochs_: Number of passes trained.
    """

    name = "mlprouter"
    link = "identity"
    changeable_parameters = ("learning_rate", "weight_decay", "dropout")
    state_parts: ClassVar = {**HeldOutEpochRouter.state_parts, "networks_": Networks}
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
        """Return the members' standard deviation of each LLM's quality, (n_queries, n_llms)."""
        return np.asarray(sigmoid(self.networks_.logits(np.asarray(batch.embeddings))).std(axis=0))

    def _most_epochs(self, *, judged: bool) -> int:
        return self.epochs

    def _learner(self, data: RoutingData, *, judged: bool) -> NetworksLearner:
        known = distinct(data)
        how = Training(
            learning_rate=self.learning_rate,
            weight_decay=self.weight_decay,
            dropout=self.dropout,
            batch_size=self.batch_size,
            epochs=self.epochs,
            seed=self.seed,
        )
        widths = [max(self.hidden >> i, 1) for i in range(self.layers)]
        order = np.argsort(known.columns)
        return NetworksLearner(
            known.rows, known.scores, known.weights, widths, how, self.members, order
        )

    def _judge(self, learner: NetworksLearner, held_out: RoutingData) -> Watch:
        rows = embeddings_of(held_out)
        return Watch(held_out.quality, self.patience, lambda one: _scores(one.model(), rows))

    def _take(self, learner: NetworksLearner, epochs: int) -> None:
        self.networks_, self.epochs_ = learner.model(), epochs

    def _raw(self, batch: QueryBatch) -> Floats:
        return _scores(self.networks_, np.asarray(batch.embeddings))


def _scores(networks: Networks, rows: NDArray[Any]) -> Floats:
    return sigmoid(networks.logits(rows).mean(axis=0))
