"""Trains the graph: part of the queries carry messages, the others' scores are predicted."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from waypost.contracts.routing_data import RoutingData
from waypost_routers._distinct import Distinct
from waypost_routers._graph_data import Graph, build_graph
from waypost_routers._graph_net import Tensors, build_net, tensors
from waypost_routers._graph_state import GraphState
from waypost_routers._memory import nearest

Rows = NDArray[np.float32]

FEWEST = 4
"""With fewer queries there is nothing to learn from: each LLM keeps its mean."""

LARGEST_BATCH, FEWEST_BATCHES, SMALLEST_BATCH = 512, 4, 16
"""Predicted queries in a step; few are cut into so many steps, of at least so many."""

AVERAGED_EPOCHS = 3
"""Weights are used as a moving average over so many epochs, which varies less than any of them."""

_SPARE = 1.5


@dataclass(frozen=True)
class GraphTraining:
    """How the network is trained.

    Attributes:
        hidden: Width of all states.
        k: Neighbours of a query.
        visible: Share of the queries whose edges carry messages, drawn anew in each epoch.
        learning_rate: Of AdamW; falls to 0 as a cosine over the epochs.
        weight_decay: Decoupled.
        dropout: Share of a predicted query's embedding and state left out.
        epochs: Most of them.
        seed: Of weights, draws and dropout.
    """

    hidden: int
    k: int
    visible: float
    learning_rate: float
    weight_decay: float
    dropout: float
    epochs: int
    seed: int


def train_graph(
    data: RoutingData,
    known: Distinct,
    how: GraphTraining,
    epochs: int,
    go_on: Callable[[GraphState], bool] | None = None,
) -> GraphState:
    """Train and return the last state.

    Args:
        data: Training data.
        known: Its distinct questions.
        how: The settings.
        epochs: To train for, at most ``how.epochs``.
        go_on: Sees the state before the first epoch, when every LLM has its mean, and after each,
            and says whether to train on; None is always.
    """
    import torch

    centre = known.rows.mean(axis=0)
    scale = 1 / max(float(np.sqrt(((known.rows - centre) ** 2).mean())), 1e-6)
    graph = build_graph(data, known, (known.rows - centre) * np.float32(scale))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(how.seed)
        fit = _Fit(graph, known, how)
        state = fit.state(known.rows, centre, scale)
        if len(known.rows) < FEWEST or (go_on is not None and not go_on(state)):
            return state
        for epoch in range(epochs):
            fit.epoch()
            if go_on is not None or epoch == epochs - 1:
                state = fit.state(known.rows, centre, scale)
            if go_on is not None and not go_on(state):
                break
    return state


class _Fit:
    def __init__(self, graph: Graph, known: Distinct, how: GraphTraining) -> None:
        import torch

        self.how = how
        self.draw = np.random.default_rng(how.seed)
        self.net = build_net(graph, how.hidden, how.dropout)
        self.graph: Tensors = tensors(graph)
        n = len(known.rows)
        self.n_visible = min(max(round(n * how.visible), 1), n - 1)
        wanted = int(np.ceil(how.k / how.visible * _SPARE))
        found = nearest(known.rows, known.rows, wanted, other_questions_only=True)
        self.found = tuple(
            torch.as_tensor(part)
            for part in (found.index, found.similarity.astype(np.float32), found.share > 0)
        )
        self.scores = torch.as_tensor(known.scores.astype(np.float32))
        self.weights = torch.as_tensor((known.weights * n).astype(np.float32))
        self.optimizer = torch.optim.AdamW(
            self.net.parameters(), lr=how.learning_rate, weight_decay=how.weight_decay
        )
        self.averaged = copy.deepcopy(self.net).eval()
        self.steps, self.an_epoch = 0, len(self._batches(np.arange(n - self.n_visible)))
        total = max(how.epochs * self.an_epoch, 1)
        self.schedule = torch.optim.lr_scheduler.CosineAnnealingLR(self.optimizer, total)

    def _batches(self, predicted: NDArray[np.intp]) -> list[NDArray[np.intp]]:
        size = max(min(LARGEST_BATCH, len(predicted) // FEWEST_BATCHES), SMALLEST_BATCH)
        return np.array_split(predicted, -(-len(predicted) // size) or 1)

    def epoch(self) -> None:
        """Hide the edges of some queries, and predict them in batches."""
        import torch

        self.net.train()
        order = self.draw.permutation(len(self.scores))
        visible = torch.zeros(len(order), dtype=torch.bool)
        visible[order[: self.n_visible]] = True
        for batch in self._batches(order[self.n_visible :]):
            rows = torch.as_tensor(batch)
            index, similarity, there = (part[rows] for part in self.found)
            near = visible[index] & there
            near &= near.cumsum(1) <= self.how.k
            states, llms = self.net.states(self.graph, visible)
            logits = self.net.logits(
                self.graph["queries"][rows], states, llms, index, similarity, near.float()
            )
            loss = torch.nn.functional.binary_cross_entropy_with_logits(
                logits, self.scores[rows], self.weights[rows], reduction="sum"
            )
            self.optimizer.zero_grad()
            torch.autograd.backward(loss / self.scores[rows].numel())
            self.optimizer.step()
            self.schedule.step()
            self._average()

    def _average(self) -> None:
        import torch

        self.steps += 1
        pull = 1 / min(self.steps, AVERAGED_EPOCHS * self.an_epoch)
        pairs = zip(self.averaged.parameters(), self.net.parameters(), strict=True)
        with torch.no_grad():
            for kept, new in pairs:
                kept += pull * (new - kept)

    def state(
        self, rows: NDArray[np.float32], centre: NDArray[np.float32], scale: float
    ) -> GraphState:
        """Precompute everything that does not depend on the query, all training edges visible."""
        import torch

        net = self.averaged
        with torch.no_grad():
            every = torch.ones(len(rows), dtype=torch.bool)
            states, llms = net.states(self.graph, every)
            near = states @ net.near.weight.T
            products = net.output(llms) / self.how.hidden**0.5
            level = net.level(llms)[:, 0] + net.prior
            tau = net.log_tau.exp()
        weight = _array(net.query.weight).T
        projection = (weight * scale).astype(np.float32)
        bias = _array(net.query.bias) + _array(net.near.bias)
        return GraphState(
            memory=rows,
            near=_array(near).astype(np.float32),
            projection=projection,
            bias=bias - centre.astype(np.float64) @ projection.astype(np.float64),
            llms=_array(products),
            level=_array(level),
            tau=_array(tau).reshape(1),
        )


def _array(tensor: Any) -> NDArray[np.float64]:
    return np.asarray(tensor.detach().numpy(), dtype=np.float64)
