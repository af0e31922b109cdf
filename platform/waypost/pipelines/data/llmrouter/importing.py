"""Import LLMRouter's files as a routing-data folder."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from waypost.contracts.atomic import new_folder
from waypost.contracts.choices import with_choices
from waypost.contracts.errors import SchemaError
from waypost.contracts.records import LLMInfo
from waypost.contracts.tables import (
    ROUTING_SCHEMA,
    read_llms,
    split_path,
    write_llms,
    write_routing_table,
)
from waypost.pipelines.data.llmrouter.configs import find_files, map_config, write_config
from waypost.pipelines.data.llmrouter.formats import FURTHER, read_lines, read_pt, store_vectors

_BESIDE = (*FURTHER, "token_num")
_AMOUNTS = ("input_tokens", "output_tokens", "token_num", "cost_usd", "latency_s", "error")

ImportedRow = dict[str, Any]


def import_llmrouter(source: str | Path, target: str | Path) -> dict[str, Any]:
    """Write a routing-data folder from LLMRouter's files.

    A question is identified by ``query_id`` where the lines have one, else by its text, task,
    answer, metric and choices. Questions are numbered in order of appearance over all splits. A
    repeated line of one LLM is left out if all outcomes are equal. With other outcomes it counts as
    a repetition with its own id (``12#2``), and both stay in one split.

    Args:
        source: Folder with LLMRouter's files, or one of its configs.
        target: Written atomically; must not exist.

    Returns:
        JSON-able: ``splits`` (name -> file, rows, queries, failed calls, repeated lines left
        out), ``llms``, ``embeddings`` (number of vectors stored), ``configs`` (result of each, and
        the keys without a counterpart), ``unknown_fields`` and ``ignored`` files.

    Raises:
        ConfigError: Files are missing or ambiguous, or the target exists.
        SchemaError: A file is invalid; the message has file and line, or file and key.
    """
    found = find_files(source)
    llms = read_llms(found.llms)
    numbers: dict[str, int] = {}
    splits = {split: _Split(path, numbers) for split, path in found.routing.items()}
    for one in splits.values():
        one.read(llms, found.llms)
    configs = [map_config(path) for path in found.configs]
    # LLMRouter writes no id where its encoder failed; such questions have no vector.
    rows = [
        (one.path, row)
        for one in splits.values()
        for row in one.rows
        if row["embedding_id"] is not None
    ]
    vectors = [] if found.vectors is None else _vectors(found.vectors, rows)
    with new_folder(target) as folder:
        for split, one in splits.items():
            write_routing_table(split_path(folder, split), _columns(one.rows))
        write_llms(folder / "llms.json", llms)
        if vectors:
            store_vectors(
                folder, [with_choices(row["query"], row["choices"]) for _, row in rows], vectors
            )
        for config in configs:
            if config.router is not None:
                write_config(folder / config.file_name, config)
    return {
        "splits": {split: one.counts() for split, one in splits.items()},
        "llms": len(llms),
        "embeddings": len({id(vector) for vector in vectors}),
        "configs": [one.to_dict() for one in configs if one.router or one.unmapped],
        "unknown_fields": sorted({name for one in splits.values() for name in one.unknown}),
        "ignored": [str(path) for path in found.ignored],
    }


@dataclass
class _Split:
    """The rows of a routing file; files share ``numbers``, so question ids are shared too."""

    path: Path
    numbers: dict[str, int]
    rows: list[ImportedRow] = field(default_factory=list)
    unknown: set[str] = field(default_factory=set)
    repeated: int = 0

    def read(self, llms: Iterable[LLMInfo], llms_path: Path) -> None:
        known = {llm.name for llm in llms}
        seen: dict[tuple[str, str], list[tuple[Any, ...]]] = {}
        for line, row in read_lines(self.path):
            where = f"{self.path}: line {line}"
            if row["model_name"] not in known:
                raise SchemaError(f"{where}: model_name {row['model_name']} is not in {llms_path}")
            self.unknown |= set(row.pop("unknown"))
            key = self._key(row)
            outcomes = seen.setdefault((key, row["model_name"]), [])
            outcome = tuple(row[name] for name in ("performance", "response", *_AMOUNTS))
            if outcome in outcomes:
                self.repeated += 1
                continue
            outcomes.append(outcome)
            count = len(outcomes)
            row |= {"query_id": key if count == 1 else f"{key}#{count}", "line": line}
            self.rows.append(row)
        if all(row["performance"] is None for row in self.rows):
            raise SchemaError(f"{self.path}: holds no line with a performance")

    def _key(self, row: ImportedRow) -> str:
        if row["query_id"] is not None:
            return str(row["query_id"])
        question = ("task_name", "query", "ground_truth", "metric", "choices")
        text = json.dumps([row[name] for name in question])
        return str(self.numbers.setdefault(text, len(self.numbers)))

    def counts(self) -> dict[str, Any]:
        return {
            "file": str(self.path),
            "rows": len(self.rows),
            "queries": len({row["query_id"] for row in self.rows}),
            "failed_calls": sum(row["error"] is not None for row in self.rows),
            "repeated": self.repeated,
        }


def _columns(rows: list[ImportedRow]) -> dict[str, list[Any]]:
    further = [name for name in _BESIDE if any(row.get(name) is not None for row in rows)]
    wanted = (*(column.name for column in ROUTING_SCHEMA), *further)
    return {name: [row.get(name) for row in rows] for name in wanted}


def _vectors(path: Path, rows: list[tuple[Path, ImportedRow]]) -> list[Any]:
    vectors = read_pt(path)
    for file, row in rows:
        if row["embedding_id"] not in vectors:
            raise SchemaError(
                f"{file}: line {row['line']}: embedding_id {row['embedding_id']} is not in {path}"
            )
    return [vectors[row["embedding_id"]] for _, row in rows]
