"""What became of the calls of a routing-data folder: scores, gaps, costs, tokens, latency.

A cell is a question and an LLM of ``llms.json``. It is missing where it has no row, failed where
its row has an error and no score, unscored where its row has neither, and else measured.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from waypost.contracts.cost import column_mean
from waypost.contracts.routing_data import RoutingData
from waypost.metrics.costs import costs_of

MISSING, FAILED, UNSCORED, MEASURED = range(4)

_FACTS = {"size", "input_price", "output_price", "context_length"}
_KIND_LENGTH = 40


def call_table(table: pa.Table) -> pa.Table:
    """Keep of a routing table what is counted here: ``model_name``, ``performance``, ``error``,
    ``scorer_version``, and whether there is a ``response`` and ``verdicts``.
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
    """Return what became of each cell, shape (n_queries, n_llms): `MISSING` to `MEASURED`.

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
        states: Theirs, see `cell_states`.
        table: Their rows, see `call_table`.
        unasked: Questions that no LLM has a row for.
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
    """Add up what the calls cost, and say where that is known from."""
    known = [usd for one in llms.values() if not np.isnan(usd := one["cost_usd"])]
    return {
        "basis": costs_of(data).basis,
        "usd": sum(known) if known else np.nan,
        "unknown": sum(one["unknown_costs"] for one in llms.values()),
    }


def _kinds(errors: pa.ChunkedArray) -> dict[str, int]:
    """Count errors by what stands before the first colon; the most frequent first."""
    texts = errors.drop_null().to_pylist()
    kinds = Counter(text.partition(":")[0].strip()[:_KIND_LENGTH] or "unnamed" for text in texts)
    return dict(kinds.most_common())
