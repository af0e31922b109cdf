"""GPQA: graduate-level biology, physics and chemistry questions that a web search does not answer.

Data set Idavidrein/gpqa, configuration gpqa_main: 448 rows in the split train, CC BY 4.0. It is
gated (log in and accept the terms). Its authors ask users not to publish examples in plain text.
Rein et al. 2023.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from waypost.benchmarks.base import Benchmark, Fields, Row, Source
from waypost.benchmarks.options import THEN_LETTER, multiple_choice, shuffled

_WRONG = tuple(f"Incorrect Answer {i}" for i in (1, 2, 3))


class GPQA(Benchmark):
    """Questions with one right and three wrong answers, ordered by their hash."""

    name = "gpqa"
    summary = "GPQA: graduate science, multiple choice"
    source = Source("Idavidrein/gpqa", "train", ("gpqa_main",))
    columns: Mapping[str, Any] = dict.fromkeys(("Question", "Correct Answer", *_WRONG), str)
    metric = "letter"
    max_tokens = 1024

    def question(self, row: Row) -> Fields:
        """Return a prompt that asks for reasoning and a final letter."""
        texts = [row[column].strip() for column in ("Correct Answer", *_WRONG)]
        order = shuffled(texts, row["Question"].strip())
        drawn = [texts[position] for position in order]
        return multiple_choice(row["Question"], drawn, order.index(0), THEN_LETTER)


BENCHMARK = GPQA()
