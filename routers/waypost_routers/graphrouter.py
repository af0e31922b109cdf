"""A graph of training queries, tasks and LLMs, whose states score new queries (GraphRouter)."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from waypost.contracts.parameters import Integer, Real
from waypost.contracts.router import QueryBatch
from waypost.contracts.routing_data import RoutingData
from waypost.contracts.types import Floats
from waypost_routers._graph.fit import GraphLearner, GraphTraining
from waypost_routers._graph.state import GraphState
from waypost_routers._learned import embeddings_of
from waypost_routers._linear.logistic import sigmoid
from waypost_routers._neighbors.memory import nearest, neighbours
from waypost_routers._neural.epochs import HeldOutEpochRouter
from waypost_routers._neural.stopping import Watch
from waypost_routers._shared import distinct


class GraphRouter(HeldOutEpochRouter):
    """Predicts the edges between a query and the LLMs (arXiv 2410.03834).

    Queries and LLMs pass messages both ways over measured scores, gated by score and cost; task
    nodes join the queries of a task where the training data names tasks. While training, part of
    the queries are hidden, with all their edges, and predicted as a new query will be: from its
    own projection and the states of its nearest visible queries. Target is the score itself, by
    masked cross-entropy; cost is the policy's. LLM nodes start from their descriptions and
    training means. After fit all states are fixed: a request costs one projection, a search for
    neighbours and a dot product an LLM, in numpy, and needs no task.

    When to take it:
        Where the LLMs' descriptions say what they are good at, and a fit may take ten times as long
        as another network's. It gains most from tuning.

    Args:
        hidden: Width of all states.
        k: Neighbours through which a query is attached.
        visible: Share of the queries whose edges carry messages in an epoch.
        learning_rate: Of AdamW; falls to 0 as a cosine over ``epochs``.
        weight_decay: Decoupled.
        dropout: Share of a query's embedding and state left out while training.
        epochs: Most draws of visible queries; how many are used is chosen on held-out questions.
        patience: Epochs without a lower held-out error after which to stop.
        seed: Of weights, draws and held-out questions.

    Learned by ``fit``:
        graph_: States of all nodes.
        epochs_: Epochs that were made; 0 where none was better, held out, than the means.
    """

    name = "graphrouter"
    link = "identity"
    changeable_parameters = ("learning_rate", "weight_decay", "dropout")
    new_model_support = "few-shot"
    state_parts: ClassVar = {**HeldOutEpochRouter.state_parts, "graph_": GraphState}
    trial_parameters: ClassVar = {"epochs": 16}
    parameter_constraints: ClassVar = {
        "hidden": Integer(1, 1024),
        "k": Integer(1),
        "visible": Real(0.05, 0.95),
        "learning_rate": Real(0, 1, open_low=True),
        "weight_decay": Real(0, 10),
        "dropout": Real(0, 0.9),
        "epochs": Integer(1),
        "patience": Integer(1),
        "seed": Integer(0),
    }

    graph_: GraphState
    epochs_: int

    def __init__(
        self,
        hidden: int = 32,
        k: int = 64,
        visible: float = 0.7,
        learning_rate: float = 3e-3,
        weight_decay: float = 0.01,
        dropout: float = 0.5,
        epochs: int = 40,
        patience: int = 8,
        seed: int = 0,
    ) -> None:
        self.hidden = hidden
        self.k = k
        self.visible = visible
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.dropout = dropout
        self.epochs = epochs
        self.patience = patience
        self.seed = seed

    def _most_epochs(self, *, judged: bool) -> int:
        return self.epochs

    def _learner(self, data: RoutingData, *, judged: bool) -> GraphLearner:
        how = GraphTraining(
            hidden=self.hidden,
            k=self.k,
            visible=self.visible,
            learning_rate=self.learning_rate,
            weight_decay=self.weight_decay,
            dropout=self.dropout,
            epochs=self.epochs,
            seed=self.seed,
        )
        return GraphLearner(data, distinct(data), how)

    def _judge(self, learner: GraphLearner, held_out: RoutingData) -> Watch:
        rows = embeddings_of(held_out)
        found = nearest(learner.known.rows, rows, self.k)
        watch = Watch(
            held_out.quality,
            self.patience,
            lambda one: sigmoid(one.model().logits(rows, found)),
            before=1,
        )
        # the first state is that before training: nothing learned may be the best there is
        watch.see(learner)
        return watch

    def _take(self, learner: GraphLearner, epochs: int) -> None:
        self.graph_, self.epochs_ = learner.model(), epochs

    def _raw(self, batch: QueryBatch) -> Floats:
        rows = np.asarray(batch.embeddings, np.float32)
        return sigmoid(self.graph_.logits(rows, neighbours(batch, self.graph_.memory, self.k)))
