"""Asks LLMs whether their recorded answers are correct, several times each: what AutoMix needs.

Writes the columns ``verdicts``, ``verify_input_tokens`` and ``verify_output_tokens`` into the
routing data that ``waypost data responses`` made, and leaves every other column as it is. The run
may be ended at any moment and started again (see `waypost.pipelines.cells`). `waypost data
responses` writes the tables without these columns; run after it, this asks nothing twice.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from waypost.config import load_config
from waypost.contracts.choices import with_choices
from waypost.contracts.errors import ConfigError, Fault, SchemaError, names
from waypost.contracts.generation import GenerateRequest
from waypost.contracts.tables import (
    ROUTING_SCHEMA,
    SPLITS,
    read_routing_table,
    replace_table,
    split_path,
)
from waypost.contracts.verdicts import MAX_VERDICTS, read_verdict, verdict_call
from waypost.pipelines.cells import Progress, Record, ask_all, cell_id
from waypost.pipelines.responses import CELLS, Candidate, ResponsesConfig

logger = logging.getLogger(__name__)

_COLUMNS = ("verdicts", "verify_input_tokens", "verify_output_tokens")

Cells = dict[tuple[str, int], list[GenerateRequest]]
"""The requests of each answer, by split and row."""


def run(
    config_path: str | Path,
    overrides: Sequence[str] = (),
    models: Sequence[str] = (),
    samples: int = 4,
    progress: Progress | None = None,
) -> Path:
    """Ask for what is not recorded yet, then write the columns.

    Args:
        config_path: YAML of the `ResponsesConfig` that the answers were made with.
        overrides: ``key=value`` settings on top of it.
        models: Who is asked; none given: all but the dearest, which has nobody to pass on to.
        samples: Verdicts on each answer, at most `MAX_VERDICTS`.
        progress: Told about every verdict.

    Returns:
        The folder.

    Raises:
        ConfigError: in the config, or in what is asked.
        SchemaError: the folder holds no routing data, or no answer of one of the models.
        WaypostError: an engine cannot start.
    """
    config_path = Path(config_path)
    config = load_config(ResponsesConfig, config_path, overrides)
    if not 1 <= samples <= MAX_VERDICTS:
        raise ConfigError([Fault("samples", f"is {samples}; expected 1 to {MAX_VERDICTS}")])
    models = models or _all_but_the_dearest(config)
    if unknown := [name for name in models if name not in config.llms]:
        raise ConfigError(
            [
                Fault(
                    f"{config_path}: llms",
                    f"has no {names(unknown)}; it has {names(list(config.llms))}",
                )
            ]
        )
    folder = config_path.parent / config.out
    tables = _read(folder)
    found: dict[str, dict[int, dict[str, Any]]] = {split: {} for split in tables}
    for name in models:
        cells = _cells(name, config.llms[name], tables, samples)
        if not cells:
            raise SchemaError(f"{folder}: holds no answer of {name}; run `waypost data responses`")
        for (split, row), values in _verdicts(
            name, config.llms[name], cells, folder / CELLS / f"{name}-verdicts.jsonl", progress
        ).items():
            found[split][row] = values
    for split, table in tables.items():
        replace_table(split_path(folder, split), _with_columns(table, found[split]))
    return folder


def _all_but_the_dearest(config: ResponsesConfig) -> list[str]:
    prices = {name: llm.info(name).blended_price for name, llm in config.llms.items()}
    known = {name: price for name, price in prices.items() if price is not None}
    if len(known) < len(prices) or len(known) < 2:
        raise ConfigError(
            [Fault("llms", "who is the dearest of them is not known; name those to ask (--model)")]
        )
    return sorted(known, key=lambda name: known[name])[:-1]


def _read(folder: Path) -> dict[str, pa.Table]:
    paths = {split: split_path(folder, split) for split in SPLITS}
    tables = {split: read_routing_table(path) for split, path in paths.items() if path.is_file()}
    if not tables:
        raise SchemaError(f"{folder}: holds no routing data; run `waypost data responses` first")
    if lacking := [
        split for split, table in tables.items() if "response" not in table.column_names
    ]:
        raise SchemaError(f"{split_path(folder, lacking[0])}: has no answers (column response)")
    return tables


def _cells(name: str, candidate: Candidate, tables: Mapping[str, pa.Table], samples: int) -> Cells:
    cells: Cells = {}
    for split, table in tables.items():
        n = len(table)
        choices = table["choices"].to_pylist() if "choices" in table.column_names else [None] * n
        rows = zip(
            *(table[c].to_pylist() for c in ("model_name", "query", "response")), strict=True
        )
        for row, (model, query, response) in enumerate(rows):
            if model == name and response is not None:
                text = with_choices(query, choices[row])
                cells[split, row] = [
                    _request(name, candidate, text, response, sample) for sample in range(samples)
                ]
    return cells


def _request(
    name: str, candidate: Candidate, question: str, answer: str, sample: int
) -> GenerateRequest:
    call = verdict_call(name, question, answer, sample)
    sampling = {"max_tokens": call.max_tokens, "temperature": call.temperature, "seed": call.seed}
    model = candidate.config.get("model", name)
    return GenerateRequest(
        request_id=cell_id(model=model, engine=candidate.engine, query=call.prompt, **sampling),
        messages=[{"role": "user", "content": call.prompt}],
        **sampling,  # type: ignore[arg-type]
    )


def _verdicts(
    name: str, candidate: Candidate, cells: Cells, path: Path, progress: Progress | None
) -> dict[tuple[str, int], dict[str, Any]]:
    # The verdicts of one answer stand together, so that an engine reads their prompt once.
    requests = {one.request_id: one for asked in cells.values() for one in asked}
    records = asyncio.run(
        ask_all(
            name,
            candidate.engine,
            candidate.config,
            candidate.concurrency,
            list(requests.values()),
            path,
            progress,
        )
    )
    if failed := sum(records[key]["error"] is not None for key in requests):
        logger.warning("%s: %d of %d verdicts failed", name, failed, len(requests))
    return {
        key: _row([records[request.request_id] for request in asked])
        for key, asked in cells.items()
    }


def _row(records: Sequence[Record]) -> dict[str, Any]:
    given = [record for record in records if record["error"] is None]
    if not given:
        return {}
    read = [read_verdict(record["response"]) for record in given]
    return {
        "verdicts": json.dumps([None if verdict is None else int(verdict) for verdict in read]),
        "verify_input_tokens": sum(record["input_tokens"] for record in given),
        "verify_output_tokens": sum(record["output_tokens"] for record in given),
    }


def _with_columns(table: pa.Table, rows: Mapping[int, Mapping[str, Any]]) -> pa.Table:
    for name in _COLUMNS:
        kept = table[name].to_pylist() if name in table.column_names else [None] * len(table)
        values = [rows[row].get(name) if row in rows else old for row, old in enumerate(kept)]
        field = ROUTING_SCHEMA.field(name)
        column = pa.array(values, type=field.type)
        if name in table.column_names:
            table = table.set_column(table.column_names.index(name), field, column)
        else:
            table = table.append_column(field, column)
    return table
