"""Training of the graph: some queries carry messages, the scores of the others are predicted."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from waypost.contracts.epochs import Arrays, random_state, set_random_state
from waypost.contracts.routing_data import RoutingData
from waypost_routers._graph.data import build_graph
from waypost_routers._graph.net import Tensors, build_net, tensors
from waypost_routers._graph.state import GraphState
from waypost_routers._neighbors.memory import nearest
from waypost_routers._neural.epochs import (
    Learner,
    module_arrays,
    optimizer_arrays,
    restore_module,
    restore_optimizer,
    under,
    within,
)
from waypost_routers._shared import Distinct

FEWEST = 4
"""Minimum number of queries to train on; with fewer, each LLM keeps its mean."""

LARGEST_BATCH, FEWEST_BATCHES, SMALLEST_BATCH = 512, 4, 16
"""Limits of the predicted queries per step and of the steps per epoch; the smallest batch wins."""

AVERAGED_EPOCHS = 3
"""Epochs in the moving average of the weights, which has less variance than single weights."""

_SPARE = 1.5


@dataclass(frozen=True)
class GraphTraining:
    """Training settings of the network.

    Attributes:
        hidden: Width of all states.
        k: Number of neighbours of a query.
        visible: Share of the queries whose edges carry messages, drawn anew in each epoch.
        learning_rate: Initial learning rate of AdamW; falls to 0 as a cosine over the epochs.
        weight_decay: Decoupled weight decay.
        dropout: Share of a predicted query's embedding and state dropped.
        epochs: Maximum number of epochs.
        seed: Seed of weights, draws and dropout.
    """

    hidden: int
    k: int
    visible: float
    learning_rate: float
    weight_decay: float
    dropout: float
    epochs: int
    seed: int


class GraphLearner(Learner):
    """A graph in training, with its own torch generator.

    Args:
        data: Training data.
        known: The distinct questions of the data.
        how: The settings.
    """

    def __init__(self, data: RoutingData, known: Distinct, how: GraphTraining) -> None:
        import torch

        self.how, self.known = how, known
        self._centre = known.rows.mean(axis=0)
        self._scale = 1 / max(float(np.sqrt(((known.rows - self._centre) ** 2).mean())), 1e-6)
        graph = build_graph(data, known, (known.rows - self._centre) * np.float32(self._scale))
        self._draw = np.random.default_rng(how.seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(how.seed)
            self.net = build_net(graph, how.hidden, how.dropout)
            self._random = torch.get_rng_state()
        self._graph: Tensors = tensors(graph)
        n = len(known.rows)
        self.n_visible = min(max(round(n * how.visible), 1), n - 1)
        wanted = int(np.ceil(how.k / how.visible * _SPARE))
        found = nearest(known.rows, known.rows, wanted, other_questions_only=True)
        self._found = tuple(
            torch.as_tensor(part)
            for part in (found.index, found.similarity.astype(np.float32), found.share > 0)
        )
        self._scores = torch.as_tensor(known.scores.astype(np.float32))
        self._weights = torch.as_tensor((known.weights * n).astype(np.float32))
        self._optimizer = torch.optim.AdamW(
            self.net.parameters(), lr=how.learning_rate, weight_decay=how.weight_decay
        )
        self.averaged = copy.deepcopy(self.net).eval()
        self._steps, self._an_epoch = 0, len(self._batches(np.arange(n - self.n_visible)))
        total = max(how.epochs * self._an_epoch, 1)
        self._schedule = torch.optim.lr_scheduler.CosineAnnealingLR(self._optimizer, total)
        self._order = np.argsort(known.columns)

    def _batches(self, predicted: NDArray[np.intp]) -> list[NDArray[np.intp]]:
        size = max(min(LARGEST_BATCH, len(predicted) // FEWEST_BATCHES), SMALLEST_BATCH)
        return np.array_split(predicted, -(-len(predicted) // size) or 1)

    def epoch(self) -> None:
        """Train for one more epoch: hide the edges of some queries and predict them in batches."""
        import torch

        if len(self.known.rows) < FEWEST:
            return
        with torch.random.fork_rng(devices=[]):
            torch.set_rng_state(self._random)
            self._pass()
            self._random = torch.get_rng_state()

    def _pass(self) -> None:
        import torch

        self.net.train()
        order = self._draw.permutation(len(self._scores))
        visible = torch.zeros(len(order), dtype=torch.bool)
        visible[order[: self.n_visible]] = True
        for batch in self._batches(order[self.n_visible :]):
            rows = torch.as_tensor(batch)
            index, similarity, there = (part[rows] for part in self._found)
            near = visible[index] & there
            near &= near.cumsum(1) <= self.how.k
            states, llms = self.net.states(self._graph, visible)
            logits = self.net.logits(
                self._graph["queries"][rows], states, llms, index, similarity, near.float()
            )
            loss = torch.nn.functional.binary_cross_entropy_with_logits(
                logits, self._scores[rows], self._weights[rows], reduction="sum"
            )
            self._optimizer.zero_grad()
            torch.autograd.backward(loss / self._scores[rows].numel())
            self._optimizer.step()
            self._schedule.step()
            self._average()

    def _average(self) -> None:
        import torch

        self._steps += 1
        pull = 1 / min(self._steps, AVERAGED_EPOCHS * self._an_epoch)
        pairs = zip(self.averaged.parameters(), self.net.parameters(), strict=True)
        with torch.no_grad():
            for kept, new in pairs:
                kept += pull * (new - kept)

    def model(self) -> GraphState:
        """Return everything that does not depend on the query, with all training edges visible."""
        import torch

        net, rows = self.averaged, self.known.rows
        with torch.no_grad():
            every = torch.ones(len(rows), dtype=torch.bool)
            states, llms = net.states(self._graph, every)
            near = states @ net.near.weight.T
            products = net.output(llms) / self.how.hidden**0.5
            level = net.level(llms)[:, 0] + net.prior
            tau = net.log_tau.exp()
        weight = _array(net.query.weight).T
        projection = (weight * self._scale).astype(np.float32)
        bias = _array(net.query.bias) + _array(net.near.bias)
        return GraphState(
            memory=rows,
            near=_array(near).astype(np.float32),
            projection=projection,
            bias=bias - self._centre.astype(np.float64) @ projection.astype(np.float64),
            llms=_array(products),
            level=_array(level),
            tau=_array(tau).reshape(1),
        ).in_order(self._order)

    def change(self, settings: Mapping[str, Any]) -> None:
        """Set these settings of `GraphTraining` for later epochs; the cosine schedule continues."""
        before, self.how = self.how, replace(self.how, **settings)
        self.net.dropout = self.how.dropout
        for group in self._optimizer.param_groups:
            group["weight_decay"] = self.how.weight_decay
        if self.how.learning_rate == before.learning_rate:
            return
        self._schedule.base_lrs = [self.how.learning_rate]
        for group in self._optimizer.param_groups:
            begun = group["lr"] * (self.how.learning_rate / before.learning_rate)
            group["lr"] = begun if self._steps else self.how.learning_rate

    def state(self) -> Arrays:
        """Return the training state as named arrays."""
        return {
            "steps": np.array([self._steps]),
            "random": random_state(self._draw),
            "torch": self._random.numpy().copy(),
            **under("net", module_arrays(self.net)),
            **under("averaged", module_arrays(self.averaged)),
            **under("adam", optimizer_arrays(self._optimizer)),
        }

    def restore(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Set the state from the arrays of `state`."""
        import torch

        restore_module(self.net, within(arrays, "net"))
        restore_module(self.averaged, within(arrays, "averaged"))
        restore_optimizer(self._optimizer, within(arrays, "adam"))
        self._steps = int(arrays["steps"][0])
        self._schedule.last_epoch = self._steps
        set_random_state(self._draw, arrays["random"])
        self._random = torch.as_tensor(arrays["torch"])


def _array(tensor: Any) -> NDArray[np.float64]:
    return np.asarray(tensor.detach().numpy(), dtype=np.float64)
