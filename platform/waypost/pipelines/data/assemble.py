"""Assemble the tables of a routing-data folder from the logs of a run, in batches of rows."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from waypost.contracts.atomic import replacing
from waypost.contracts.tables import ROUTING_SCHEMA, VERDICT_COLUMNS, split_path
from waypost.pipelines.data.calls.log import LogIndex
from waypost.pipelines.data.calls.requests import Keys
from waypost.pipelines.data.questions_table import split_rows
from waypost.scorers import SCORER_VERSION

ROWS = "rows"
"""Kind of the log of scored answers."""

ERRORS = "errors"
"""Kind of the log of cells without a scored answer, with the reason of the last attempt."""

Verdicts = Mapping[tuple[str, str], tuple[str, dict[str, Any]]]
"""LLM and question -> the answer, and the columns with the verdicts on it."""

logger = logging.getLogger(__name__)

_BATCH = 1024


@dataclass(frozen=True)
class AnswerLog:
    """Location of the answers of an LLM.

    Attributes:
        logs: Folder of its logs.
        keys: Row key of each question, 16 bytes.
        cost_usd: Dollars of a call by its input and output tokens, at the current prices of
            ``llms.json``.
    """

    logs: Path
    keys: Keys
    cost_usd: Callable[[int, int], float | None]


def write_tables(
    folder: Path, cells: Mapping[str, AnswerLog], questions: pa.Table
) -> dict[str, int]:
    """Write ``routing_<split>.parquet`` from the logs, each file atomically.

    A cell whose call failed is a row with ``error`` and without ``performance``. A cell without a
    call has no row, and a split without rows has no file. Verdicts of `waypost data verdicts` stay
    with an answer as long as the answer is the same.

    Args:
        folder: Routing data.
        cells: By LLM.
        questions: Columns of `QUESTIONS`.

    Returns:
        Number of cells without an answer, by LLM.
    """
    unanswered = dict.fromkeys(cells, 0)
    for split, items in split_rows(questions).items():
        path = split_path(folder, split)
        kept, written = _verdicts(path), 0
        with replacing(path) as partial, pq.ParquetWriter(partial, ROUTING_SCHEMA) as writer:
            for llm, answers in cells.items():
                for batch in _batches(llm, answers, items, questions, unanswered, kept):
                    writer.write_batch(batch)
                    written += batch.num_rows
        if not written:
            path.unlink()
    return unanswered


def _batches(
    llm: str,
    answers: AnswerLog,
    items: range,
    questions: pa.Table,
    unanswered: dict[str, int],
    kept: Verdicts,
) -> Iterator[pa.RecordBatch]:
    keys, logs = answers.keys, answers.logs
    if not items:
        return
    with LogIndex(logs, ROWS) as rows, LogIndex(logs, ERRORS) as errors:
        for at in range(0, len(items), _BATCH):
            part = items[at : at + _BATCH]
            asked = questions.slice(part.start, len(part)).to_pylist()
            found = []
            for item, question in zip(part, asked, strict=True):
                key = keys[item].tobytes()
                record = rows.get(key)
                if record is None:
                    unanswered[llm] += 1
                    record = errors.get(key)
                if record is not None:
                    row = _row(llm, question, record, answers)
                    judged, columns = kept.get((llm, row["query_id"]), (None, {}))
                    found.append(row | columns if judged == row["response"] else row)
            yield pa.RecordBatch.from_pylist(found, schema=ROUTING_SCHEMA)


def _verdicts(path: Path) -> Verdicts:
    """Read the verdicts of the table that is about to be replaced."""
    if not path.is_file():
        return {}
    wanted = ("model_name", "query_id", "response", *VERDICT_COLUMNS)
    found: dict[tuple[str, str], tuple[str, dict[str, Any]]] = {}
    try:
        with pq.ParquetFile(path) as file:
            if not set(wanted) <= set(file.schema_arrow.names):
                return {}
            for batch in file.iter_batches(_BATCH, columns=wanted):
                for row in batch.filter(batch["verdicts"].is_valid()).to_pylist():
                    columns = {name: row[name] for name in VERDICT_COLUMNS}
                    found[row["model_name"], row["query_id"]] = row["response"], columns
    except pa.ArrowInvalid as error:
        logger.warning("%s: not readable, replacing it: %s", path, error)
        return {}
    return found


def _row(
    llm: str, question: Mapping[str, Any], record: Mapping[str, Any], answers: AnswerLog
) -> dict[str, Any]:
    truth = json.loads(question["ground_truth"])
    choices = question["choices"]
    return {
        **{key: question[key] for key in ("query_id", "task_name", "query", "metric")},
        "ground_truth": truth if isinstance(truth, str) else question["ground_truth"],
        "choices": None if choices == "null" else choices,
        "model_name": llm,
        **{key: value for key, value in record.items() if key in ROUTING_SCHEMA.names},
        "cost_usd": None
        if record["input_tokens"] is None or record["output_tokens"] is None
        else answers.cost_usd(record["input_tokens"], record["output_tokens"]),
        "scorer_version": SCORER_VERSION if record["performance"] is not None else None,
    }
