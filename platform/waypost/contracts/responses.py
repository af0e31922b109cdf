"""The recorded answers of LLMs to questions, kept as they were read from the table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Responses:
    """The answers of m LLMs to n questions.

    Attributes:
        texts: The different answers.
        rows: int32 (n, m), the place of each answer in ``texts``; -1 where there is none.
        metrics: Name of the scorer of each question; "" where unknown.
    """

    texts: pa.StringArray
    rows: NDArray[np.int32]
    metrics: tuple[str, ...]

    def text(self, row: int, column: int) -> str | None:
        """Return the answer of an LLM to a question; None where there is none."""
        place = int(self.rows[row, column])
        return None if place < 0 else str(self.texts[place])

    def of_rows(self, index: NDArray[np.intp]) -> Responses:
        """Return the answers to some questions."""
        metrics = tuple(self.metrics[i] for i in index)
        return Responses(self.texts, self.rows[index], metrics)

    def of_llms(self, columns: Sequence[int]) -> Responses:
        """Return the answers of some LLMs."""
        return Responses(self.texts, self.rows[:, columns], self.metrics)

    def __add__(self, other: Responses) -> Responses:
        """Return the answers to the questions of both, which have the same LLMs."""
        later = np.where(other.rows < 0, -1, other.rows + len(self.texts)).astype(np.int32)
        texts = pa.concat_arrays([self.texts, other.texts])
        rows = np.concatenate([self.rows, later])
        return Responses(texts, rows, self.metrics + other.metrics)

    def columns(self, cells: Sequence[tuple[int, int]]) -> dict[str, list[Any]]:
        """Return the columns ``response`` and ``metric`` of a routing table with these cells."""
        return {
            "response": [self.text(row, column) for row, column in cells],
            "metric": [self.metrics[row] or None for row, _ in cells],
        }


def responses_of(
    table: pa.Table, row_of: NDArray[Any], column_of: NDArray[Any], shape: tuple[int, int]
) -> Responses | None:
    """Return the answers of a routing table; None where it has none.

    Args:
        table: The table.
        row_of: Row of the question of each line.
        column_of: Column of the LLM of each line.
        shape: (n_queries, n_llms).
    """
    if "response" not in table.column_names or table["response"].null_count == len(table):
        return None
    encoded = table["response"].combine_chunks().dictionary_encode()
    rows = np.full(shape, -1, np.int32)
    rows[row_of, column_of] = encoded.indices.fill_null(-1).to_numpy()
    metrics = [""] * shape[0]
    if "metric" in table.column_names:
        for row, metric in zip(row_of.tolist(), table["metric"].to_pylist(), strict=True):
            metrics[row] = metric or metrics[row]
    return Responses(encoded.dictionary, rows, tuple(metrics))
