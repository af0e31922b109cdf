"""ARC-Challenge: school science questions that simple methods get wrong.

Data set allenai/ai2_arc, configuration ARC-Challenge: 1,119 training, 299 validation and 1,172
test rows, CC BY-SA 4.0. Most rows have four options, some three or five, and some label them 1
to 4. Clark et al. 2018.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from waypost.benchmarks.base import Benchmark, Fields, Row, Source
from waypost.benchmarks.options import LABELLED, from_labels


class ARCChallenge(Benchmark):
    """School examination questions with options."""

    name = "arc_challenge"
    summary = "ARC-Challenge: school science, multiple choice"
    source = Source("allenai/ai2_arc", "test", ("ARC-Challenge",))
    columns: Mapping[str, Any] = {"question": str, "choices": LABELLED, "answerKey": str}
    metric = "letter"
    max_tokens = 64

    def question(self, row: Row) -> Fields:
        """Return a prompt that asks for the letter; labels 1 to 4 become A to D."""
        return from_labels(row["question"], row["choices"], row["answerKey"])


BENCHMARK = ARCChallenge()
