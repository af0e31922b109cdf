"""What a benchmark is: where its rows come from, and how a row becomes a question."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from waypost.contracts.errors import SchemaError
from waypost.contracts.questions import Question

CUSTOM = "custom:"
"""Starts the name of a metric that is a benchmark's own; the task's name follows."""

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Source:
    """Where the rows of a benchmark are published.

    Attributes:
        dataset: Id on the model hub; "" where there are only local rows.
        split: Whose rows are asked; of a local folder the files of that name.
        configs: Configurations, read one after another; empty where the data set has one.
        path: Local file or folder that stands in for the hub.
    """

    dataset: str
    split: str
    configs: tuple[str, ...] = ()
    path: Path | None = None

    def __str__(self) -> str:
        return self.dataset or ("" if self.path is None else str(self.path))


@dataclass(frozen=True)
class Fields:
    """What one row asks.

    Attributes:
        query: The prompt, whole.
        ground_truth: As the metric takes it (`Question.ground_truth`).
        choices: Options with ``label`` and ``text``.
    """

    query: str
    ground_truth: str | list[str]
    choices: list[dict[str, str]] | None = None


class RowError(SchemaError):
    """A row is not what the benchmark's schema says.

    Attributes:
        column: Which column; "" is the row as a whole.
        problem: What is wrong and what was expected.
    """

    def __init__(self, column: str, problem: str) -> None:
        self.column, self.problem = column, problem
        super().__init__(f"column {column}: {problem}" if column else problem)

    def __reduce__(self) -> tuple[type[RowError], tuple[str, str]]:
        return type(self), (self.column, self.problem)


class Benchmark(ABC):
    """One kind of question.

    Attributes:
        name: Of the task, in ``task_name`` and in a data config.
        summary: One line for ``waypost list-benchmarks``.
        source: Where its rows are.
        columns: Columns that each row needs, with their Python types (``list[str]``); a mapping
            of keys to types for a nested column, whose further keys are not looked at.
        optional: Columns that are read where a row has them; null is as good as absent.
        metric: Name of the scorer (`waypost.scorers.METRICS`), or ``custom:<task>``.
        max_tokens: Cap of an answer.
        version: Raised whenever a prompt or a ground truth changes.
    """

    name: str
    summary: str = ""
    source: Source
    columns: Mapping[str, Any]
    optional: Mapping[str, Any] = {}
    metric: str
    max_tokens: int
    version: str = "1"

    @abstractmethod
    def question(self, row: Row) -> Fields:
        """Make the question of one row, whose columns have the types that ``columns`` says.

        Pure: the same row gives the same question.

        Raises:
            RowError: the row cannot be asked.
        """

    def read(self, row: Row, max_tokens: int | None = None) -> Question:
        """Check one row and make its question.

        The id names the task, and hashes the version and the columns that are read, so it is
        the same wherever and in whatever order the rows are read.

        Args:
            row: Column -> value; further columns are not looked at.
            max_tokens: Cap of an answer; None is the benchmark's own.

        Raises:
            RowError: a column is missing or of another type, or the row cannot be asked.
        """
        kept = self._checked(row)
        fields = self.question(kept)
        if not fields.query.strip():
            raise RowError("", "its prompt is empty")
        if not fields.ground_truth:
            raise RowError("", "it has no ground truth; expected at least one accepted answer")
        return Question(
            query_id=f"{self.name}-{_digest(self.version, _content(kept))}",
            task_name=self.name,
            query=fields.query,
            choices=fields.choices,
            ground_truth=fields.ground_truth,
            metric=self.metric,
            max_tokens=self.max_tokens if max_tokens is None else max_tokens,
            version=self.version,
        )

    def _checked(self, row: Row) -> dict[str, Any]:
        kept: dict[str, Any] = {}
        for column, kind in self.columns.items():
            if column not in row:
                raise RowError(column, f"missing; there are {', '.join(row) or 'no columns'}")
            kept[column] = _of_kind(column, kind, row[column])
        for column, kind in self.optional.items():
            if row.get(column) is not None:
                kept[column] = _of_kind(column, kind, row[column])
        return kept


def _of_kind(column: str, kind: Any, value: Any) -> Any:
    if isinstance(kind, Mapping):
        if not isinstance(value, Mapping):
            raise RowError(
                column, f"expected a mapping with {', '.join(kind)}, found {_named(value)}"
            )
        if lacking := [key for key in kind if key not in value]:
            raise RowError(column, f"lacks {', '.join(lacking)}; there are {', '.join(value)}")
        return {key: _of_kind(f"{column}.{key}", one, value[key]) for key, one in kind.items()}
    try:
        return _adapter(kind).validate_python(value, strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        inside = ".".join([column, *map(str, first["loc"])])
        problem = first["msg"].replace("Input should be", "expected")
        raise RowError(inside, f"{problem}, found {_named(value)}") from None


@lru_cache(maxsize=64)
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def _named(value: Any) -> str:
    # The kind alone: messages never hold the text of a question.
    return "null" if value is None else type(value).__name__


def _content(row: Row) -> str:
    return json.dumps(row, sort_keys=True, ensure_ascii=True, default=str)


def _digest(*parts: str) -> str:
    return hashlib.blake2b("\x1f".join(parts).encode(), digest_size=8).hexdigest()
