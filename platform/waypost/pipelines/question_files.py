"""The files of split questions beside their JSONL: a table each, and the report."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from waypost.contracts.questions import Question

REPORT = "queries.json"

_SCHEMA = pa.schema(
    [
        ("query_id", pa.string()),
        ("task_name", pa.string()),
        ("query", pa.large_string()),
        ("choices", pa.large_string()),
        ("ground_truth", pa.large_string()),
        ("metric", pa.string()),
        ("max_tokens", pa.int32()),
        ("version", pa.string()),
    ]
)


def parquet_path(folder: Path, split: str) -> Path:
    """Return the table of one split's questions in a routing-data folder."""
    return folder / f"queries_{split}.parquet"


def write_parquet(path: Path, questions: Sequence[Question]) -> None:
    """Write questions as a table in one step; choices and several truths are JSON text."""
    rows = []
    for one in questions:
        row = one.model_dump()
        row["choices"] = None if one.choices is None else _text(one.choices)
        if not isinstance(one.ground_truth, str):
            row["ground_truth"] = _text(one.ground_truth)
        rows.append(row)
    partial = path.with_suffix(".partial")
    pq.write_table(pa.Table.from_pylist(rows, schema=_SCHEMA), partial)
    partial.replace(path)


def write_report(folder: Path, report: dict[str, Any]) -> None:
    """Write what was taken from where, and how it was split."""
    partial = folder / f".{REPORT}.partial"
    partial.write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    partial.replace(folder / REPORT)


def _text(data: Any) -> str:
    return json.dumps(data, ensure_ascii=False)
