"""Describe a routing-data folder: scores, missing cells, costs, tokens and latency.

A cell is a pair of a question and an LLM of ``llms.json``. It is missing without a row, failed if
its row has an error and no score, unscored if its row has neither, and otherwise measured.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from waypost.contracts.cost import column_mean
from waypost.contracts.errors import SchemaError, names
from waypost.contracts.questions import queries_path, read_questions
from waypost.contracts.records import LLMInfo
from waypost.contracts.routing_data import RoutingData, from_table
from waypost.contracts.splits import leaks
from waypost.contracts.tables import SPLITS, read_llms, read_routing_table, split_path
from waypost.metrics.behaviour import headroom, ties
from waypost.metrics.costs import costs_of
from waypost.pipelines.data.embeddings import stored_embeddings, text_digest
from waypost.pipelines.data.llm_embeddings import llm_text
from waypost.report.numbers import plain

MISSING, FAILED, UNSCORED, MEASURED = range(4)

_FACTS = {"size", "input_price", "output_price", "context_length"}
_KIND_LENGTH = 40
_MATRICES = ("quality", "input_tokens", "output_tokens", "cost_usd", "latency_s")


def call_table(table: pa.Table) -> pa.Table:
    """Reduce a routing table to ``model_name``, ``performance``, ``error``, ``scorer_version``, and
    whether ``response`` and ``verdicts`` are set.
    """
    nothing = pa.nulls(table.num_rows, pa.string())

    def column(name: str) -> Any:
        return table[name] if name in table.column_names else pa.chunked_array([nothing])

    return pa.table(
        {
            "model_name": table["model_name"],
            "performance": table["performance"],
            "error": column("error"),
            "scorer_version": column("scorer_version"),
            "response": pc.is_valid(column("response")),
            "verdicts": pc.is_valid(column("verdicts")),
        }
    )


def cell_states(table: pa.Table, data: RoutingData) -> NDArray[np.int8]:
    """Return the state of each cell, shape (n_queries, n_llms): `MISSING` to `MEASURED`.

    Args:
        table: A routing table.
        data: The same as matrices.
    """
    unscored = pc.is_null(table["performance"])
    state = np.full(table.num_rows, MEASURED, np.int8)
    state[unscored.to_numpy()] = UNSCORED
    if "error" in table.column_names:
        state[pc.and_(unscored, pc.is_valid(table["error"])).to_numpy()] = FAILED
    rows = pc.index_in(table["query_id"], pa.array(data.query_ids)).to_numpy()
    columns = pc.index_in(table["model_name"], pa.array(data.names)).to_numpy()
    states = np.full(data.quality.shape, MISSING, np.int8)
    states[rows, columns] = state
    return states


def per_llm(
    data: RoutingData, states: NDArray[np.int8], table: pa.Table, unasked: int
) -> dict[str, dict[str, Any]]:
    """Describe each LLM: facts, mean score, states of its cells, dollars, tokens and seconds.

    Args:
        data: All splits.
        states: States of their cells, see `cell_states`.
        table: Their rows, see `call_table`.
        unasked: Number of questions without a row of any LLM.
    """
    means, usd = column_mean(data.quality), costs_of(data).usd
    failed = table.filter(
        pc.and_(pc.is_null(table["performance"]), pc.is_valid(table["error"]))
    ).select(["model_name", "error"])
    tokens = [column_mean(matrix) for matrix in (data.input_tokens, data.output_tokens)]
    found = {}
    for j, llm in enumerate(data.llms):
        missing, _, unscored, measured = np.bincount(states[:, j], minlength=4).tolist()
        priced = usd[:, j][~np.isnan(usd[:, j])]
        latency = data.latency_s[:, j][~np.isnan(data.latency_s[:, j])]
        found[llm.name] = {
            **llm.model_dump(include=_FACTS),
            "mean": float(means[j]),
            "measured": measured,
            "missing": missing + unasked,
            "failed": _kinds(failed.filter(pc.equal(failed["model_name"], llm.name))["error"]),
            "unscored": unscored,
            "cost_usd": float(priced.sum()) if len(priced) else np.nan,
            "cost_usd_per_call": float(priced.mean()) if len(priced) else np.nan,
            "unknown_costs": int(((states[:, j] >= UNSCORED) & np.isnan(usd[:, j])).sum()),
            "input_tokens": float(tokens[0][j]),
            "output_tokens": float(tokens[1][j]),
            "latency_s": {
                name: float(np.quantile(latency, share)) if len(latency) else np.nan
                for name, share in (("p50", 0.5), ("p95", 0.95))
            },
        }
    return found


def calls(table: pa.Table, llms: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Count the calls of all LLMs together."""
    failed: Counter[str] = sum((Counter(one["failed"]) for one in llms.values()), Counter())
    scored = table.filter(pc.is_valid(table["performance"]))
    versions = Counter(scored["scorer_version"].to_pylist())
    return {
        "rows": table.num_rows,
        **{key: sum(one[key] for one in llms.values()) for key in ("measured", "missing")},
        "failed": dict(failed.most_common()),
        "unscored": sum(one["unscored"] for one in llms.values()),
        "with_response": pc.sum(table["response"]).as_py(),
        "with_verdicts": pc.sum(table["verdicts"]).as_py(),
        "scorer_versions": {version or "unknown": count for version, count in versions.items()},
    }


def money(data: RoutingData, llms: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Return the total cost of the calls and its basis."""
    known = [usd for one in llms.values() if not np.isnan(usd := one["cost_usd"])]
    return {
        "basis": costs_of(data).basis,
        "usd": sum(known) if known else np.nan,
        "unknown": sum(one["unknown_costs"] for one in llms.values()),
    }


def _kinds(errors: pa.ChunkedArray) -> dict[str, int]:
    """Count errors by the text before the first colon, the most frequent first."""
    texts = errors.drop_null().to_pylist()
    kinds = Counter(text.partition(":")[0].strip()[:_KIND_LENGTH] or "unnamed" for text in texts)
    return dict(kinds.most_common())


@dataclass(frozen=True, eq=False)
class _Split:
    """One split.

    Attributes:
        calls: Its rows, see `call_table`.
        data: The same as matrices, with a column for every LLM of ``llms.json``.
        states: State of each cell, (n_queries, n_llms), see `cell_states`.
    """

    calls: pa.Table
    data: RoutingData
    states: NDArray[np.int8]


def describe(folder: str | Path) -> dict[str, Any]:
    """Describe the content of a routing-data folder.

    Near-duplicates are those of `duplicate_groups`, leaks those of `leaks`; the best single LLM
    is chosen in hindsight.

    Returns:
        Plain data, null where a number is unknown: ``splits``, ``leaks``, ``unasked`` (questions
        of ``queries_<split>.jsonl`` without any row), ``tasks`` (task -> split -> questions),
        ``llms`` (facts, score, gaps, cost, tokens, latency of each), ``scores`` (task -> LLM),
        ``calls`` and ``costs`` (of all LLMs), ``ties`` and ``headroom`` (of each split and of
        ``all``), ``embeddings``.

    Raises:
        SchemaError: The folder is not a routing-data folder, or a file of it is invalid.
        ConfigError: A line of its ``queries_<split>.jsonl`` is invalid.
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
    """Join the splits, without fields that only some of them have."""
    parts = list(splits.values())
    matrices: dict[str, Any] = {
        name: np.concatenate([getattr(one, name) for one in parts]) for name in _MATRICES
    }
    return replace(
        parts[0],
        # an id can occur in two splits
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
