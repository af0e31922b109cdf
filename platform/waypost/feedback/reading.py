"""Read the events of a feedback folder that count, with the requests that they are about."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from waypost.feedback.database import ANSWERED, EVENT, existing_database


@dataclass(frozen=True, slots=True)
class Rated:
    """The feedback of a folder.

    Attributes:
        events: The events that count, in the order of their time: columns `EVENT`.
        requests: Request id -> columns `ANSWERED` of each request that an event is about.
        replaced: Number of events that a later one replaced.
    """

    events: list[dict[str, Any]]
    requests: dict[str, dict[str, Any]]
    replaced: int


def read_rated(folder: Path) -> Rated:
    """Read the events that count: of those that replace each other the latest.

    Raises:
        StorageError: the folder has no feedback, or it cannot be read.
    """
    columns = ", ".join(EVENT)
    with existing_database(folder) as db:
        db.execute("BEGIN")  # both queries see one state
        found = db.execute(
            f"SELECT {columns}, place FROM (SELECT *, row_number() OVER ("
            "PARTITION BY slot ORDER BY time DESC, n DESC) AS place FROM events) ORDER BY time, n"
        ).fetchall()
        rows = db.execute(f"SELECT {', '.join(ANSWERED)} FROM rated").fetchall()
        db.execute("COMMIT")
    events = [dict(zip(EVENT, row, strict=False)) for row in found if row[-1] == 1]
    requests = {row[0]: dict(zip(ANSWERED, row, strict=True)) for row in rows}
    for request in requests.values():
        request["ranking"] = (request["ranking"] or "").split("\n")
    return Rated(events, requests, len(found) - len(events))
