"""What a routing table must hold, said with file, row and column where it does not."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from waypost.contracts.errors import SchemaError, names

AMOUNTS = (
    "input_tokens",
    "output_tokens",
    "cost_usd",
    "latency_s",
    "verify_input_tokens",
    "verify_output_tokens",
)
_KEYS = ("query_id", "query", "model_name")


def check_columns(table: pa.Table, required: Sequence[str], path: Path) -> None:
    """Raise `SchemaError` where a column is missing or stands twice."""
    found = table.column_names
    if missing := [column for column in required if column not in found]:
        raise SchemaError(f"{path}: columns missing: {', '.join(missing)}; found {names(found)}")
    if twice := sorted({column for column in found if found.count(column) > 1}):
        raise SchemaError(f"{path}: columns stand twice: {names(twice)}")


def cast_columns(table: pa.Table, schema: pa.Schema, path: Path) -> pa.Table:
    """Cast the known columns to their types.

    Raises:
        SchemaError: naming column and row of the first value that is not of that type, or is
            not UTF-8.
    """
    for field in schema:
        if field.name not in table.column_names:
            continue
        index = table.column_names.index(field.name)
        try:
            column = table.column(index).cast(field.type)
            column.validate(full=True)
        except pa.ArrowException:
            found = table.schema.field(index).type
            row = _first_wrong(table.column(index), field.type)
            what = "is not UTF-8" if found == field.type else f"is no {field.type}"
            raise SchemaError(
                f"{path}: column {field.name} is {found}; expected {field.type} (row {row} {what})"
            ) from None
        table = table.set_column(index, field.name, column)
    return table


def _first_wrong(column: pa.ChunkedArray, wanted: pa.DataType) -> int:
    for row in range(len(column)):
        try:
            column.slice(row, 1).cast(wanted).validate(full=True)
        except pa.ArrowException:
            return row
    return 0  # the type as a whole does not cast


def check_rows(table: pa.Table, path: Path) -> None:
    """Raise `SchemaError` at the first row with a missing key or a number out of range."""
    for column in _KEYS:
        if table[column].null_count:
            row = pc.index(pc.is_null(table[column]), True).as_py()
            raise SchemaError(f"{path}: row {row}: {column} is null")
    wrong = _outside(table["performance"], 1.0)
    if wrong.any():
        row = int(np.argmax(wrong))
        raise SchemaError(
            f"{path}: row {row}: performance is {table['performance'][row].as_py()}; "
            "expected 0 to 1, or null where it was not measured"
        )
    for column in AMOUNTS:
        if column not in table.column_names:
            continue
        wrong = _outside(table[column], np.finfo(np.float64).max)
        if wrong.any():
            row = int(np.argmax(wrong))
            value = table[column][row].as_py()
            what = "negative" if value < 0 else f"{value}; expected a number, or null"
            raise SchemaError(f"{path}: row {row}: {column} is {what}")


def _outside(column: pa.ChunkedArray, high: float) -> NDArray[np.bool_]:
    values = column.cast(pa.float64()).to_numpy()
    given = pc.is_valid(column).to_numpy()
    return np.asarray(given & ~((values >= 0) & (values <= high)))
