"""The interface of a benchmark: the source of its rows, and the conversion of rows to questions."""

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
"""Prefix of a metric defined by a benchmark itself; the task's name follows."""

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Source:
    """The published location of a benchmark's rows.

    Attributes:
        dataset: Id on the model hub; "" if there are only local rows.
        split: Split of the hub's data set, or the name of the files in a local folder.
        configs: Configurations, read in this order; empty if the data set has only one.
        path: Local file or folder to read instead of the hub.
    """

    dataset: str
    split: str
    configs: tuple[str, ...] = ()
    path: Path | None = None

    def __str__(self) -> str:
        return self.dataset or ("" if self.path is None else str(self.path))


@dataclass(frozen=True)
class Fields:
    """The question of one row.

    Attributes:
        query: The complete prompt.
        ground_truth: Accepted answer or answers, in the metric's form (`Question.ground_truth`).
        choices: Options with ``label`` and ``text``.
    """

    query: str
    ground_truth: str | list[str]
    choices: list[dict[str, str]] | None = None


class RowError(SchemaError):
    """Error of a row that does not have the benchmark's schema.

    Attributes:
        column: The column; "" for the row as a whole.
        problem: The fault, and what was expected.
    """

    def __init__(self, column: str, problem: str) -> None:
        self.column, self.problem = column, problem
        super().__init__(f"column {column}: {problem}" if column else problem)

    def __reduce__(self) -> tuple[type[RowError], tuple[str, str]]:
        return type(self), (self.column, self.problem)


class Benchmark(ABC):
    """Base class of benchmarks: one task with its rows, prompt and metric.

    Attributes:
        name: Task name, used in ``task_name`` and in a data config.
        summary: One line for ``waypost list-benchmarks``.
        source: Location of the rows.
        columns: Required columns with their Python types (``list[str]``). A nested column has a
            mapping of keys to types; its other keys are ignored.
        optional: Columns read if a row has them; null counts as absent.
        metric: Name of the scorer (`waypost.scorers.METRICS`), or ``custom:<task>``.
        max_tokens: Token limit of an answer.
        version: Increased whenever a prompt or a ground truth changes.
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
        """Return the question of a row with checked columns; equal rows give equal questions.

        Raises:
            RowError: the row makes no question.
        """

    def read(self, row: Row, max_tokens: int | None = None, instruction: str = "") -> Question:
        """Check one row and return its question.

        The question's id is the task name and a hash of the version, the columns read and the
        instruction. It does not depend on the source or the order of the rows.

        Args:
            row: Column -> value; other columns are ignored.
            max_tokens: Token limit of an answer; None takes the benchmark's own.
            instruction: Line added below the prompt.

        Raises:
            RowError: a column is missing or has another type, or the row makes no question.
        """
        kept = self._checked(row)
        fields = self.question(kept)
        if not fields.query.strip():
            raise RowError("", "its prompt is empty")
        if not fields.ground_truth:
            raise RowError("", "it has no ground truth; expected at least one accepted answer")
        added = [instruction] if instruction else []
        return Question(
            query_id=f"{self.name}-{_digest(self.version, _content(kept), *added)}",
            task_name=self.name,
            query="\n".join([fields.query, *added]),
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
    # Without the value: messages never contain the text of a question.
    return "null" if value is None else type(value).__name__


def _content(row: Row) -> str:
    return json.dumps(row, sort_keys=True, ensure_ascii=True, default=str)


def _digest(*parts: str) -> str:
    return hashlib.blake2b("\x1f".join(parts).encode(), digest_size=8).hexdigest()
