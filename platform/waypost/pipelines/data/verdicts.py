"""Ask LLMs several times whether their recorded answers are correct, for the router AutoMix.

Adds the columns ``verdicts``, ``verify_input_tokens`` and ``verify_output_tokens`` to the routing
data of ``waypost data responses`` and leaves every other column unchanged. An interrupted run can
be resumed (see `waypost.pipelines.data.calls`), and no call is repeated.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from waypost.contracts.choices import with_choices
from waypost.contracts.errors import ConfigError, Fault, SchemaError, names
from waypost.contracts.records import Watcher
from waypost.contracts.tables import (
    ROUTING_SCHEMA,
    SPLITS,
    VERDICT_COLUMNS,
    read_routing_table,
    replace_table,
    split_path,
)
from waypost.contracts.verdicts import MAX_VERDICTS, read_verdict, verdict_call
from waypost.pipelines.data.calls.ask import ask, limiter_of, stream_of
from waypost.pipelines.data.calls.log import LogIndex
from waypost.pipelines.data.calls.requests import cell_id
from waypost.pipelines.data.calls.worker import ANSWERS
from waypost.pipelines.data.config import DataConfig, LLMConfig, load_data_config, run_folder
from waypost.pipelines.data.responses import actor_cpus, cells_folder
from waypost.ray_session import quiet_ray_data, ray_session
from waypost.storage import place

logger = logging.getLogger(__name__)

Cells = dict[tuple[str, int], list[dict[str, Any]]]
"""The requests of each answer, by split and row."""


def run(
    config_path: str | Path,
    overrides: Sequence[str] = (),
    models: Sequence[str] = (),
    samples: int = 4,
    progress: Watcher | None = None,
) -> str:
    """Ask for the missing verdicts, then write the columns.

    Args:
        config_path: YAML of the `DataConfig` that the answers were made with.
        overrides: ``key=value`` settings on top of it.
        models: LLMs to ask; empty asks all but the most expensive, the last of the cascade.
        samples: Verdicts on each answer, at most `MAX_VERDICTS`.
        progress: Called with an LLM's name, and its finished and total verdicts.

    Returns:
        The folder as in the config.

    Raises:
        ConfigError: The config, ``models`` or ``samples`` is invalid.
        SchemaError: The folder has no routing data, or no answer of one of the models.
        WaypostError: An engine cannot start.
    """
    config_path = Path(config_path)
    config = load_data_config(config_path, overrides)
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
    with run_folder(config_path, config) as folder:
        _record(folder, config, models, samples, progress)
    return str(place(config.out))


def _record(
    folder: Path,
    config: DataConfig,
    models: Sequence[str],
    samples: int,
    progress: Watcher | None,
) -> None:
    tables = _read(folder)
    found: dict[str, dict[int, dict[str, Any]]] = {split: {} for split in tables}
    asked = {name: _cells(name, config.llms[name], tables, samples) for name in models}
    if lacking := [name for name, cells in asked.items() if not cells]:
        problem = f"holds no answer of {names(lacking)}; run `waypost data responses`"
        raise SchemaError(f"{folder}: {problem}")
    known = {name: _known(cells_folder(folder, name), cells) for name, cells in asked.items()}
    # The verdicts of an answer are adjacent, so an engine can reuse the prefix of their prompt.
    todo = {
        name: {
            one["key"]: one for of in cells.values() for one in of if one["key"] not in known[name]
        }
        for name, cells in asked.items()
    }
    if any(todo.values()):
        with ray_session():
            quiet_ray_data()
            for name, requests in todo.items():
                known[name] |= _ask(folder, name, config.llms[name], requests, progress)
    for name, cells in asked.items():
        for (split, row), of in cells.items():
            found[split][row] = _row([known[name][one["key"]] for one in of])
    for split, table in tables.items():
        replace_table(split_path(folder, split), _with_columns(table, found[split]))


def _all_but_the_dearest(config: DataConfig) -> list[str]:
    prices = {name: llm.info(name).blended_price for name, llm in config.llms.items()}
    known = {name: price for name, price in prices.items() if price is not None}
    if len(known) < len(prices) or len(known) < 2:
        raise ConfigError(
            [Fault("llms", "the most expensive one is unknown; name those to ask (--model)")]
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


def _cells(name: str, llm_config: LLMConfig, tables: Mapping[str, pa.Table], samples: int) -> Cells:
    cells: Cells = {}
    for split, table in tables.items():
        n = len(table)
        choices = table["choices"].to_pylist() if "choices" in table.column_names else [None] * n
        columns = (table[c].to_pylist() for c in ("model_name", "query", "response", "error"))
        for row, (model, query, response, error) in enumerate(zip(*columns, strict=True)):
            if model == name and response is not None and error is None:
                text = with_choices(query, choices[row])
                cells[split, row] = [
                    _request(name, llm_config, text, response, sample) for sample in range(samples)
                ]
    return cells


def _request(
    name: str, llm_config: LLMConfig, question: str, answer: str, sample: int
) -> dict[str, Any]:
    call = verdict_call(name, question, answer, sample)
    request = {
        "prompt": call.prompt,
        "max_tokens": call.max_tokens,
        "temperature": float(call.temperature),
        "top_p": 1.0,
        "seed": call.seed,
    }
    return {"key": cell_id(name, llm_config, request), **request}


def _known(folder: Path, cells: Cells) -> dict[bytes, Mapping[str, Any]]:
    with LogIndex(folder, ANSWERS) as cache:
        found = {one["key"]: cache.get(one["key"]) for asked in cells.values() for one in asked}
    return {key: record for key, record in found.items() if record is not None}


def _ask(
    folder: Path,
    name: str,
    llm_config: LLMConfig,
    requests: Mapping[bytes, Mapping[str, Any]],
    progress: Watcher | None,
) -> dict[bytes, Mapping[str, Any]]:
    logs, limiter = cells_folder(folder, name), limiter_of({name: llm_config})
    source = stream_of(name, llm_config, logs, limiter, actor_cpus(llm_config))
    records = ask(source, list(requests.values()), progress)
    if failed := sum(record["error"] is not None for record in records.values()):
        logger.warning("%s: %d of %d verdicts failed", name, failed, len(requests))
    return records


def _row(records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
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
    for name in VERDICT_COLUMNS:
        kept = table[name].to_pylist() if name in table.column_names else [None] * len(table)
        values = [rows[row].get(name) if row in rows else old for row, old in enumerate(kept)]
        field = ROUTING_SCHEMA.field(name)
        column = pa.array(values, type=field.type)
        if name in table.column_names:
            table = table.set_column(table.column_names.index(name), field, column)
        else:
            table = table.append_column(field, column)
    return table
