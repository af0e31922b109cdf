"""Read the parquet files of a decision log."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from waypost.contracts.errors import SchemaError
from waypost.feedback.decision_log import DECISION_SCHEMA

SPOOL = ".spool"


def read_decisions(folder: Path) -> pa.Table:
    """Read the rows of a decision log, in the order of their time, each request once.

    Columns that an earlier Waypost did not write are null. Rows of the last minute may still be in
    the spool of a server that runs.

    Args:
        folder: The folder.

    Returns:
        Columns `DECISION_SCHEMA`.

    Raises:
        SchemaError: the folder has no parquet file, or one that is no decision log.
    """
    paths = [path for path in sorted(folder.rglob("*.parquet")) if SPOOL not in path.parts]
    if not paths:
        raise SchemaError(
            f"{folder}: has no parquet file; expected a decision_log of a server, which writes its "
            "first one within a minute, or when it stops"
        )
    table = pa.concat_tables([_read(path) for path in paths]).sort_by("time")
    ids = table["request_id"].to_pylist()
    first = {request_id: row for row, request_id in reversed(list(enumerate(ids)))}
    return table if len(first) == len(ids) else table.take(sorted(first.values()))


def _read(path: Path) -> pa.Table:
    try:
        found = pq.ParquetFile(path).read()
        missing = [name for name in _NEEDED if name not in found.column_names]
        if missing:
            raise SchemaError(f"{path}: has no column {missing[0]}; expected a decision log")
        arrays = [
            pc.cast(found[field.name], field.type)
            if field.name in found.column_names
            else pa.nulls(len(found), field.type)
            for field in DECISION_SCHEMA
        ]
    except (pa.ArrowException, OSError) as error:
        raise SchemaError(f"{path}: cannot be read as a decision log: {error}") from None
    return pa.table(arrays, schema=DECISION_SCHEMA)


_NEEDED = ("request_id", "time", "decided_model", "propensity", "ranking", "model_name")
