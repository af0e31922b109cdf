"""What a decision log knows of requests, for routing data of the feedback about them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from waypost.contracts.duplicates import same_text_key
from waypost.feedback.database import DATABASE

Row = dict[str, Any]

_SAME = (
    "request_id", "query_id", "query", "user_id", "session_id", "router", "router_version",
    "decided_model", "model_name", "lambda", "characters", "routed_tokens", "input_tokens",
    "output_tokens", "cost_usd", "latency_s",
)  # fmt: skip


def parts_of(source: Path) -> tuple[Path, Path | None]:
    """Return the folder of feedback, and that of decisions, in a folder that may have both.

    Each is the folder itself or one in it. A folder without feedback stands for itself.
    """
    every = [source, *sorted(child for child in source.iterdir() if child.is_dir())]
    feedback = next((one for one in every if (one / DATABASE).is_file()), source)
    return feedback, next((one for one in every if any(one.glob("date=*"))), None)


def requests_about(table: pa.Table, rated: Mapping[str, Row]) -> dict[str, Row]:
    """Return the answered requests of a log that ask what a rated request asks.

    Args:
        table: Rows of `read_decisions`.
        rated: Request id -> row, as of `read_rated`.

    Returns:
        Request id -> columns as of `read_rated` where the log has them, and ``predicted_usd`` of
        the LLM that answered, ``characters`` and ``routed_tokens`` of the text. A text that the
        log lacks is that of a rated request of the same ``query_id``.
    """
    answered = table.filter(pc.is_valid(table["model_name"]))
    texts = dict(zip(*(answered[name].to_pylist() for name in ("query_id", "query")), strict=True))
    texts = {key: text for key, text in texts.items() if text is not None}
    texts |= {row["query_id"]: row["query"] for row in rated.values() if row["query"] is not None}
    ids = {row["query_id"] for row in rated.values()}
    wanted = {same_text_key(texts[key]) for key in ids & set(texts)}
    ids |= {key for key, text in texts.items() if same_text_key(text) in wanted}
    mine = answered.filter(pc.is_in(answered["query_id"], pa.array(sorted(ids), pa.string())))
    return {row["request_id"]: _request(row, texts) for row in mine.to_pylist()}


def _request(row: Row, texts: Mapping[str, str]) -> Row:
    found = {name: row[name] for name in _SAME}
    model, ranking = row["model_name"], row["ranking"] or []
    for name, column in (("predicted_quality", "quality"), ("predicted_usd", "predicted_usd")):
        values = dict(zip(ranking, row[column] or [], strict=False))
        found[name] = values.get(model)
    found["propensity"] = row["propensity"] if model == row["decided_model"] else None
    return found | {"query": row["query"] or texts.get(row["query_id"])}


def with_log(request: Row, logged: Row | None) -> Row:
    """Return a rated request with what the log knows beyond it."""
    if logged is None:
        return request
    return {**logged, **{name: value for name, value in request.items() if value is not None}}
