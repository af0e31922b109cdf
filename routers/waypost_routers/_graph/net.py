"""The network of GraphRouter (arXiv 2410.03834), in torch-geometric; used while fitting only."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from waypost.contracts.errors import MissingExtraError
from waypost_routers._graph.data import Graph

Tensors = dict[str, Any]


def tensors(graph: Graph) -> Tensors:
    """Return the graph's arrays as tensors, by name."""
    import torch

    return {key: torch.as_tensor(np.ascontiguousarray(v)) for key, v in vars(graph).items()}


def message_passing() -> Any:
    """Return torch-geometric's base class of graph convolutions.

    Raises:
        MissingExtraError: torch-geometric is not installed.
    """
    try:
        with warnings.catch_warnings():
            # its import compiles helpers by torch.jit, which newer versions of torch deprecate
            warnings.filterwarnings("ignore", "`torch.jit.script`", DeprecationWarning)
            from torch_geometric.nn.conv import MessagePassing
    except ImportError as error:
        raise MissingExtraError(error.name or "torch_geometric", "train") from None
    return MessagePassing


def build_net(graph: Graph, hidden: int, dropout: float) -> Any:
    """Build the network; its weights are drawn from torch's generator.

    Messages pass both ways between queries and LLMs, gated by the features of the edge, and through
    tasks between queries of one task. A new query receives a weighted mean of its nearest training
    queries' states; its score for an LLM is the dot product of their states.

    Raises:
        MissingExtraError: torch-geometric is not installed.
    """
    import torch
    from torch import nn

    base: Any = message_passing()

    class Gated(base):  # type: ignore[misc]
        """Mean of the neighbours' states, each multiplied by a linear map of the edge features."""

        def __init__(self) -> None:
            super().__init__(aggr="mean")
            self.turn = nn.Linear(hidden, hidden, bias=False)
            self.gate = nn.Linear(graph.facts.shape[1], hidden)

        def forward(self, states: Any, edges: Any, facts: Any, size: tuple[int, int]) -> Any:
            gates = self.gate(facts)
            return self.propagate(edges, x=(self.turn(states), None), gates=gates, size=size)

        def message(self, x_j: Any, gates: Any) -> Any:
            return x_j * gates

    class Mean(base):  # type: ignore[misc]
        """Mean of the neighbours' states."""

        def __init__(self) -> None:
            super().__init__(aggr="mean")

        def forward(self, states: Any, edges: Any, size: tuple[int, int]) -> Any:
            return self.propagate(edges, x=(states, None), size=size)

        def message(self, x_j: Any) -> Any:
            return x_j

    class Net(nn.Module):
        """States of the training graph (`states`), and scores of queries outside it (`logits`)."""

        def __init__(self) -> None:
            super().__init__()
            self.dropout = dropout
            self.query = nn.Linear(graph.queries.shape[1], hidden)
            self.llm = nn.Linear(graph.llms.shape[1], hidden)
            self.task = nn.Linear(graph.tasks.shape[1], hidden)
            self.to_llm, self.to_query, self.mean = Gated(), Gated(), Mean()
            self.of_task = nn.Linear(hidden, hidden, bias=False)
            self.to_task = nn.Linear(hidden, hidden, bias=False)
            self.near = nn.Linear(hidden, hidden)
            self.output = nn.Linear(hidden, hidden)
            self.level = nn.Linear(hidden, 1, bias=False)
            # zeros: before the first step every score is its LLM's mean
            for start in (self.level.weight, self.output.weight, self.output.bias):
                nn.init.zeros_(start)
            self.log_tau = nn.Parameter(torch.tensor(float(np.log(0.1))))
            rate = np.clip(graph.mean, 0.01, 0.99)
            logits = torch.as_tensor(np.log(rate / (1 - rate)), dtype=torch.float32)
            self.register_buffer("prior", logits)

        def states(self, g: Tensors, visible: Any) -> tuple[Any, Any]:
            """Return states of queries and LLMs; only visible queries' edges carry messages."""
            n, m, t = len(g["queries"]), len(g["llms"]), len(g["tasks"])
            kept = visible[g["answered"][0]]
            edges, facts = g["answered"][:, kept], g["facts"][kept]
            queries = self.query(g["queries"])
            llms = self.llm(g["llms"]) + self.to_llm(queries, edges, facts, (n, m))
            llms = torch.relu(llms)
            own = queries + self.to_query(llms, edges.flip(0), facts, (m, n))
            if t:
                members = g["asked"][:, visible[g["asked"][0]]]
                tasks = self.task(g["tasks"]) + self.to_task(self.mean(queries, members, (n, t)))
                own = own + self.of_task(self.mean(torch.relu(tasks), members.flip(0), (t, n)))
            return torch.relu(own), llms

        def logits(
            self, rows: Any, states: Any, llms: Any, index: Any, similarity: Any, share: Any
        ) -> Any:
            """Score rows (b, d) with neighbours ``index`` (b, k); ``share`` is 0 for padding."""
            far = torch.where(share > 0, similarity, torch.full_like(similarity, -2.0))
            weights = torch.exp((far - far.max(1, keepdim=True).values) / self.log_tau.exp())
            weights = weights * share
            weights = weights / weights.sum(1, keepdim=True).clamp(min=1e-9)
            near = (states[index] * weights[:, :, None]).sum(1)
            rows = nn.functional.dropout(rows, self.dropout, self.training)
            state = torch.relu(self.query(rows) + self.near(near))
            state = nn.functional.dropout(state, self.dropout, self.training)
            products = state @ self.output(llms).T / hidden**0.5
            return products + self.level(llms)[:, 0] + self.prior

    return Net()
