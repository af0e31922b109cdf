"""Delete what a folder keeps of one user: decisions, feedback, turns, and other parquet files."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from waypost.contracts.atomic import replacing
from waypost.contracts.errors import StorageError
from waypost.feedback.database import DATABASE, existing_database
from waypost.feedback.log_folder import FORGOTTEN, KEPT_S, forgotten_with, write_parquet
from waypost.feedback.outcome import query_digest
from waypost.learning.user_turns import forget_turns, turns_path


@dataclass(frozen=True, slots=True)
class Forgotten:
    """What was deleted.

    Attributes:
        events: Events of the user, and events of others about the user's requests.
        requests: Requests of the user in the feedback store.
        rows: Rows of the user in parquet files.
        files: Parquet files that were written again.
        turns: Turns that personal routers made states of: the user's, and those of others about the
            user's questions.
    """

    events: int = 0
    requests: int = 0
    rows: int = 0
    files: int = 0
    turns: int = 0


def forget_user(folder: Path, user_id: str) -> Forgotten:
    """Delete what a decision log, a feedback store, or parquet files have of one user.

    Parquet files are replaced one by one, each in one step; repeat the call after an interruption.
    A server may run meanwhile: rows of the user that it has not yet written to parquet are left
    out when it does.

    Args:
        folder: ``feedback_dir``, ``decision_log``, a folder that has them below it, or another
            one with parquet files.
        user_id: The user.

    Raises:
        StorageError: the folder does not exist, or a file cannot be read or written.
        ConfigError: a file of turns is none.
    """
    if not folder.is_dir():
        raise StorageError(f"{folder}: no such folder; expected feedback_dir or decision_log")
    # a copy of a store has the parquet files of a log, not the spool files of its gateways
    # a gateway looks at the file of its feedback, too, for texts that it keeps in memory
    for log in _parents(folder, ".spool", "date=*", DATABASE):
        path = log / FORGOTTEN
        before = path.read_bytes() if path.is_file() else b""
        with replacing(path) as partial:
            partial.write_bytes(forgotten_with(before, query_digest(user_id), time.time()))
    stores = _parents(folder, DATABASE)
    events = requests = turns = rows = files = 0
    for store in stores:
        found = _forget_events(store, user_id)
        events, requests, turns = (
            a + b for a, b in zip((events, requests, turns), found, strict=True)
        )
    for store in _parents(folder, turns_path(Path(), "*").name):
        if store not in stores:  # turns without the store of their events
            turns += forget_turns(store, user_id)
    for path in sorted(folder.rglob("*.parquet")):
        if removed := _forget_rows(path, user_id):
            rows, files = rows + removed, files + 1
    return Forgotten(events, requests, rows, files, turns)


def _parents(folder: Path, *names: str) -> list[Path]:
    return sorted({path.parent for name in names for path in folder.rglob(name)})


def _forget_events(folder: Path, user_id: str) -> tuple[int, int, int]:
    mine = "(SELECT request_id FROM {} WHERE user_id = :user)"
    about = " OR ".join(
        f"{column} IN {mine.format(table)}"
        for column in ("request_id", "other_request_id")
        for table in ("rated", "recent")
    )
    given = {"user": user_id}
    with existing_database(folder) as db:
        db.execute("PRAGMA secure_delete=ON")  # else the text stays in free pages of the file
        db.execute("BEGIN IMMEDIATE")
        now = time.time()
        db.execute("DELETE FROM forgotten WHERE time < ?", (now - KEPT_S,))
        db.execute("INSERT OR REPLACE INTO forgotten VALUES (?, ?)", (query_digest(user_id), now))
        others = f"SELECT DISTINCT user_id, lower(hex(slot)) FROM events WHERE {about}"
        told = [(user, key) for user, key in db.execute(others, given) if user is not None]
        events = db.execute(f"DELETE FROM events WHERE user_id = :user OR {about}", given).rowcount
        requests = sum(
            db.execute(f"DELETE FROM {table} WHERE user_id = :user", given).rowcount
            for table in ("rated", "recent")
        )
        # before the events are gone, which name them: an interrupted call can be repeated
        turns = forget_turns(folder, user_id, told)
        db.execute("COMMIT")
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return events, requests, turns


def _forget_rows(path: Path, user_id: str) -> int:
    try:
        if "user_id" not in pq.read_schema(path).names:
            return 0
        with pq.ParquetFile(path) as file:
            table = file.read()
        kept = table.filter(
            pc.fill_null(pc.not_equal(table["user_id"].cast(pa.string()), user_id), True)
        )
        removed: int = table.num_rows - kept.num_rows
        if removed and kept.num_rows:
            with replacing(path) as partial:
                write_parquet(partial, kept)
        elif removed:
            path.unlink()
    except (pa.ArrowException, OSError) as error:
        raise StorageError(f"{path}: cannot be read or written again: {error}") from None
    return removed
