"""The per-query log: what each router chose, so that every number can be worked out again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from waypost.pipelines.evaluate import Evaluation
from waypost.pipelines.evaluation.ground import Ground
from waypost.pipelines.sweep import Sweep

SCHEMA = pa.schema(
    [
        ("router", pa.string()),
        ("query_id", pa.string()),
        ("task_name", pa.string()),
        ("seen_in_train", pa.bool_()),
        ("model_name", pa.string()),
        ("quality", pa.float64()),
        ("cost_usd", pa.float64()),
        ("predicted", pa.map_(pa.string(), pa.float32())),
    ]
)
"""Columns of ``decisions.parquet``: one row a (router, query), choices at lambda 0.

``quality`` and ``cost_usd`` are the measured ones of the choice, ``predicted`` the router's
scores by LLM; null where there is none.
"""


def write_decisions(path: Path, done: Evaluation) -> None:
    """Write the log of all routers that were measured."""
    sweeps = {name: card.sweep for name, card in done.cards.items()}
    parts = [_table(name, done.ground, s) for name, s in sweeps.items() if s is not None]
    table = pa.concat_tables(parts) if parts else SCHEMA.empty_table()
    pq.write_table(table, path)


def _table(name: str, ground: Ground, sweep: Sweep) -> pa.Table:
    test, first = ground.test, sweep.outcomes[0]
    chosen = [test.names[j] if j >= 0 else None for j in first.model]
    return pa.table(
        {
            "router": [name] * len(test),
            "query_id": list(test.query_ids),
            "task_name": [task or None for task in test.task_names],
            "seen_in_train": ~ground.unseen,
            "model_name": chosen,
            "quality": pa.array(first.quality, from_pandas=True),
            "cost_usd": pa.array(first.cost_usd, from_pandas=True),
            "predicted": _scores(ground, sweep),
        },
        schema=SCHEMA,
    )


def _scores(ground: Ground, sweep: Sweep) -> pa.Array:
    if sweep.predicted is None:
        return pa.nulls(len(ground.test), SCHEMA.field("predicted").type)
    known = np.asarray(~np.isnan(sweep.predicted).all(axis=0))
    names = [name for name, k in zip(ground.test.names, known, strict=True) if k]
    offsets = np.arange(len(ground.test) + 1, dtype=np.int32) * len(names)
    values = sweep.predicted[:, known].astype(np.float32).ravel()
    return pa.MapArray.from_arrays(offsets, pa.array(names * len(ground.test)), pa.array(values))
