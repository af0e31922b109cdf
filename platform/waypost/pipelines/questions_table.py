"""The questions of a run as a table: what 100,000 of them take is their text."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa

from waypost.contracts.questions import Question, iter_splits

QUESTIONS = pa.schema(
    [
        ("query_id", pa.string()),
        ("split", pa.string()),
        ("task_name", pa.string()),
        ("query", pa.large_string()),
        ("choices", pa.large_string()),
        ("ground_truth", pa.large_string()),
        ("metric", pa.string()),
        ("max_tokens", pa.int32()),
    ]
)
"""``choices`` and ``ground_truth`` are JSON."""

_CHUNK = 4096
"""Questions that are held as objects at a time: they take several times what their text does."""


def question_table(folder: Path) -> pa.Table:
    """Read the questions of a folder, the splits in the order of `SPLITS`.

    Raises:
        ConfigError: see `waypost.contracts.questions.iter_splits`.
    """
    rows = (_row(split, question) for split, question in iter_splits(folder))
    parts = [QUESTIONS.empty_table()]
    while part := list(islice(rows, _CHUNK)):
        parts.append(pa.Table.from_pylist(part, schema=QUESTIONS))
    return pa.concat_tables(parts).combine_chunks()


def _row(split: str, question: Question) -> dict[str, Any]:
    return {
        "query_id": question.query_id,
        "split": split,
        "task_name": question.task_name,
        "query": question.query,
        "choices": json.dumps(question.choices, ensure_ascii=False),
        "ground_truth": json.dumps(question.ground_truth, ensure_ascii=False),
        "metric": question.metric,
        "max_tokens": question.max_tokens,
    }


def row_key(cell: str, question: Mapping[str, Any], scorer_version: str) -> str:
    """Return the key of a scored answer: of the answer, the question, and how it is scored."""
    decides = [cell, scorer_version]
    decides += [question[key] for key in ("query_id", "metric", "ground_truth", "choices")]
    text = json.dumps(decides, ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]
