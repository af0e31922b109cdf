"""Training data in a canonical form, independent of row order, LLM order and duplicate rows.

Iterative fits amplify rounding. With the same numbers in the same order they repeat exactly, so
that a permuted pool or duplicated rows do not change the result.
"""

from __future__ import annotations

import hashlib
import warnings
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from waypost.contracts.routing_data import RoutingData
from waypost.contracts.types import Floats


@dataclass(frozen=True, eq=False)
class Distinct:
    """Sorted distinct embeddings with their scores; LLMs are columns, sorted by name.

    Attributes:
        rows: float32 (n, d).
        scores: (n, n_llms), mean measured score; 0 where not measured.
        weights: (n, n_llms), share of the LLM's measured cells in this row; each column sums to 1.
        columns: (n_llms,), the data's column of each LLM here.
        row_of: (n_data,), the row here of each row of the data.
    """

    rows: NDArray[np.float32]
    scores: Floats
    weights: Floats
    columns: NDArray[np.intp]
    row_of: NDArray[np.intp]

    @property
    def known(self) -> NDArray[np.bool_]:
        """Whether a score was measured, (n, n_llms)."""
        return self.weights > 0

    def in_data_order(self, values: Floats) -> Floats:
        """Return ``values`` with its last axis, the LLMs, in the order of the data's columns."""
        ordered = np.empty_like(values)
        ordered[..., self.columns] = values
        return ordered


def distinct(data: RoutingData) -> Distinct:
    """Merge rows of equal embeddings, sort them, and sort the LLMs by name.

    Args:
        data: With embeddings; each LLM has at least one score.
    """
    assert data.embeddings is not None
    columns = np.array(sorted(range(len(data.llms)), key=lambda j: data.names[j]), np.intp)
    quality = data.quality[:, columns]
    rows, row_of = np.unique(data.embeddings, axis=0, return_inverse=True)
    row_of = row_of.reshape(-1)
    shape = (len(rows), len(columns))
    counts, sums = np.zeros(shape), np.zeros(shape)
    np.add.at(counts, row_of, ~np.isnan(quality))
    np.add.at(sums, row_of, np.nan_to_num(quality))
    return Distinct(
        rows=np.ascontiguousarray(rows, np.float32),
        scores=sums / np.maximum(counts, 1),
        weights=counts / counts.sum(axis=0),
        columns=columns,
        row_of=row_of,
    )


def sample(data: RoutingData, limit: int | None, seed: int) -> RoutingData:
    """Return one row for each text, in an order drawn by text and seed.

    Duplicates of a text are averaged, so the result depends neither on the order of the rows nor
    on the number of duplicates.

    Args:
        data: Routing data.
        limit: Maximum number of rows; None is no limit.
        seed: Seed of the draw.
    """
    rows: dict[str, list[int]] = {}
    for i, text in enumerate(data.queries):
        rows.setdefault(text, []).append(i)
    texts = sorted(rows, key=lambda text: draw(seed, text))[:limit]
    chosen = data.select([rows[text][0] for text in texts])
    if all(len(rows[text]) == 1 for text in texts):
        return chosen
    columns: dict[str, Any] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # the mean of only NaN is NaN, as intended
        for name in ("quality", "input_tokens", "output_tokens", "cost_usd", "latency_s"):
            values = getattr(data, name)
            columns[name] = np.array([np.nanmean(values[rows[text]], axis=0) for text in texts])
    return replace(chosen, **columns)


def draw(seed: int, text: str) -> tuple[bytes, str]:
    """Return a pseudorandom sort key of seed and text."""
    content = f"{seed}\x1f{text}".encode("utf-8", "surrogatepass")
    return hashlib.blake2b(content, digest_size=16).digest(), text


def contrasts(values: Floats, known: NDArray[np.bool_]) -> Floats:
    """Subtract each row's mean over its known cells; 0 where not known.

    Args:
        values: (n, n_llms).
        known: (n, n_llms).
    """
    kept = np.where(known, values, 0.0)
    mean = kept.sum(axis=1, keepdims=True) / np.maximum(known.sum(axis=1, keepdims=True), 1)
    return np.where(known, kept - mean, 0.0)


def contrast_error(predicted: Floats, quality: Floats) -> float:
    """Return the mean squared error of the differences to each question's mean.

    Args:
        predicted: (n, n_llms), finite.
        quality: (n, n_llms), NaN where not measured; those cells are left out.
    """
    known = ~np.isnan(quality)
    error = contrasts(predicted, known) - contrasts(quality, known)
    return float((error**2).sum() / max(known.sum(), 1))
