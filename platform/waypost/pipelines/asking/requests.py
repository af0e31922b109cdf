"""What is asked: a table of requests, each with the key that its answer is found again by."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

import pyarrow as pa

from waypost.pipelines.data_config import Candidate

REQUESTS = pa.schema(
    [
        ("key", pa.string()),
        ("item", pa.int64()),
        ("prompt", pa.large_string()),
        ("max_tokens", pa.int32()),
        ("temperature", pa.float64()),
        ("top_p", pa.float64()),
        ("seed", pa.int64()),
    ]
)
"""``key`` is the cell id; ``item`` is the asker's own number, of a question or of an answer."""

REQUEST_COLUMNS = ("key", "prompt", "max_tokens", "temperature", "top_p", "seed")

_CHUNK = 4096


def cell_id(name: str, candidate: Candidate, request: Mapping[str, Any]) -> str:
    """Return the key of an answer: a hash of model, revision, prompt, sampling and seed.

    Args:
        name: Of the LLM, where its config names no model.
        candidate: The LLM.
        request: Columns of `REQUESTS`.
    """
    decides = {
        "engine": candidate.engine,
        "model": candidate.config.get("model", name),
        "revision": candidate.revision or candidate.config.get("revision"),
        **{column: request[column] for column in REQUEST_COLUMNS[1:]},
    }
    text = json.dumps(decides, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def request_table(rows: Iterable[Mapping[str, Any]]) -> pa.Table:
    """Make the table of rows that come one by one."""
    chunks: list[pa.RecordBatch] = []
    waiting: list[Mapping[str, Any]] = []
    for row in rows:
        waiting.append(row)
        if len(waiting) == _CHUNK:
            chunks.append(pa.RecordBatch.from_pylist(waiting, schema=REQUESTS))
            waiting = []
    chunks.append(pa.RecordBatch.from_pylist(waiting, schema=REQUESTS))
    return pa.Table.from_batches(chunks, schema=REQUESTS).combine_chunks()
