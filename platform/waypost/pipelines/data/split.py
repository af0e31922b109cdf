"""Split a routing-data folder again, by task and without leaks."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from waypost.contracts.atomic import new_folder
from waypost.contracts.errors import ConfigError, Fault, SchemaError
from waypost.contracts.routing_data import RoutingData, read_routing_data
from waypost.contracts.splits import leaks, pool, stratified_split
from waypost.contracts.tables import split_path


def split_folder(
    source: str | Path,
    target: str | Path,
    *,
    test: float = 0.2,
    validation: float = 0.0,
    seed: int = 0,
    pooled: bool = False,
) -> dict[str, Any]:
    """Split the training questions of a folder into a new one, every column kept.

    Args:
        source: Routing data. Without ``pooled`` only its training split is read.
        target: Written atomically; must not exist.
        test: Share of the questions, above 0.
        validation: Share of the questions; 0 writes no such split.
        seed: Seed of the split.
        pooled: Include the source's test questions, without those that train contains.

    Returns:
        JSON-able: ``seed``, ``queries``, ``groups`` (of near-duplicates), ``left_out`` (test
        questions that train contains), ``leaked`` (test questions of the source with a
        near-duplicate in its train; null where not pooled), ``leaks`` (the same in the result, 0),
        ``splits`` (name -> queries, groups) and ``tasks`` (task -> split -> queries).

    Raises:
        SchemaError: The source is not routing data, or has a single question.
        ConfigError: The shares leave nothing for training, or the target exists.
    """
    if not (test > 0 and validation >= 0 and test + validation < 1):
        raise ConfigError(
            [Fault("test, validation", f"are {test} and {validation}; expected shares below 1")]
        )
    source = Path(source)
    data = read_routing_data(source)
    names, leaked, left_out = ["train"], None, 0
    if pooled:
        more = read_routing_data(source, "test")
        leaked = int(leaks(data.queries, more.queries).sum())
        left_out, data = len(data) + len(more), pool(data, more)
        left_out -= len(data)
        names.append("test")
    parts = _parts(data, test, validation, seed)
    table = _table([split_path(source, name) for name in names])
    with new_folder(target) as folder:
        for name, rows in parts.items():
            ids = pa.array([data.query_ids[i] for i in rows])
            chosen = pc.is_in(table["query_id"].cast(pa.string()), ids)
            pq.write_table(table.filter(chosen), split_path(folder, name))
        for path in (source / "llms.json", *source.glob("query_embeddings-*.safetensors")):
            shutil.copyfile(path, folder / path.name)
    return {
        "seed": seed,
        "queries": len(data),
        "groups": len(np.unique(data.groups)),
        "left_out": left_out,
        "leaked": leaked,
        "leaks": int(np.isin(data.groups[parts["test"]], data.groups[parts["train"]]).sum()),
        "splits": {
            name: {"queries": len(rows), "groups": len(np.unique(data.groups[rows]))}
            for name, rows in parts.items()
        },
        "tasks": {
            task: {
                name: sum(data.task_names[i] == task for i in rows) for name, rows in parts.items()
            }
            for task in sorted(set(data.task_names))
        },
    }


def _parts(
    data: RoutingData, test: float, validation: float, seed: int
) -> dict[str, np.ndarray[Any, np.dtype[np.intp]]]:
    rest, tested = stratified_split(data, test, seed)
    if not validation:
        return {"train": rest, "test": tested}
    inner, validated = stratified_split(data.select(rest), validation / (1 - test), seed)
    return {"train": rest[inner], "validation": rest[validated], "test": tested}


def _table(paths: list[Path]) -> pa.Table:
    tables = [pq.read_table(path) for path in paths]
    try:
        return pa.concat_tables(tables, promote_options="permissive")
    except pa.ArrowException as error:
        raise SchemaError(f"{paths[-1]}: columns differ from train's: {error}") from None
