"""Routing data in memory: the immutable training data of every router."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from waypost.contracts.choices import with_choices
from waypost.contracts.duplicates import duplicate_groups
from waypost.contracts.errors import SchemaError, names
from waypost.contracts.feedback import UserEvents, events_of
from waypost.contracts.pricing import dollars
from waypost.contracts.records import LLMInfo, Query, QueryBatch
from waypost.contracts.responses import Responses, responses_of
from waypost.contracts.tables import (
    read_llms,
    read_routing_table,
    split_path,
    write_llms,
    write_routing_table,
)
from waypost.contracts.verdicts import MAX_VERDICTS, parse_verdicts, verdicts_text

Matrix = NDArray[np.float64]

_VERIFICATION = ("verdicts", "verify_input_tokens", "verify_output_tokens")


@dataclass(frozen=True, eq=False)
class RoutingData:
    """Measured outcomes of n queries on m LLMs.

    All matrices are float64 of shape (n_queries, n_llms), columns as in ``llms``; NaN is
    "not measured" and never means zero. One LLM and one query are enough. Optional columns of
    `ROUTING_SCHEMA` that a table lacks are None.

    Attributes:
        query_ids: Keys of the rows, unique.
        queries: The texts that are routed on: each question with its options (`with_choices`).
        task_names: Benchmark or task of each query; empty where unknown.
        llms: The candidates, in the order of the columns; each has at least one score.
        quality: Scores in [0, 1].
        input_tokens: Prompt tokens.
        output_tokens: Generated tokens.
        cost_usd: Recorded dollars of the call.
        latency_s: Seconds of the call.
        embeddings: float32 (n_queries, d), unit rows, or None.
        encoder_id: Id of the encoder that made the embeddings, or None.
        verdicts: float32 (n_queries, n_llms, `MAX_VERDICTS`), verdicts of each LLM on its own
            answer: 1 correct, 0 wrong or unreadable, NaN where it was not asked. None where the
            data has no verdicts.
        verify_input_tokens: Prompt tokens of all verdicts of a cell; None without verdicts.
        verify_output_tokens: Generated tokens of all verdicts of a cell; None without verdicts.
        events: Feedback of users on these questions; None where the data has none.
        responses: Recorded answers and their metrics; None where they were not read.
    """

    query_ids: tuple[str, ...]
    queries: tuple[str, ...]
    task_names: tuple[str, ...]
    llms: tuple[LLMInfo, ...]
    quality: Matrix
    input_tokens: Matrix
    output_tokens: Matrix
    cost_usd: Matrix
    latency_s: Matrix
    embeddings: NDArray[np.float32] | None = None
    encoder_id: str | None = None
    verdicts: NDArray[np.float32] | None = None
    verify_input_tokens: Matrix | None = None
    verify_output_tokens: Matrix | None = None
    events: UserEvents | None = None
    responses: Responses | None = None

    def __post_init__(self) -> None:
        n, m = len(self.query_ids), len(self.llms)
        for name in ("queries", "task_names"):
            if len(getattr(self, name)) != n:
                raise SchemaError(f"routing data: {len(getattr(self, name))} {name} for {n} ids")
        for name in ("quality", "input_tokens", "output_tokens", "cost_usd", "latency_s"):
            if getattr(self, name).shape != (n, m):
                found = getattr(self, name).shape
                raise SchemaError(f"routing data: {name} has shape {found}; expected {(n, m)}")
        shapes = {np.shape(getattr(self, name))[:2] for name in _VERIFICATION}
        if shapes not in ({()}, {(n, m)}):
            raise SchemaError(
                f"routing data: {names(_VERIFICATION)} come together, each for {(n, m)} answers"
            )
        if self.responses is not None and self.responses.rows.shape != (n, m):
            found = self.responses.rows.shape
            raise SchemaError(f"routing data: responses have shape {found}; expected {(n, m)}")
        if self.embeddings is not None and self.embeddings.shape[:1] != (n,):
            raise SchemaError(f"routing data: {len(self.embeddings)} embeddings for {n} queries")
        if len(set(self.query_ids)) != n:
            raise SchemaError("routing data: a query_id stands twice; it is the key")

    def __len__(self) -> int:
        return len(self.query_ids)

    def __repr__(self) -> str:
        n, m = self.quality.shape
        scores = int((~np.isnan(self.quality)).sum())
        embedded = "" if self.encoder_id is None else f"; embedded by {self.encoder_id}"
        return (
            f"<RoutingData: {n} queries, {scores} of {n * m} scores; LLMs {names(self.names)}"
            f"{embedded}>"
        )

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the LLMs, in the order of the columns."""
        return tuple(llm.name for llm in self.llms)

    @cached_property
    def digest(self) -> str:
        """sha256 over ids, texts, names and outcomes."""
        sha = hashlib.sha256()
        for values in (self.query_ids, self.queries, self.task_names, self.names):
            sha.update("\x1f".join(values).encode("utf-8", "surrogatepass") + b"\x1e")
        for matrix in (self.quality, self.input_tokens, self.output_tokens, self.cost_usd):
            sha.update(np.ascontiguousarray(matrix, dtype="<f8").tobytes())
        if self.events is not None:
            sha.update(self.events.digest.encode())
        return sha.hexdigest()

    @cached_property
    def groups(self) -> NDArray[np.intp]:
        """Number of each row's group of near-duplicate queries, shape (n_queries,)."""
        return duplicate_groups(self.queries)

    @cached_property
    def prices(self) -> Matrix:
        """USD per million tokens, shape (n_llms, 2): prompt, generated; NaN where unknown."""
        return np.array(
            [
                [
                    np.nan if price is None else price
                    for price in (llm.input_price, llm.output_price)
                ]
                for llm in self.llms
            ],
            dtype=np.float64,
        ).reshape(-1, 2)

    def select(self, rows: Sequence[int] | NDArray[Any]) -> RoutingData:
        """Return the data of some rows (indices or a boolean mask), LLMs unchanged."""
        index = np.asarray(rows)
        index = np.flatnonzero(index) if index.dtype == bool else index.astype(np.intp)
        return replace(
            self,
            query_ids=tuple(self.query_ids[i] for i in index),
            queries=tuple(self.queries[i] for i in index),
            task_names=tuple(self.task_names[i] for i in index),
            quality=self.quality[index],
            input_tokens=self.input_tokens[index],
            output_tokens=self.output_tokens[index],
            cost_usd=self.cost_usd[index],
            latency_s=self.latency_s[index],
            embeddings=None if self.embeddings is None else self.embeddings[index],
            events=None if self.events is None else self.events.of_rows(index, len(self)),
            responses=None if self.responses is None else self.responses.of_rows(index),
            **self._verification(lambda values: values[index]),
        )

    def select_llms(self, wanted: Sequence[str]) -> RoutingData:
        """Return the data of some LLMs, in the given order.

        Raises:
            SchemaError: where one of the names is not in the data.
        """
        if unknown := [name for name in wanted if name not in self.names]:
            raise SchemaError(
                f"routing data: no LLM named {names(unknown)}; it has {names(self.names)}"
            )
        columns = [self.names.index(name) for name in wanted]
        return replace(
            self,
            llms=tuple(self.llms[j] for j in columns),
            quality=self.quality[:, columns],
            input_tokens=self.input_tokens[:, columns],
            output_tokens=self.output_tokens[:, columns],
            cost_usd=self.cost_usd[:, columns],
            latency_s=self.latency_s[:, columns],
            events=None if self.events is None else self.events.of_llms(columns, len(self.llms)),
            responses=None if self.responses is None else self.responses.of_llms(columns),
            **self._verification(lambda values: values[:, columns]),
        )

    def _verification(self, part: Callable[[NDArray[Any]], NDArray[Any]]) -> dict[str, Any]:
        values = {key: getattr(self, key) for key in _VERIFICATION}
        return {key: None if value is None else part(value) for key, value in values.items()}

    @cached_property
    def verdict_cost_usd(self) -> Matrix:
        """Dollars of one verdict at list prices, shape (n_queries, n_llms); NaN where unknown."""
        if self.verdicts is None:
            return np.full(self.quality.shape, np.nan)
        count = (~np.isnan(self.verdicts)).sum(axis=2)
        assert self.verify_input_tokens is not None  # they come together
        assert self.verify_output_tokens is not None
        spent = dollars(
            self.verify_input_tokens,
            self.verify_output_tokens,
            (self.prices[:, 0], self.prices[:, 1]),
        )
        return np.where(count > 0, spent / np.maximum(count, 1), np.nan)

    def batch(self) -> QueryBatch:
        """Return the questions and embeddings as input of a router."""
        return QueryBatch(tuple(map(Query, self.queries)), self.embeddings)

    def with_embeddings(self, embeddings: NDArray[np.float32], encoder_id: str) -> RoutingData:
        """Return the data with query embeddings, shape (n_queries, d)."""
        return replace(
            self, embeddings=np.ascontiguousarray(embeddings, np.float32), encoder_id=encoder_id
        )


def read_routing_data(
    folder: str | Path, split: str = "train", *, responses: bool = False
) -> RoutingData:
    """Read one split of a routing-data folder.

    LLMs without any score in the split are left out: nothing can be learned about them.

    Args:
        folder: The folder.
        split: Name of the split.
        responses: Whether to keep the texts of the answers, where the table has some.

    Raises:
        SchemaError: names the file and the fault; see `read_routing_table` and `read_llms`. Also
            raised for a repeated (query_id, model_name) pair, a query_id with two texts, and a
            model that is not in ``llms.json``.
    """
    folder = Path(folder)
    path = split_path(folder, split)
    table = read_routing_table(path)
    llms = read_llms(folder / "llms.json")
    known = {llm.name for llm in llms}
    found = set(table["model_name"].unique().to_pylist())
    if unknown := sorted(found - known):
        raise SchemaError(f"{path}: model_name {names(unknown)} is not in {folder / 'llms.json'}")
    measured = set(
        table.filter(pc.is_valid(table["performance"]))["model_name"].unique().to_pylist()
    )
    if not measured:
        raise SchemaError(f"{path}: every performance is null; nothing was measured")
    table = table.filter(pc.is_in(table["model_name"], pa.array(sorted(measured))))
    listed = [llm for llm in llms if llm.name in measured]
    data = from_table(table, listed, str(path), responses=responses)
    return replace(data, events=events_of(folder, split, data.query_ids, data.names))


def from_table(
    table: pa.Table, llms: Sequence[LLMInfo], where: str, *, responses: bool = False
) -> RoutingData:
    """Pivot a long routing table; rows of the result keep the order of first appearance.

    Args:
        table: The table.
        llms: The LLMs of the table, in the order of the columns.
        where: File of the table, for messages.
        responses: Whether to keep the texts of the answers.

    Raises:
        SchemaError: on a repeated key or a query_id with two texts.
    """
    ids = table["query_id"].combine_chunks().dictionary_encode()
    row_of = ids.indices.to_numpy(zero_copy_only=False)
    columns = {llm.name: j for j, llm in enumerate(llms)}
    column_of = np.array([columns[name] for name in table["model_name"].to_pylist()])
    n, m = len(ids.dictionary), len(llms)
    cells = row_of * m + column_of
    if len(np.unique(cells)) != len(cells):
        order, counts = np.unique(cells, return_counts=True)
        row, column = divmod(int(order[np.argmax(counts > 1)]), m)
        raise SchemaError(
            f"{where}: query_id {ids.dictionary[row]} has two rows for {llms[column].name}; "
            "expected one"
        )
    texts, tasks = _texts_by_row(table, row_of, n, where)
    return RoutingData(
        query_ids=tuple(ids.dictionary.to_pylist()),
        queries=texts,
        task_names=tasks,
        llms=tuple(llms),
        quality=_pivot(table, "performance", row_of, column_of, (n, m)),
        input_tokens=_pivot(table, "input_tokens", row_of, column_of, (n, m)),
        output_tokens=_pivot(table, "output_tokens", row_of, column_of, (n, m)),
        cost_usd=_pivot(table, "cost_usd", row_of, column_of, (n, m)),
        latency_s=_pivot(table, "latency_s", row_of, column_of, (n, m)),
        responses=responses_of(table, row_of, column_of, (n, m)) if responses else None,
        **_verification(table, row_of, column_of, (n, m), where),
    )


def _verification(
    table: pa.Table,
    row_of: NDArray[Any],
    column_of: NDArray[Any],
    shape: tuple[int, int],
    where: str,
) -> dict[str, Any]:
    if "verdicts" not in table.column_names or table["verdicts"].null_count == len(table):
        return {}
    verdicts = np.full((*shape, MAX_VERDICTS), np.nan, np.float32)
    for line, text in enumerate(table["verdicts"].to_pylist()):
        if text is not None:
            found = parse_verdicts(text, f"{where}: row {line}")
            verdicts[row_of[line], column_of[line], : len(found)] = found
    return {
        "verdicts": verdicts,
        **{
            name: _pivot(table, name, row_of, column_of, shape)
            for name in ("verify_input_tokens", "verify_output_tokens")
        },
    }


def _texts_by_row(
    table: pa.Table, row_of: NDArray[Any], n: int, where: str
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    queries = table["query"].to_pylist()
    if "choices" in table.column_names:
        choices = table["choices"].to_pylist()
        queries = [with_choices(q, c) for q, c in zip(queries, choices, strict=True)]
    has_task = "task_name" in table.column_names
    tasks = table["task_name"].to_pylist() if has_task else [None] * len(queries)
    texts: list[str | None] = [None] * n
    task_names = [""] * n
    for line, (row, text, task) in enumerate(zip(row_of, queries, tasks, strict=True)):
        if texts[row] is None:
            texts[row], task_names[row] = text, task or ""
        elif texts[row] != text:
            key = table["query_id"][line]
            raise SchemaError(
                f"{where}: query_id {key}: one query_id has two different texts, or other choices"
            )
    return tuple(text or "" for text in texts), tuple(task_names)


def _pivot(
    table: pa.Table,
    column: str,
    row_of: NDArray[Any],
    column_of: NDArray[Any],
    shape: tuple[int, int],
) -> Matrix:
    matrix = np.full(shape, np.nan)
    if column in table.column_names:
        values = table[column].cast(pa.float64()).to_numpy()
        matrix[row_of, column_of] = values
    return matrix


def write_routing_data(folder: str | Path, data: RoutingData, split: str = "train") -> None:
    """Write one split and ``llms.json``: training data of a router; answers where it has them."""
    folder = Path(folder)
    n, m = data.quality.shape
    rows = [(i, j) for i in range(n) for j in range(m) if not np.isnan(data.quality[i, j])]

    def column(matrix: Matrix, cast: type) -> list[Any]:
        return [None if np.isnan(v := matrix[i, j]) else cast(v) for i, j in rows]

    columns: dict[str, list[Any]] = {
        "query_id": [data.query_ids[i] for i, _ in rows],
        "task_name": [data.task_names[i] for i, _ in rows],
        "query": [data.queries[i] for i, _ in rows],
        "model_name": [data.names[j] for _, j in rows],
        "performance": column(data.quality, float),
        "input_tokens": column(data.input_tokens, int),
        "output_tokens": column(data.output_tokens, int),
        "cost_usd": column(data.cost_usd, float),
        "latency_s": column(data.latency_s, float),
    }
    if data.verdicts is not None:
        assert data.verify_input_tokens is not None  # they come together
        assert data.verify_output_tokens is not None
        columns["verdicts"] = [verdicts_text(data.verdicts[i, j]) for i, j in rows]
        columns["verify_input_tokens"] = column(data.verify_input_tokens, int)
        columns["verify_output_tokens"] = column(data.verify_output_tokens, int)
    if data.responses is not None:
        columns |= data.responses.columns(rows)
    write_routing_table(split_path(folder, split), columns)
    write_llms(folder / "llms.json", data.llms)
