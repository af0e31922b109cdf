"""The graph of GraphRouter: nodes of queries, LLMs and tasks, and the edges between them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from waypost.contracts.records import LLMInfo
from waypost.contracts.routing_data import RoutingData
from waypost.contracts.types import Floats, Floats32
from waypost.encoders import make_encoder
from waypost_routers._shared import Distinct

WORDS = "hashing+d128+t512"
"""Encoder of descriptions and task names: without weights, identical in every process."""


@dataclass(frozen=True, eq=False)
class Graph:
    """Nodes and edges; queries and LLMs are indexed as in `Distinct`.

    Attributes:
        queries: float32 (n, d), embeddings of mean 0 and variance 1.
        llms: float32 (n_llms, e), see `describe`.
        tasks: float32 (n_tasks, e), no row if the data names no task.
        answered: (2, n_edges): query and LLM of each measured score.
        facts: float32 (n_edges, 2): score minus the LLM's mean; standardized logarithm of the
            call's dollars, 0 if unknown.
        asked: (2, n_members): query and task of each membership.
        mean: (n_llms,) mean scores.
    """

    queries: Floats32
    llms: Floats32
    tasks: Floats32
    answered: NDArray[np.int64]
    facts: Floats32
    asked: NDArray[np.int64]
    mean: Floats


def build_graph(data: RoutingData, known: Distinct, queries: Floats32) -> Graph:
    """Build the graph of training data.

    Args:
        data: Training data with tasks, costs and descriptions.
        known: The distinct questions of the data.
        queries: float32 (n, d), their scaled embeddings.
    """
    mean = (known.scores * known.weights).sum(axis=0)
    usd = _scaled_costs(data, known)
    query, llm = np.nonzero(known.known)
    scores = (known.scores - mean)[query, llm]
    names = sorted({name for name in data.task_names if name})
    number = {name: i for i, name in enumerate(names)}
    pairs = sorted(
        {(int(r), number[t]) for r, t in zip(known.row_of, data.task_names, strict=True) if t}
    )
    return Graph(
        queries=queries,
        llms=describe([data.llms[j] for j in known.columns], mean, np.nan_to_num(usd).mean(axis=0)),
        tasks=make_encoder(WORDS).encode(names) * np.float32(8),
        answered=np.stack([query, llm]).astype(np.int64),
        facts=np.column_stack([scores, np.nan_to_num(usd[query, llm])]).astype(np.float32),
        asked=np.array(pairs, np.int64).reshape(-1, 2).T,
        mean=mean,
    )


def describe(llms: Sequence[LLMInfo], mean: Floats, usd: Floats) -> Floats32:
    """Return the LLMs' node vectors, (n_llms, e): hashed words of their descriptions, statistics.

    Args:
        llms: Names, descriptions, sizes and prices.
        mean: (n_llms,) mean scores.
        usd: (n_llms,) mean scaled logarithms of dollars.
    """
    texts = [
        f"{llm.name} {llm.feature} size {llm.size or 'unknown'} "
        f"price {llm.input_price or 0:g} {llm.output_price or 0:g}"
        for llm in llms
    ]
    # entries of unit vectors are about 0.1: scale the words to the size of the statistics
    words = make_encoder(WORDS).encode(texts) * np.float32(8)
    return np.column_stack([words, mean, usd]).astype(np.float32)


def _scaled_costs(data: RoutingData, known: Distinct) -> Floats:
    """Return standardized logarithms of dollars, (n, n_llms); NaN where none were recorded."""
    logs = np.log(np.maximum(data.cost_usd[:, known.columns], 1e-9))
    there = ~np.isnan(logs)
    counts, sums = np.zeros(known.scores.shape), np.zeros(known.scores.shape)
    np.add.at(counts, known.row_of, there)
    np.add.at(sums, known.row_of, np.where(there, logs, 0.0))
    means = np.divide(sums, counts, out=np.full(sums.shape, np.nan), where=counts > 0)
    if not there.any():
        return np.asarray(means)
    spread = float(np.nanstd(means))
    return np.asarray((means - np.nanmean(means)) / (spread if spread > 1e-9 else 1.0))
