"""The decision log: a parquet row for every decision, in a folder or a store.

A thread writes the rows that came in the last second to a spool file, and makes it a parquet file
once it is old or large. A killed process loses the rows of its last second, and the requests that
wait for shadow routers; the next process that starts makes parquet of the spool files that it left.
Requests never wait for the log.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from waypost.contracts.errors import WaypostError
from waypost.contracts.staying import session_state
from waypost.feedback.log_folder import LogFolder, log_folder
from waypost.feedback.outcome import Outcome, plain, query_digest
from waypost.feedback.spool import Spool, orphans

logger = logging.getLogger(__name__)

FLUSH_S = 1.0
"""Seconds between two writes to the spool file: what a killed process may lose."""

SEAL_S = 60.0
"""Seconds after which the rows of a spool file become a parquet file."""

SEAL_ROWS = 20_000
SEAL_BYTES = 64 * 1024 * 1024

MOST_PENDING = 100_000
MOST_SIZE = 64 * 1024 * 1024
"""Rows that wait in memory where the disk cannot be written, and the characters of their texts;
further ones are lost, and counted."""

_NAMES = pa.list_(pa.string())

DECISION_SCHEMA = pa.schema(
    [
        ("request_id", pa.string()),
        ("time", pa.timestamp("ms", tz="UTC")),
        ("router", pa.string()),
        ("router_version", pa.string()),
        ("query_id", pa.string()),
        ("query", pa.string()),
        ("characters", pa.int32()),
        ("routed_tokens", pa.int32()),
        ("user_id", pa.string()),
        ("session_id", pa.string()),
        ("session", pa.string()),
        ("lambda", pa.float64()),
        ("max_cost_usd", pa.float64()),
        ("exploration", pa.float32()),
        ("decided_model", pa.string()),
        ("propensity", pa.float64()),
        ("confidence", pa.float32()),
        ("ranking", _NAMES),
        ("quality", pa.list_(pa.float32())),
        ("predicted_usd", pa.list_(pa.float64())),
        ("decision_s", pa.float32()),
        ("attempts", pa.int16()),
        ("failed", _NAMES),
        ("model_name", pa.string()),
        ("input_tokens", pa.int32()),
        ("output_tokens", pa.int32()),
        ("cached_tokens", pa.int32()),
        ("reasoning_tokens", pa.int32()),
        ("cost_usd", pa.float64()),
        ("latency_s", pa.float32()),
        ("finish_reason", pa.string()),
        ("error", pa.string()),
        ("experiment", pa.string()),
        ("arm", pa.string()),
        ("arm_share", pa.float64()),
        ("shadow_router", _NAMES),
        ("shadow_router_version", _NAMES),
        ("shadow_share", pa.list_(pa.float64())),
        ("shadow_model", _NAMES),
        ("shadow_propensity", pa.list_(pa.float64())),
        ("shadow_ranking", pa.list_(_NAMES)),
        ("shadow_quality", pa.list_(pa.list_(pa.float32()))),
        ("shadow_predicted_usd", pa.list_(pa.list_(pa.float64()))),
    ]
)
"""Columns of a decision log.

``query_id`` is the digest of the text that was routed on, and ``characters`` its length; ``query``
is that text, null unless ``log_queries`` is set. ``routed_tokens`` is the number of prompt tokens
that costs were predicted with, where it was given. ``session`` says whether the LLM is that of the
session's last turn (``kept``), another (``moved``), or the first (``new``). ``quality`` and
``predicted_usd`` are in the order of ``ranking``, null where unknown. ``exploration`` is the
policy's share of random choices, ``propensity`` the probability of ``decided_model``.
``model_name`` answered: it differs from ``decided_model`` after a failover, and is null where no
LLM did.

``arm`` is the router (its name in the Serve file) that an ``experiment`` chose with probability
``arm_share``; ``propensity`` is that of ``decided_model`` given this router. The columns of shadow
routers are lists with an entry for each router that decided beside ``router``, by its name in the
Serve file; null where none did. ``shadow_share`` is the probability with which the experiment would
have chosen that router, null where it is no arm. ``shadow_quality`` and ``shadow_predicted_usd``
are in the order of ``shadow_ranking``.
"""


class DecisionLog:
    """Writes a row for each outcome.

    Args:
        target: Folder or URI.
        keep_queries: Whether the text that was routed on is written.
        exploration: The policy's share of random choices.

    Attributes:
        keep_queries, exploration: As given; may be changed.
        lost: Number of rows that could not be written.
    """

    def __init__(self, target: str, *, keep_queries: bool, exploration: float = 0.0) -> None:
        self.exploration = exploration
        self._target = target
        self.keep_queries = keep_queries
        self._rows: list[Outcome] = []
        self._added = self._written = 0  # characters of texts; each is changed by one thread
        self.lost = self._lost_told = 0
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="decision-log", daemon=True)
        self._folder: LogFolder | None = None
        self._spool: Spool | None = None

    async def start(self) -> None:
        """Check that the folder can be written, and begin.

        Raises:
            StorageError: it cannot be written.
        """
        self._folder = await asyncio.to_thread(self._open)
        self._thread.start()

    async def close(self) -> None:
        """Write all rows, and end."""
        self._stopping.set()
        if self._thread.ident is not None:
            await asyncio.to_thread(self._thread.join)

    def add(self, outcome: Outcome) -> None:
        """Add a row; it is written within `FLUSH_S`."""
        size = len(outcome.query["query"])
        if len(self._rows) < MOST_PENDING and self._added - self._written + size <= MOST_SIZE:
            self._rows.append(outcome)
            self._added += size
        else:
            self.lost += 1

    # -- in the thread ------------------------------------------------------------------------

    def _open(self) -> LogFolder:
        # pyarrow's first array imports pandas: seconds, in which a killed process would lose rows
        decision_batch([], keep_queries=False)
        return log_folder(self._target)

    def _run(self) -> None:
        assert self._folder is not None
        self._guarded(self._recover)
        while not self._stopping.wait(FLUSH_S):
            self._guarded(self._flush)
            self._guarded(self._seal_if_due)
        self._guarded(self._flush)
        self._guarded(self._seal)

    def _guarded(self, work: Any) -> None:
        """Run a part of the work; a failure is logged, and the next turn tries again."""
        try:
            work()
        except (WaypostError, OSError, pa.ArrowException) as error:
            logger.error("decision log %s: %s", self._folder, error)

    def _flush(self) -> None:
        if (lost := self.lost - self._lost_told) > 0:
            logger.error("decision log %s: %d rows are lost", self._folder, lost)
            self._lost_told += lost
        rows = self._rows[:]
        if not rows:
            return
        batch = self._batch(rows)
        if self._spool is None:
            assert self._folder is not None
            self._spool = Spool(self._folder.spool, DECISION_SCHEMA)
        try:
            self._spool.write(batch)
        except (OSError, pa.ArrowException):
            # what follows a batch that was cut off cannot be read: the rows go to another file
            self._spool.release()
            self._spool = None
            raise
        del self._rows[: len(rows)]  # others may have been added behind
        self._written += sum(len(row.query["query"]) for row in rows)

    def _batch(self, rows: Sequence[Outcome]) -> pa.RecordBatch:
        """Return the rows that the columns can hold; one that they cannot is lost by itself."""
        how: dict[str, Any] = {"keep_queries": self.keep_queries, "exploration": self.exploration}
        try:
            return decision_batch(rows, **how)
        # an upstream may count more tokens than a column can hold
        except (pa.ArrowException, ValueError, OverflowError) as error:
            if len(rows) > 1:
                return pa.concat_batches([self._batch([row]) for row in rows])
            logger.error("decision log %s: a row is lost: %s", self._folder, type(error).__name__)
            self.lost += 1
            return decision_batch([], **how)

    def _seal_if_due(self) -> None:
        spool = self._spool
        if spool is None:
            return
        old = time.monotonic() - spool.since >= SEAL_S
        if old or spool.rows >= SEAL_ROWS or spool.bytes >= SEAL_BYTES:
            self._seal()

    def _seal(self) -> None:
        assert self._folder is not None
        spool, self._spool = self._spool, None
        if spool is not None:
            spool.finish()
            self._publish(spool)
        self._recover()

    def _recover(self) -> None:
        """Make parquet of the spool files that ended processes left, or that failed before."""
        assert self._folder is not None
        for spool in orphans(self._folder.spool):
            self._publish(spool)

    def _publish(self, spool: Spool) -> None:
        assert self._folder is not None
        try:
            rows = spool.read()
            if rows.num_rows:
                first = pc.min(rows["time"]).as_py().astimezone(UTC)
                name = f"date={first:%Y-%m-%d}/decisions-{spool.name}.parquet"
                forgotten = None
                # a user may be forgotten while the file is written
                while forgotten != (now := self._folder.forgotten()):
                    forgotten = now
                    self._folder.publish(name, _without_forgotten(rows, forgotten))
            spool.delete()
        finally:
            spool.release()


def decision_batch(
    outcomes: Sequence[Outcome], *, keep_queries: bool, exploration: float = 0.0
) -> pa.RecordBatch:
    """Return the rows of some outcomes."""
    # one append for each cell: tables of dicts take several times as long
    columns: list[list[Any]] = [[] for _ in DECISION_SCHEMA]
    add = [column.append for column in columns]
    for each in outcomes:
        decision, query, usage = each.decision, each.query, each.usage
        text = query["query"]
        quality, cost = decision.quality, decision.cost_usd
        row = (
            each.request_id,
            int(each.at * 1e3),
            decision.router,
            decision.router_version,
            query_digest(text),
            plain(text) if keep_queries else None,
            len(text),
            query.get("input_tokens"),
            plain(query.get("user_id")),
            plain(query.get("session_id")),
            None
            if decision.session is None
            else session_state(decision.last_model, each.model or decision.model),
            decision.lam,
            query.get("max_cost_usd"),
            exploration,
            decision.model,
            decision.propensity,
            decision.confidence,
            decision.ranking,
            [quality.get(name) for name in decision.ranking],
            [cost.get(name) for name in decision.ranking],
            each.decision_s,
            each.attempts,
            each.failed,
            each.model,
            *(
                (None,) * 4
                if usage is None
                else (
                    usage.input_tokens,
                    usage.output_tokens,
                    usage.cached_tokens,
                    usage.reasoning_tokens,
                )
            ),
            each.cost_usd,
            each.seconds,
            each.finish_reason,
            plain(each.error),
            *_of_comparison(each),
        )
        for put, value in zip(add, row, strict=True):
            put(value)
    arrays = [
        pa.array(values, field.type) for values, field in zip(columns, DECISION_SCHEMA, strict=True)
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=DECISION_SCHEMA)


def _of_comparison(outcome: Outcome) -> Sequence[Any]:
    """Return the cells of the experiment and of the shadow routers."""
    arm, shadows = outcome.arm, outcome.shadows
    shares = {} if arm is None else arm.shares
    chosen = (None,) * 3 if arm is None else (arm.experiment, arm.router, shares[arm.router])
    if not shadows:
        return *chosen, *(None,) * 8
    made = shadows.values()
    return (
        *chosen,
        list(shadows),
        [one["router_version"] for one in made],
        [shares.get(name) for name in shadows],
        [one["model_name"] for one in made],
        [one["propensity"] for one in made],
        [one["ranking"] for one in made],
        [[one["quality"].get(name) for name in one["ranking"]] for one in made],
        [[one["cost_usd"].get(name) for name in one["ranking"]] for one in made],
    )


def _without_forgotten(table: pa.Table, forgotten: Mapping[str, float]) -> pa.Table:
    """Leave out the rows of users that were forgotten after the row was written."""
    if not forgotten or not table.num_rows:
        return table
    kept = [
        user is None or at >= datetime.fromtimestamp(forgotten.get(query_digest(user), 0.0), UTC)
        for user, at in zip(table["user_id"].to_pylist(), table["time"].to_pylist(), strict=True)
    ]
    return table.filter(pa.array(kept))
