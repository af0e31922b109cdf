"""The questions of the bench: all different, of a usual length, and their answer known."""

from __future__ import annotations

import json
from pathlib import Path

MODEL = "bench"
MAX_TOKENS = 16

_STORY = (
    "A train leaves a town in the morning and stops at every station on its way to the coast, "
    "where some passengers get on and some get off; the conductor counts them at each stop and "
    "writes the number down. How many passengers are on board after the last stop but one?"
)


def question(number: int) -> str:
    """Return one of them, 300 characters or so."""
    return f"Question {number}. {_STORY}"


def write_questions(path: Path, count: int) -> None:
    """Write them as a data run reads them (`waypost.contracts.questions`)."""
    with path.open("w", encoding="utf-8") as file:
        for number in range(count):
            row = {
                "query_id": f"q{number}",
                "task_name": "bench",
                "query": question(number),
                "ground_truth": "7",
                "metric": "number",
                "max_tokens": MAX_TOKENS,
            }
            file.write(json.dumps(row) + "\n")
