"""Score queries by a graph network over training queries, tasks and LLMs (GraphRouter)."""

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
    """A graph neural network that predicts the edges between a query and the LLMs.

    The method is GraphRouter (arXiv 2410.03834). Queries and LLMs exchange messages over measured
    scores, gated by score and cost. Task nodes connect the queries of a task if the training data
    names tasks. In each epoch a part of the queries is hidden with all its edges, and predicted
    like new queries: from the query's projection and the states of its nearest visible queries.
    The targets are the scores, by masked cross-entropy; the policy applies the cost. LLM nodes
    start from descriptions and training means. After fit all states are fixed: a request costs a
    projection, a neighbour search and one dot product per LLM, in numpy, and needs no task.

    When to take it:
        When the LLMs' descriptions state what they are good at, and a fit may take ten times as
        long as mlprouter's. It gains most from tuning.

    Args:
        hidden: Width of all states.
        k: Number of nearest training queries that a query is attached to.
        visible: Share of the queries whose edges carry messages in an epoch.
        learning_rate: Initial learning rate of AdamW; falls to 0 as a cosine over ``epochs``.
        weight_decay: Decoupled weight decay.
        dropout: Share of a query's embedding and state dropped in training.
        epochs: Maximum number of epochs; the number used is chosen on held-out questions.
        patience: Epochs without a lower held-out error before training stops.
        seed: Seed of weights, draws and held-out questions.

    Learned by ``fit``:
        graph_: States of all nodes.
        epochs_: Number of epochs trained; 0 if none beat the training means on held-out questions.
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
        # the untrained state is a candidate, too: it predicts the training means
        watch.see(learner)
        return watch

    def _take(self, learner: GraphLearner, epochs: int) -> None:
        self.graph_, self.epochs_ = learner.model(), epochs

    def _raw(self, batch: QueryBatch) -> Floats:
        rows = np.asarray(batch.embeddings, np.float32)
        return sigmoid(self.graph_.logits(rows, neighbours(batch, self.graph_.memory, self.k)))
