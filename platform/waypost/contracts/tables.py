"""The tables of a routing-data folder: columns, checks, reading and writing."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import ValidationError

from waypost.contracts.errors import SchemaError, names
from waypost.contracts.records import LLMInfo

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
    ]
)
"""Columns of ``routing_<split>.parquet``: one row a (query, model), key (query_id, model_name).

``performance`` is in [0, 1], null where it was not measured (never 0 for that); tokens,
dollars and seconds are null where unknown. Further columns (user_id, session_id, turn,
rating) may follow.
"""

REQUIRED = ("query_id", "query", "model_name", "performance")
SPLITS = ("train", "validation", "test")


def split_path(folder: Path, split: str) -> Path:
    """Return the parquet file of one split."""
    return folder / f"routing_{split}.parquet"


def read_routing_table(path: Path) -> pa.Table:
    """Read and check one routing table.

    Returns the table with text keys (``query_id`` cast to text) and ``performance`` as float32.

    Raises:
        SchemaError: naming the file and the missing column, the row with a value out of
            range, or the doubled key.
    """
    if not path.is_file():
        raise SchemaError(f"{path}: no such file; a routing-data folder holds {path.name}")
    try:
        table = pq.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise SchemaError(f"{path}: not a readable parquet file: {error}") from None
    if missing := [column for column in REQUIRED if column not in table.column_names]:
        raise SchemaError(
            f"{path}: columns missing: {', '.join(missing)}; found {names(table.column_names)}"
        )
    if table.num_rows == 0:
        raise SchemaError(f"{path}: holds no row")
    return _check_rows(_cast(table, path), path)


def _cast(table: pa.Table, path: Path) -> pa.Table:
    for field in ROUTING_SCHEMA:
        if field.name not in table.column_names:
            continue
        index = table.column_names.index(field.name)
        try:
            column = table[field.name].cast(field.type)
        except pa.ArrowException:
            found = table.schema.field(field.name).type
            raise SchemaError(
                f"{path}: column {field.name} is {found}; expected {field.type}"
            ) from None
        table = table.set_column(index, field.name, column)
    return table


def _check_rows(table: pa.Table, path: Path) -> pa.Table:
    for column in ("query_id", "query", "model_name"):
        if table[column].null_count:
            row = pc.index(pc.is_null(table[column]), True).as_py()
            raise SchemaError(f"{path}: row {row}: {column} is null")
    performance = table["performance"].to_numpy()
    given = ~pc.is_null(table["performance"]).to_numpy()
    wrong = given & ~((performance >= 0) & (performance <= 1))
    if wrong.any():
        row = int(np.argmax(wrong))
        raise SchemaError(
            f"{path}: row {row}: performance is {performance[row]}; expected 0 to 1, or null "
            "where it was not measured"
        )
    for column in ("input_tokens", "output_tokens", "cost_usd", "latency_s"):
        if column in table.column_names and (pc.min(table[column]).as_py() or 0) < 0:
            row = int(np.argmin(table[column].fill_null(0).to_numpy()))
            raise SchemaError(f"{path}: row {row}: {column} is negative")
    return table


def write_routing_table(path: Path, columns: Mapping[str, Sequence[object]]) -> None:
    """Write one routing table, replacing it in one step.

    Args:
        path: The parquet file.
        columns: Values by column name, all of one length; columns of `ROUTING_SCHEMA` that are
            absent are written as null.
    """
    n_rows = len(next(iter(columns.values())))
    arrays = [
        pa.array(columns.get(field.name, [None] * n_rows), type=field.type)
        for field in ROUTING_SCHEMA
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    pq.write_table(pa.Table.from_arrays(arrays, schema=ROUTING_SCHEMA), partial)
    partial.replace(path)


def read_llms(path: Path) -> tuple[LLMInfo, ...]:
    """Read ``llms.json``: name -> facts, in the file's order.

    Raises:
        SchemaError: where the file is missing, is not such a mapping, or a fact is wrong.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SchemaError(f"{path}: no such file; it lists the candidate LLMs") from None
    except (OSError, ValueError) as error:
        raise SchemaError(f"{path}: not readable as JSON: {error}") from None
    if not isinstance(data, dict) or not data:
        raise SchemaError(f"{path}: expected a mapping from LLM name to its facts")
    return llms_from_dict(data, str(path))


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
    """Write ``llms.json``."""
    data = {llm.name: llm.model_dump(exclude={"name"}, exclude_none=True) for llm in llms}
    path.write_text(json.dumps(data, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
