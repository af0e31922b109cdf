"""The database of a feedback folder: its tables, and how it is opened.

All gateway replicas of a machine write it (sqlite in WAL mode: one writer at a time, readers never
wait). A power loss leaves what was committed with ``synchronous=FULL``.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from waypost.contracts.errors import StorageError, StorageMissingError
from waypost.feedback.outcome import Outcome, plain, query_digest

DATABASE = "feedback.sqlite"
"""Name of the file in the folder."""

VERSION = 3

BUSY_S = 30.0
"""Longest wait for another process that writes."""

ANSWERED = (
    "request_id", "at", "query_id", "query", "user_id", "session_id", "router", "router_version",
    "decided_model", "model_name", "ranking", "predicted_quality", "propensity", "lambda",
    "input_tokens", "output_tokens", "cost_usd", "latency_s",
)  # fmt: skip
"""Columns of an answered request, named as in routing data and decision logs. ``ranking`` is a
list of names with line feeds between; ``propensity`` is that of ``model_name``."""

VECTOR = ("encoder_id", "embedding")
"""Further columns of an answered request: `QuestionVector`, null where there is none."""

EVENT = (
    "kind", "request_id", "other_request_id", "rating", "preference", "verdict", "source",
    "user_id", "reason", "idempotency_key", "time",
)  # fmt: skip
"""Columns of an event, named as in `waypost.contracts.feedback.FeedbackEvent`."""

_OF_ANSWERED = """(
    n INTEGER PRIMARY KEY, request_id TEXT NOT NULL UNIQUE, at REAL NOT NULL,
    query_id TEXT NOT NULL, query TEXT, user_id TEXT, session_id TEXT, router TEXT,
    router_version TEXT, decided_model TEXT, model_name TEXT NOT NULL, ranking TEXT,
    predicted_quality REAL, propensity REAL, lambda REAL, input_tokens INTEGER,
    output_tokens INTEGER, cost_usd REAL, latency_s REAL, encoder_id TEXT, embedding BLOB
)"""

_TABLES = f"""
CREATE TABLE IF NOT EXISTS recent {_OF_ANSWERED};
CREATE TABLE IF NOT EXISTS rated {_OF_ANSWERED};
CREATE TABLE IF NOT EXISTS events (
    n INTEGER PRIMARY KEY, kind TEXT NOT NULL, request_id TEXT NOT NULL, other_request_id TEXT,
    rating REAL, preference TEXT, verdict TEXT, source TEXT NOT NULL, user_id TEXT, reason TEXT,
    idempotency_key TEXT UNIQUE, time REAL NOT NULL, body BLOB NOT NULL, slot BLOB NOT NULL,
    replaced INTEGER NOT NULL
);
CREATE INDEX IF NOT EXISTS events_slot ON events (slot);
CREATE INDEX IF NOT EXISTS events_user ON events (user_id);
CREATE INDEX IF NOT EXISTS events_request ON events (request_id);
CREATE INDEX IF NOT EXISTS rated_user ON rated (user_id);
CREATE TABLE IF NOT EXISTS forgotten (user TEXT PRIMARY KEY, time REAL NOT NULL) WITHOUT ROWID;
"""
# recent: the latest answered requests. rated: those that an event is about, which are kept.
# forgotten: digests of users, for their requests that still wait in the memory of a gateway.
# events.body is the digest of what was said; events of one slot replace each other.


def open_database(folder: Path) -> sqlite3.Connection:
    """Open the database of a folder for writing; folder and tables are made where they lack.

    Raises:
        StorageError: it cannot be made or read, or is of another version.
    """
    path = folder / DATABASE
    with naming(path):
        folder.mkdir(parents=True, exist_ok=True)
        found = _connect(path)
        found.execute("PRAGMA journal_mode=WAL")
        version = found.execute("PRAGMA user_version").fetchone()[0]
        if version not in (0, VERSION):
            found.close()
            raise StorageError(
                f"{path}: is of version {version}; this Waypost reads version {VERSION}. Take "
                "another folder, or the Waypost that wrote it"
            )
        if not version:
            found.executescript(f"BEGIN IMMEDIATE;{_TABLES}PRAGMA user_version={VERSION};COMMIT")
    return found


@contextmanager
def existing_database(folder: Path) -> Iterator[sqlite3.Connection]:
    """Open the database of a folder for the block.

    Raises:
        StorageMissingError: the folder has none.
        StorageError: it cannot be read.
    """
    path = folder / DATABASE
    if not path.is_file():
        raise StorageMissingError(
            f"{path}: no such file; expected a folder that a server had as feedback_dir"
        )
    found = open_database(folder)
    try:
        with naming(path):
            yield found
    finally:
        found.close()


def _connect(path: Path) -> sqlite3.Connection:
    # one thread at a time uses it, not always the same one; transactions are written out
    return sqlite3.connect(path, BUSY_S, isolation_level=None, check_same_thread=False)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Turn the errors of the database into a StorageError with its path."""
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise StorageError(f"{path}: cannot be read or written: {why}") from None


def answered_row(outcome: Outcome, *, keep_query: bool) -> tuple[object, ...]:
    """Return the row of an answered request, in the order of `ANSWERED` and `VECTOR`."""
    query, decision, usage = outcome.query, outcome.decision, outcome.usage
    vector = outcome.vector
    text = query["query"]
    return (
        outcome.request_id,
        outcome.at,
        query_digest(text),
        plain(text) if keep_query else None,
        plain(query.get("user_id")),
        plain(query.get("session_id")),
        decision.router,
        decision.router_version,
        decision.model,
        outcome.model,
        "\n".join(decision.ranking),
        decision.quality.get(outcome.model or ""),
        outcome.propensity,
        decision.lam,
        None if usage is None else usage.input_tokens,
        None if usage is None else usage.output_tokens,
        outcome.cost_usd,
        outcome.seconds,
        None if vector is None else vector.encoder_id,
        None if vector is None else vector.data,
    )
