"""Open questions in the form in which Router-R1 trains and evaluates.

The seven sets of FlashRAG's collection have one schema. Jin et al. 2024 (FlashRAG, CC BY-SA 4.0).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from waypost.benchmarks.base import Benchmark, Fields, Row, RowError, Source

COLLECTION = "RUC-NLPIR/FlashRAG_datasets"
"""The collection on the hub; each set is a configuration of it."""


def accepted_answers(column: str, answers: Sequence[str]) -> list[str]:
    """Return the distinct answers that have text, in their order.

    Args:
        column: Column of the answers, for messages.
        answers: Accepted answers.

    Raises:
        RowError: No answer has text.
    """
    accepted = list(dict.fromkeys(text for text in answers if text.strip()))
    if not accepted:
        raise RowError(column, "is empty; expected at least one accepted answer")
    return accepted


class OpenQA(Benchmark):
    """A set of the collection: the question alone, every accepted answer, exact match."""

    columns: Mapping[str, Any] = {"question": str, "golden_answers": list[str]}
    metric = "exact_match"
    max_tokens = 64

    def __init__(self, name: str, summary: str, split: str) -> None:
        """Describe a set.

        Args:
            name: Its configuration in the collection, and the task's name.
            summary: See `Benchmark`.
            split: The split that is evaluated.
        """
        self.name, self.summary = name, summary
        self.source = Source(COLLECTION, split, (name,))

    def question(self, row: Row) -> Fields:
        """Return the question without a prompt; one without a question mark gets it."""
        query = row["question"].strip()
        if query and not query.endswith("?"):
            query += "?"
        return Fields(query, accepted_answers("golden_answers", row["golden_answers"]))
