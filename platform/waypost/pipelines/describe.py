"""What a routing-data folder holds, in numbers, gaps and all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from waypost.contracts.cost import column_mean
from waypost.contracts.errors import SchemaError, names
from waypost.contracts.questions import queries_path, read_questions
from waypost.contracts.records import LLMInfo
from waypost.contracts.routing_data import RoutingData, from_table
from waypost.contracts.splits import leaks
from waypost.contracts.tables import SPLITS, read_llms, read_routing_table, split_path
from waypost.metrics.headroom import headroom, ties
from waypost.pipelines.describe_calls import call_table, calls, cell_states, money, per_llm
from waypost.pipelines.embed import stored_embeddings, text_digest
from waypost.pipelines.llm_embeddings import llm_text
from waypost.report.numbers import plain

_MATRICES = ("quality", "input_tokens", "output_tokens", "cost_usd", "latency_s")


@dataclass(frozen=True, eq=False)
class _Split:
    """One split.

    Attributes:
        calls: Its rows, see `call_table`.
        data: The same as matrices, with a column for every LLM of ``llms.json``.
        states: What became of each cell, (n_queries, n_llms), see `cell_states`.
    """

    calls: pa.Table
    data: RoutingData
    states: NDArray[np.int8]


def describe(folder: str | Path) -> dict[str, Any]:
    """Say what a routing-data folder holds.

    Near-duplicates are those of `duplicate_groups`, leaks those of `leaks`; the best single LLM
    is chosen in hindsight.

    Returns:
        Plain data, null where a number is unknown: ``splits``, ``leaks``, ``unasked`` (questions
        of ``queries_<split>.jsonl`` without any row), ``tasks`` (task -> split -> questions),
        ``llms`` (facts, score, gaps, cost, tokens, latency of each), ``scores`` (task -> LLM),
        ``calls`` and ``costs`` (of all LLMs), ``ties`` and ``headroom`` (of each split and of
        ``all``), ``embeddings``.

    Raises:
        SchemaError: the folder is no routing-data folder, or a file of it is wrong.
        ConfigError: a line of its ``queries_<split>.jsonl`` is wrong.
    """
    folder = Path(folder)
    splits = _read(folder)
    data = _pooled({name: split.data for name, split in splits.items()})
    table = pa.concat_tables([split.calls for split in splits.values()])
    states = np.concatenate([split.states for split in splits.values()])
    unasked = _unasked(folder, {name: split.data for name, split in splits.items()})
    llms = per_llm(data, states, table, sum(unasked.values()))
    parts = {name: split.data for name, split in splits.items()} | {"all": data}
    report = {
        "folder": str(folder),
        "splits": {
            name: {
                "rows": split.calls.num_rows,
                "questions": len(split.data),
                "near_duplicates": len(split.data) - len(np.unique(split.data.groups)),
            }
            for name, split in splits.items()
        },
        "leaks": [
            {"of": b, "in": a, "questions": int(leaks(one.data.queries, other.data.queries).sum())}
            for (a, one), (b, other) in combinations(splits.items(), 2)
        ],
        "unasked": unasked,
        "tasks": _tasks({name: split.data for name, split in splits.items()}),
        "llms": llms,
        "scores": _scores(data),
        "calls": calls(table, llms),
        "costs": money(data, llms),
        "ties": {name: asdict(ties(part.quality)) for name, part in parts.items()},
        "headroom": {name: _headroom(part) for name, part in parts.items()},
        "embeddings": {
            "queries": _embeddings(folder, "query", data.queries),
            "llms": _embeddings(folder, "llm", [llm_text(llm) for llm in data.llms]),
        },
    }
    described: dict[str, Any] = plain(report)
    return described


def _read(folder: Path) -> dict[str, _Split]:
    there = [split for split in SPLITS if split_path(folder, split).is_file()]
    if not there:
        asked = any(queries_path(folder, split).is_file() for split in SPLITS)
        raise SchemaError(
            f"{folder}: holds questions and no answers yet; run `waypost data responses`"
            if asked
            else f"{folder}: no routing-data folder; one holds llms.json and routing_train.parquet "
            "(or the validation or test split); make one with `waypost data run`"
        )
    llms = read_llms(folder / "llms.json")
    return {split: _read_split(folder, split, llms) for split in there}


def _read_split(folder: Path, split: str, llms: Sequence[LLMInfo]) -> _Split:
    path = split_path(folder, split)
    table = read_routing_table(path)
    known = {llm.name for llm in llms}
    if unknown := sorted(set(table["model_name"].unique().to_pylist()) - known):
        raise SchemaError(f"{path}: model_name {names(unknown)} is not in {folder / 'llms.json'}")
    data = from_table(table, llms, str(path))
    return _Split(call_table(table), data, cell_states(table, data))


def _unasked(folder: Path, splits: Mapping[str, RoutingData]) -> dict[str, int]:
    with_rows = {name: set(data.query_ids) for name, data in splits.items()}
    return {
        split: sum(one.query_id not in with_rows.get(split, ()) for one in read_questions(path))
        for split in SPLITS
        if (path := queries_path(folder, split)).is_file()
    }


def _pooled(splits: Mapping[str, RoutingData]) -> RoutingData:
    """Join the splits, without what only some of them have."""
    parts = list(splits.values())
    matrices: dict[str, Any] = {
        name: np.concatenate([getattr(one, name) for one in parts]) for name in _MATRICES
    }
    return replace(
        parts[0],
        # an id may stand in two splits, which is no reason to describe neither
        query_ids=tuple(f"{name}/{key}" for name, one in splits.items() for key in one.query_ids),
        queries=tuple(text for one in parts for text in one.queries),
        task_names=tuple(task for one in parts for task in one.task_names),
        **matrices,
        verdicts=None,
        verify_input_tokens=None,
        verify_output_tokens=None,
    )


def _tasks(splits: Mapping[str, RoutingData]) -> dict[str, dict[str, int]]:
    counts = {name: Counter(data.task_names) for name, data in splits.items()}
    tasks = sorted({task for one in counts.values() for task in one})
    return {task: {name: one[task] for name, one in counts.items()} for task in tasks}


def _scores(data: RoutingData) -> dict[str, dict[str, dict[str, float]]]:
    tasks = np.array(data.task_names)
    found = {}
    for task in sorted(set(data.task_names)):
        quality = data.quality[tasks == task]
        counts = (~np.isnan(quality)).sum(axis=0).tolist()
        cells = zip(data.names, column_mean(quality).tolist(), counts, strict=True)
        found[task] = {name: {"mean": mean, "measured": count} for name, mean, count in cells}
    return found


def _headroom(data: RoutingData) -> dict[str, Any] | None:
    found = headroom(data.quality)
    if found is None:
        return None
    return asdict(found) | {"best": data.names[found.best], "headroom": found.headroom}


def _embeddings(folder: Path, of: str, texts: Sequence[str]) -> list[dict[str, Any]]:
    wanted = {text_digest(text) for text in texts}
    return [
        {
            "encoder": encoder,
            "dimension": width,
            "texts": len(wanted),
            "embedded": len(wanted & has),
        }
        for encoder, (width, has) in stored_embeddings(folder, of).items()
    ]
