"""The questions of a run as an Arrow table in a memory-mapped file."""

from __future__ import annotations

import json
import mmap
import tempfile
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, overload

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from waypost.contracts.questions import Question, iter_splits
from waypost.contracts.tables import SPLITS
from waypost.pipelines.data.calls.requests import digest

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

_CHUNK = 1024
"""Questions held as Python objects at a time; they take several times the memory of their text."""


def question_table(folder: Path) -> pa.Table:
    """Read the questions of a folder, the splits in the order of `SPLITS`.

    The table is memory-mapped from an unnamed file, whose pages the system can drop and reload. The
    file is removed with the table or with the process.

    Raises:
        ConfigError: See `waypost.contracts.questions.iter_splits`.
    """
    rows = (_row(split, question) for split, question in iter_splits(folder))
    with tempfile.TemporaryFile(dir=folder) as file:
        with pa.ipc.new_file(file, QUESTIONS) as writer:
            while part := list(islice(rows, _CHUNK)):
                writer.write_batch(pa.RecordBatch.from_pylist(part, schema=QUESTIONS))
        file.flush()
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    return pa.ipc.open_file(pa.py_buffer(mapped)).read_all()


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


def split_rows(questions: pa.Table) -> dict[str, range]:
    """Return the row range of each split; the rows of a split are contiguous."""
    found, at = {}, 0
    for split in SPLITS:
        count = pc.sum(pc.equal(questions["split"], split)).as_py() or 0
        found[split] = range(at, at + count)
        at += count
    return found


def strata(questions: pa.Table) -> NDArray[np.int64]:
    """Return a number for each row that identifies its split and task."""
    split, task = (_numbers(questions[name]) for name in ("split", "task_name"))
    return split * (int(task.max(initial=0)) + 1) + task


def _numbers(column: pa.ChunkedArray) -> NDArray[np.int64]:
    found: NDArray[np.int32] = pc.index_in(column, value_set=pc.unique(column)).to_numpy()
    return found.astype(np.int64)


class Texts(Sequence[str]):
    """A column of texts as a sequence; texts become strings one at a time."""

    def __init__(self, column: pa.ChunkedArray) -> None:
        self._column = column

    def __len__(self) -> int:
        return len(self._column)

    @overload
    def __getitem__(self, at: int) -> str: ...
    @overload
    def __getitem__(self, at: slice) -> list[str]: ...
    def __getitem__(self, at: int | slice) -> str | list[str]:
        part = self._column[at]
        found: str | list[str] = part.to_pylist() if isinstance(at, slice) else part.as_py()
        return found


def row_key(cell: bytes, question: Mapping[str, Any], scorer_version: str) -> bytes:
    """Return the key of a scored answer: a hash of the answer's key, question and scorer."""
    decides = [cell.hex(), scorer_version]
    decides += [question[key] for key in ("query_id", "metric", "ground_truth", "choices")]
    return digest(decides)
