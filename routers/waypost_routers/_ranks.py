"""Scores for routers whose rule orders the LLMs without looking at the query."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from waypost.contracts.errors import SchemaError, names
from waypost.contracts.records import LLMInfo

logger = logging.getLogger(__name__)


def scores_by_rank(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Turn an order into quality scores.

    Args:
        values: (n_llms,), lower is better, NaN where unknown.

    Returns:
        (n_llms,): the v distinct known values get 1, (v-1)/v, ..., 1/v and equal values one
        score, so that the policy breaks the tie (the cheaper, then the lower name); unknown
        ones get 0 and are chosen only where nothing else is allowed.
    """
    known = ~np.isnan(values)
    distinct, place = np.unique(values[known], return_inverse=True)
    scores = np.zeros(len(values))
    scores[known] = 1.0 - place / max(len(distinct), 1)
    return scores


def sizes(llms: Sequence[LLMInfo], router: str) -> NDArray[np.float64]:
    """Return total parameters in billions, (n_llms,); NaN, and a warning, where unknown.

    Raises:
        SchemaError: no size is known at all.
    """
    values = np.array([np.nan if llm.size_b is None else llm.size_b for llm in llms])
    if np.isnan(values).all():
        raise SchemaError(
            f"{router}: no LLM has a size (such as 7B or 8x22B) in llms.json; add sizes, or take "
            "cheapest_llm, which goes by price"
        )
    if unknown := [llm.name for llm, value in zip(llms, values, strict=True) if np.isnan(value)]:
        logger.warning("%s: size unknown, never preferred: %s", router, names(unknown))
    return values


def rows_of(values: NDArray[np.float64], n_queries: int) -> NDArray[np.float64]:
    """Repeat one row of scores for each query, shape (n_queries, n_llms)."""
    return np.repeat(values[None, :], n_queries, axis=0)
