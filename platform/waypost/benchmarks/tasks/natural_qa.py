"""Natural Questions, open version: questions to a search engine, with short answers.

Data set google-research-datasets/nq_open, 87,925 training and 3,610 validation rows, CC BY-SA
3.0. Kwiatkowski et al. 2019 (Natural Questions), Lee et al. 2019 (the open version).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from waypost.benchmarks.base import Benchmark, Fields, Row, Source
from waypost.benchmarks.open_qa import accepted_answers


class NaturalQA(Benchmark):
    """Questions as users typed them, in lower case and without a question mark."""

    name = "natural_qa"
    summary = "Natural Questions: search-engine questions with short answers"
    source = Source("google-research-datasets/nq_open", "validation", ("nq_open",))
    columns: Mapping[str, Any] = {"question": str, "answer": list[str]}
    metric = "short_answer"
    max_tokens = 64

    def question(self, row: Row) -> Fields:
        """Return a prompt that asks for a few words; each annotator's answer is accepted."""
        accepted = accepted_answers("answer", row["answer"])
        return Fields(f"{row['question'].strip()}\nAnswer in a few words.", accepted)


BENCHMARK = NaturalQA()
