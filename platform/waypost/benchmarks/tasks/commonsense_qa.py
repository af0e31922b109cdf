"""CommonsenseQA: everyday questions with five options.

Data set tau/commonsense_qa: 9,741 training and 1,221 validation rows, MIT licence; the test split
holds no answers. Talmor et al. 2019.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from waypost.benchmarks.base import Benchmark, Fields, Row, Source
from waypost.benchmarks.options import LABELLED, from_labels


class CommonsenseQA(Benchmark):
    """Questions about everyday concepts."""

    name = "commonsense_qa"
    summary = "CommonsenseQA: everyday knowledge, five options"
    source = Source("tau/commonsense_qa", "validation")
    columns: Mapping[str, Any] = {"question": str, "choices": LABELLED, "answerKey": str}
    metric = "letter"
    max_tokens = 64

    def question(self, row: Row) -> Fields:
        """Return a prompt that asks for the letter."""
        return from_labels(row["question"], row["choices"], row["answerKey"])


BENCHMARK = CommonsenseQA()
