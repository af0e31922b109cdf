"""Keep the latest decisions in memory, and write rated ones to parquet as training data."""

from __future__ import annotations

import asyncio
import hashlib
import time
import uuid
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from waypost.contracts.atomic import replacing
from waypost.contracts.generation import Usage
from waypost.contracts.records import Decision

FEEDBACK_SCHEMA = pa.schema(
    [
        ("request_id", pa.string()),
        ("rated_at", pa.timestamp("ms", tz="UTC")),
        ("decided_at", pa.timestamp("ms", tz="UTC")),
        ("rating", pa.float32()),
        ("comment", pa.string()),
        ("query_id", pa.string()),
        ("query", pa.string()),
        ("user_id", pa.string()),
        ("session_id", pa.string()),
        ("router", pa.string()),
        ("router_version", pa.string()),
        ("decided_model", pa.string()),
        ("model_name", pa.string()),
        ("ranking", pa.list_(pa.string())),
        ("predicted_quality", pa.float32()),
        ("propensity", pa.float64()),
        ("lambda", pa.float64()),
        ("input_tokens", pa.int64()),
        ("output_tokens", pa.int64()),
        ("cost_usd", pa.float64()),
    ]
)
"""One row for each rating. ``query_id`` is the digest of the text that was routed on, so that its
embedding can be stored; ``query`` is that text, null unless ``log_queries`` is set. ``rating`` in
[0, 1] rates ``model_name``, the LLM that answered. ``propensity`` is the probability of
``decided_model``. A request rated twice has two rows, of which the later counts."""

ROWS_A_FILE = 1_000


@dataclass(frozen=True, slots=True)
class Remembered:
    """An answered request.

    Attributes:
        query: The query, with its user.
        decision: The router's decision.
        model: The LLM that answered.
        usage: Tokens of the answer.
        cost_usd: Dollars of the answer; None where unknown.
        at: Time in Unix seconds.
    """

    query: dict[str, Any]
    decision: Decision
    model: str
    usage: Usage
    cost_usd: float | None
    at: float


class Decisions:
    """The latest answered requests by id; the oldest are dropped."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._kept: OrderedDict[str, Remembered] = OrderedDict()

    def remember(self, request_id: str, what: Remembered) -> None:
        """Store an answered request."""
        self._kept[request_id] = what
        if len(self._kept) > self._most:
            self._kept.popitem(last=False)

    def get(self, request_id: str) -> Remembered | None:
        """Return an answered request, or None where it is unknown or dropped."""
        return self._kept.get(request_id)


def query_digest(text: str) -> str:
    """Return the id of a text; equal texts have equal ids in all files."""
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


class FeedbackStore:
    """Writes ratings below a folder; `add` returns when they are on disk.

    Each process writes its own files of up to `ROWS_A_FILE` rows. A file is replaced in one step,
    so that a reader never sees a partial one.
    """

    def __init__(self, folder: Path, *, keep_queries: bool) -> None:
        self._folder = folder
        self._keep_queries = keep_queries
        self._rows: list[dict[str, Any]] = []
        self._path = self._new_path()
        self._lock = asyncio.Lock()
        self._added = self._on_disk = 0  # ratings since the start

    async def add(
        self, request_id: str, what: Remembered, rating: float, comment: str | None
    ) -> None:
        """Store one rating.

        Raises:
            OSError: it cannot be written.
        """
        self._rows.append(self._row(request_id, what, rating, comment))
        self._added += 1
        wanted = self._added
        async with self._lock:
            if self._on_disk >= wanted:
                return  # another waiting call has written it
            rows, added = self._rows.copy(), self._added
            await asyncio.to_thread(_write, self._path, rows)
            self._on_disk = added
            if len(rows) >= ROWS_A_FILE:
                del self._rows[: len(rows)]
                self._path = self._new_path()

    def _new_path(self) -> Path:
        stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime())
        return self._folder / f"feedback-{stamp}-{uuid.uuid4().hex[:8]}.parquet"

    def _row(
        self, request_id: str, what: Remembered, rating: float, comment: str | None
    ) -> dict[str, Any]:
        text = what.query["query"]
        decision = what.decision
        return {
            "request_id": request_id,
            "rated_at": int(time.time() * 1e3),
            "decided_at": int(what.at * 1e3),
            "rating": rating,
            "comment": comment,
            "query_id": query_digest(text),
            "query": text if self._keep_queries else None,
            "user_id": what.query.get("user_id"),
            "session_id": what.query.get("session_id"),
            "router": decision.router,
            "router_version": decision.router_version,
            "decided_model": decision.model,
            "model_name": what.model,
            "ranking": list(decision.ranking),
            "predicted_quality": decision.quality.get(what.model),
            "propensity": decision.propensity,
            "lambda": decision.lam,
            "input_tokens": what.usage.input_tokens,
            "output_tokens": what.usage.output_tokens,
            "cost_usd": what.cost_usd,
        }


def _write(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as partial:
        pq.write_table(pa.Table.from_pylist(rows, schema=FEEDBACK_SCHEMA), partial)
