"""The tables of a routing-data folder: columns, checks, reading and writing."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pydantic import ValidationError

from waypost.contracts.atomic import replacing, write_text
from waypost.contracts.errors import SchemaError, names
from waypost.contracts.records import LLMInfo

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
    """Raise `SchemaError` where a column is missing or repeated."""
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


ROUTING_SCHEMA = pa.schema(
    [
        ("query_id", pa.string()),
        ("task_name", pa.string()),
        ("query", pa.string()),
        ("ground_truth", pa.string()),
        ("metric", pa.string()),
        ("choices", pa.string()),
        ("model_name", pa.string()),
        ("response", pa.string()),
        ("performance", pa.float32()),
        ("input_tokens", pa.int32()),
        ("output_tokens", pa.int32()),
        ("cost_usd", pa.float64()),
        ("latency_s", pa.float32()),
        ("scorer_version", pa.string()),
        ("error", pa.string()),
        ("verdicts", pa.string()),
        ("verify_input_tokens", pa.int32()),
        ("verify_output_tokens", pa.int32()),
    ]
)
"""Columns of ``routing_<split>.parquet``: one row for each key (query_id, model_name).

``performance`` is in [0, 1], or null (never 0) where it was not measured. Tokens, dollars and
seconds are null where unknown. ``verdicts`` holds the LLM's verdicts on its own answer
(`waypost.contracts.verdicts`): a JSON list of 1 (correct), 0 (wrong) and null (neither), at most
`MAX_VERDICTS`, with the tokens of all of them together. Further columns (user_id, session_id, turn,
rating) may follow.
"""

VERDICT_COLUMNS = ("verdicts", "verify_input_tokens", "verify_output_tokens")
"""Columns that `waypost data verdicts` adds."""

REQUIRED = ("query_id", "query", "model_name", "performance")
SPLITS = ("train", "validation", "test")


def split_path(folder: Path, split: str) -> Path:
    """Return the parquet file of one split."""
    return folder / f"routing_{split}.parquet"


def read_routing_table(path: Path) -> pa.Table:
    """Read and check one routing table.

    Returns the table with text keys (``query_id`` cast to text) and ``performance`` as float32.

    Raises:
        SchemaError: naming the file and the missing column, or the row with a value that is
            of another type or out of range.
    """
    if not path.is_file():
        raise SchemaError(f"{path}: no such file; a routing-data folder holds {path.name}")
    try:
        with pq.ParquetFile(path) as file:
            table = file.read()
    except (pa.ArrowException, OSError) as error:
        raise SchemaError(f"{path}: not a readable parquet file: {error}") from None
    check_columns(table, REQUIRED, path)
    if table.num_rows == 0:
        raise SchemaError(f"{path}: holds no row")
    table = cast_columns(table, ROUTING_SCHEMA, path)
    check_rows(table, path)
    return table


def write_routing_table(path: Path, columns: Mapping[str, Sequence[object]]) -> None:
    """Write one routing table, replacing it in one step.

    Args:
        path: The parquet file.
        columns: Values by column name, all of one length; columns of `ROUTING_SCHEMA` that are
            absent are written as null, and further ones follow with the type of their values.
    """
    n_rows = len(next(iter(columns.values())))
    arrays = {
        field.name: pa.array(columns.get(field.name, [None] * n_rows), type=field.type)
        for field in ROUTING_SCHEMA
    }
    arrays |= {key: pa.array(values) for key, values in columns.items() if key not in arrays}
    replace_table(path, pa.table(arrays))


def replace_table(path: Path, table: pa.Table) -> None:
    """Write a parquet file in one step, with all columns of the table."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as partial:
        pq.write_table(table, partial)


def read_llms(path: Path) -> tuple[LLMInfo, ...]:
    """Read ``llms.json``: name -> facts, in the file's order.

    Raises:
        SchemaError: the file is missing, is not such a mapping, or a fact is wrong.
    """
    try:
        text = path.read_text(encoding="utf-8")
        data = json.loads(text, object_pairs_hook=_no_key_twice, parse_constant=_no_constant)
    except FileNotFoundError:
        raise SchemaError(f"{path}: no such file; it lists the candidate LLMs") from None
    except (OSError, ValueError, RecursionError) as error:
        raise SchemaError(f"{path}: not readable as JSON: {error}") from None
    if not isinstance(data, dict) or not data:
        raise SchemaError(f"{path}: expected a mapping from LLM name to its facts")
    return llms_from_dict(data, str(path))


def _no_key_twice(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"the key {next(k for k in keys if keys.count(k) > 1)} stands twice")
    return found


def _no_constant(name: str) -> object:
    raise ValueError(f"{name} is no JSON number; leave out what is unknown")


def llms_from_dict(data: Mapping[str, object], where: str) -> tuple[LLMInfo, ...]:
    """Build the candidates from a mapping name -> facts.

    Raises:
        SchemaError: naming ``where``, the LLM and the wrong fact.
    """
    found = []
    for name, facts in data.items():
        if not isinstance(facts, dict):
            raise SchemaError(f"{where}: {name}: expected a mapping of facts")
        try:
            found.append(LLMInfo(**{**facts, "name": name}))
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            key = ".".join(map(str, first["loc"]))
            raise SchemaError(f"{where}: {name}: {key}: {first['msg']}") from None
    return tuple(found)


def write_llms(path: Path, llms: Sequence[LLMInfo]) -> None:
    """Write ``llms.json``, replacing it in one step."""
    data = {llm.name: llm.model_dump(exclude={"name"}, exclude_none=True) for llm in llms}
    write_text(path, json.dumps(data, indent=2, ensure_ascii=False) + "\n")
