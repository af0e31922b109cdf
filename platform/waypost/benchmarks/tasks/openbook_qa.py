"""OpenBookQA: elementary science questions that need one step beyond the facts of a book.

Data set allenai/openbookqa, configuration main: 4,957 training, 500 validation and 500 test rows;
the hub lists no licence. The configuration additional has the same columns and more. Mihaylov et
al. 2018.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from waypost.benchmarks.base import Benchmark, Fields, Row, Source
from waypost.benchmarks.options import LABELLED, from_labels


class OpenBookQA(Benchmark):
    """Question stems, often the first half of a sentence, with four endings."""

    name = "openbook_qa"
    summary = "OpenBookQA: elementary science, four options"
    source = Source("allenai/openbookqa", "test", ("main",))
    columns: Mapping[str, Any] = {"question_stem": str, "choices": LABELLED, "answerKey": str}
    metric = "letter"
    max_tokens = 64

    def question(self, row: Row) -> Fields:
        """Return a prompt that asks for the letter."""
        return from_labels(row["question_stem"], row["choices"], row["answerKey"])


BENCHMARK = OpenBookQA()
