"""Small routing data written by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from waypost.contracts.records import LLMInfo
from waypost.contracts.routing_data import RoutingData


def outcomes(
    scores: Mapping[str, Sequence[float | None]],
    *,
    facts: Mapping[str, Mapping[str, Any]] | None = None,
    vectors: Sequence[Sequence[float]] | None = None,
    output_tokens: Mapping[str, Sequence[float | None]] | None = None,
    cost_usd: Mapping[str, Sequence[float | None]] | None = None,
) -> RoutingData:
    """Return routing data for an example worked by hand.

    Args:
        scores: LLM name -> score of each query; None is a missing score.
        facts: LLM name -> facts, as in ``llms.json``.
        vectors: Query embeddings; they are scaled to unit length.
        output_tokens: Like ``scores``; missing by default.
        cost_usd: Like ``scores``; missing by default.

    Returns:
        Data of queries ``q0``, ``q1``, ..., with ten characters each.
    """
    n = len(next(iter(scores.values())))
    data = RoutingData(
        query_ids=tuple(f"q{i}" for i in range(n)),
        queries=tuple(f"query {i:04d}" for i in range(n)),
        task_names=("",) * n,
        llms=tuple(LLMInfo(name=name, **(facts or {}).get(name, {})) for name in scores),
        quality=_matrix(scores, scores, n),
        input_tokens=_matrix({}, scores, n),
        output_tokens=_matrix(output_tokens or {}, scores, n),
        cost_usd=_matrix(cost_usd or {}, scores, n),
        latency_s=_matrix({}, scores, n),
    )
    if vectors is None:
        return data
    rows = np.array(vectors, dtype=np.float64)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return data.with_embeddings(rows.astype(np.float32), "by-hand")


def _matrix(
    values: Mapping[str, Sequence[float | None]], names: Mapping[str, Any], n: int
) -> np.ndarray[Any, np.dtype[np.float64]]:
    columns = [values.get(name, [None] * n) for name in names]
    return np.array([[np.nan if v is None else v for v in column] for column in columns]).T.reshape(
        n, len(columns)
    )
