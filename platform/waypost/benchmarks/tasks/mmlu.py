"""MMLU: four-way multiple choice over 57 school and professional subjects.

Data set cais/mmlu, configuration all: 14,042 test, 1,531 validation and 285 dev rows, MIT licence.
Hendrycks et al. 2021, "Measuring Massive Multitask Language Understanding".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from waypost.benchmarks.base import Benchmark, Fields, Row, RowError, Source
from waypost.benchmarks.options import multiple_choice


class MMLU(Benchmark):
    """Questions with four options; ``answer`` is the right option's position from 0."""

    name = "mmlu"
    summary = "MMLU: multiple choice over 57 subjects"
    source = Source("cais/mmlu", "test", ("all",))
    columns: Mapping[str, Any] = {"question": str, "choices": list[str], "answer": int}
    metric = "letter"
    max_tokens = 64

    def question(self, row: Row) -> Fields:
        """Return a prompt that asks for the letter."""
        if not 0 <= row["answer"] < len(row["choices"]):
            last = len(row["choices"]) - 1
            raise RowError("answer", f"is {row['answer']}; expected 0 to {last}")
        return multiple_choice(row["question"], row["choices"], row["answer"])


BENCHMARK = MMLU()
