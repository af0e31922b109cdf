"""GSM8K: grade-school word problems of two to eight steps.

Data set openai/gsm8k, configuration main: 7,473 training and 1,319 test rows, MIT licence. The
answer is a worked solution whose last line is ``#### `` and the number. Cobbe et al. 2021.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from waypost.benchmarks.base import Benchmark, Fields, Row, RowError, Source

_FINAL = re.compile(r"####\s*(-?[\d,]*\.?\d+)\s*\Z")


class GSM8K(Benchmark):
    """Word problems; the ground truth is the final number without thousands separators."""

    name = "gsm8k"
    summary = "GSM8K: grade-school word problems"
    source = Source("openai/gsm8k", "test", ("main",))
    columns: Mapping[str, Any] = {"question": str, "answer": str}
    metric = "number"
    max_tokens = 512

    def question(self, row: Row) -> Fields:
        """Return a prompt that asks for the steps and a final line with the number."""
        final = _FINAL.search(row["answer"])
        if final is None:
            raise RowError("answer", "does not end in '#### ' and a number")
        ask = "Work it out step by step, then end with a line that gives only the final number, "
        query = f"{row['question'].strip()}\n{ask}as in: The answer is N."
        return Fields(query, final[1].replace(",", ""))


BENCHMARK = GSM8K()
