"""Write a comparison: its report, and each router's choices, from which all numbers derive."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from waypost.contracts.types import Floats
from waypost.metrics.comparison import Comparison, Outcomes, Sweep
from waypost.pipelines.data.embeddings import Progress
from waypost.pipelines.evaluation.kept_calls import KeptCalls
from waypost.pipelines.evaluation.pool import read_callable_pool
from waypost.pipelines.evaluation.resplit import evaluate_resplit
from waypost.pipelines.evaluation.run import EvaluateConfig, Evaluation, Told, evaluate
from waypost.report.drawing import require_matplotlib
from waypost.report.folder import CALLS, check_place, report_folder, write_json, write_report
from waypost.report.tables import Report
from waypost.storage import Place, local_copy, mirrored

SCHEMA = pa.schema(
    [
        ("router", pa.string()),
        ("query_id", pa.string()),
        ("task_name", pa.string()),
        ("seen_in_train", pa.bool_()),
        ("model_name", pa.string()),
        ("quality", pa.float64()),
        ("cost_usd", pa.float64()),
        ("calls", pa.int32()),
        ("seconds", pa.float32()),
        ("predicted", pa.map_(pa.string(), pa.float32())),
    ]
)
"""Columns of ``decisions.parquet``: one row for each router and query, choices at lambda 0.

``quality``, ``cost_usd`` and ``seconds`` are the measured values of the choice, or of all ``calls``
of a router of several; ``predicted`` holds the router's scores by LLM; null if missing.
``model_name`` is null if the answer is not an LLM's own to the query.
"""


def write_decisions(path: Path, done: Evaluation) -> None:
    """Write the decisions of all measured routers."""
    sweeps = {name: one.sweep for name, one in done.routers.items()}
    parts = [_table(name, done.comparison, s) for name, s in sweeps.items() if s is not None]
    table = pa.concat_tables(parts) if parts else SCHEMA.empty_table()
    pq.write_table(table, path)


def _table(name: str, comparison: Comparison, sweep: Sweep) -> pa.Table:
    test, first = comparison.test, sweep.outcomes[0]
    chosen = [test.names[j] if j >= 0 else None for j in first.model]
    return pa.table(
        {
            "router": [name] * len(test),
            "query_id": list(test.query_ids),
            "task_name": [task or None for task in test.task_names],
            "seen_in_train": ~comparison.unseen,
            "model_name": chosen,
            "quality": pa.array(first.quality, from_pandas=True),
            "cost_usd": pa.array(first.cost_usd, from_pandas=True),
            "calls": [1] * len(test) if first.calls is None else first.calls,
            "seconds": pa.array(_seconds(first), from_pandas=True),
            "predicted": _scores(comparison, sweep),
        },
        schema=SCHEMA,
    )


def _seconds(one: Outcomes) -> Floats:
    return np.full(len(one.quality), np.nan) if one.seconds is None else one.seconds


def _scores(comparison: Comparison, sweep: Sweep) -> pa.Array:
    if sweep.predicted is None:
        return pa.nulls(len(comparison.test), SCHEMA.field("predicted").type)
    known = np.asarray(~np.isnan(sweep.predicted).all(axis=0))
    names = [name for name, k in zip(comparison.test.names, known, strict=True) if k]
    offsets = np.arange(len(comparison.test) + 1, dtype=np.int32) * len(names)
    values = sweep.predicted[:, known].astype(np.float32).ravel()
    return pa.MapArray.from_arrays(
        offsets, pa.array(names * len(comparison.test)), pa.array(values)
    )


DECISIONS = "decisions.parquet"

_KEEP_S = 10.0
"""Seconds between two copies to a store; a killed run loses at most this time of live calls."""


def evaluate_to(
    config: EvaluateConfig,
    data_folder: str | Place,
    out: str | Place,
    command: str = "",
    progress: Progress | None = None,
    told: Told | None = None,
    asked: Progress | None = None,
) -> Report:
    """Compare routers and write report.json, report.md, the plots and the decision log.

    With ``config.resplit`` each seed's report.json and log are in ``seed-N``. Live calls are
    kept in `CALLS` as they end, and an interrupted run continues with them.

    Args:
        config: What to compare.
        data_folder: Routing data; a path or URI.
        out: Folder of the report, a path or URI; an earlier report there is replaced atomically.
        command: Command line, for the report.
        progress: Called with (done, total) embedded texts.
        told: Called with (done, total) routers.
        asked: Called with (done, total) live calls of a round.

    Returns:
        The content of report.json.

    Raises:
        ConfigError: An argument is invalid, or ``out`` exists and is not a report.
        MissingExtraError: matplotlib is not installed.
        SchemaError, WeightsError: See `evaluate`.
        StorageError: A URI cannot be read or written.
    """
    require_matplotlib()
    pool = None if config.pool is None else read_callable_pool(config.pool)
    with mirrored(out, _KEEP_S) as target:
        check_place(target)
        with local_copy(data_folder) as data:
            calls = partial(KeptCalls, target / CALLS, pool, asked)
            if config.resplit is None:
                with calls() as kept:
                    done = evaluate(config, data, progress, told, kept)
                with report_folder(target) as folder:
                    write_decisions(folder / DECISIONS, done)
                    return write_report(folder, {**done.report, "command": command})
            with calls() as kept:
                mean, by_seed = evaluate_resplit(config, data, progress, told, kept)
        with report_folder(target) as folder:
            for seed, one in by_seed.items():
                write_json(folder / f"seed-{seed}", {**one.report, "command": command})
                write_decisions(folder / f"seed-{seed}" / DECISIONS, one)
            return write_report(folder, {**mean, "command": command})
