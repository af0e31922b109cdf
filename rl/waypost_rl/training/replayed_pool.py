"""A pool that gives back recorded answers of routing data, and the questions of such data."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pyarrow as pa
from pydantic import ValidationError

from waypost.contracts.choices import options_of, with_choices
from waypost.contracts.errors import SchemaError, names
from waypost.contracts.questions import Question, queries_path
from waypost.contracts.questions import read_questions as read_query_file
from waypost.contracts.tables import SPLITS, check_columns, read_routing_table, split_path
from waypost_rl.training.parts import Ask, Reply

MAX_TOKENS = 512
"""Cap of the answer to a question of a routing table, which has no such column."""

UNDECIDED = "I could not decide."
"""Reply of a candidate whose recorded letter is null."""


@dataclass(frozen=True, slots=True)
class _Record:
    text: str | None
    input_tokens: int
    output_tokens: int
    fault: str


class ReplayedPool:
    """A pool whose candidates answer the question of the episode as they did when it was recorded.

    The text of a search does not matter: what a candidate said to the whole question is its reply.
    A recorded letter becomes a sentence, "The answer is (C).", a null letter of a measured answer
    "I could not decide."; other answers are replayed as they are, tokens as recorded. A candidate
    without a record of the question gives a reply without text.

    Args:
        folder: Routing-data folder whose tables have the column ``response``.
        splits: Splits to read; None is all that are there.
        names: Candidate -> its name in the data, where that differs.

    Raises:
        SchemaError: A table is missing or wrong, or has no answers; or the splits have two
            different texts under one query_id.
    """

    def __init__(
        self,
        folder: Path,
        splits: Sequence[str] | None = None,
        names: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self.folder = folder
        self._names = names
        self._records: dict[tuple[str, str], _Record] = {}
        self._queries: dict[str, str] = {}
        found = [one for one in SPLITS if split_path(folder, one).is_file()]
        if splits is None and not found:
            raise SchemaError(f"{folder}: holds no routing_<split>.parquet; record answers first")
        for split in found if splits is None else splits:
            self._read(split_path(folder, split))
        if all(record.text is None for record in self._records.values()):
            raise SchemaError(f"{folder}: no answer is recorded; `waypost data run` records them")

    def _read(self, path: Path) -> None:
        table = read_routing_table(path)
        check_columns(table, ("response",), path)
        wanted = ["query_id", "query", "choices", "model_name", "response", "performance"]
        wanted += ["input_tokens", "output_tokens", "error"]
        for row in _rows(table, wanted):
            key = row["query_id"]
            if self._queries.setdefault(key, row["query"]) != row["query"]:
                raise SchemaError(
                    f"{path}: query_id {key} stands for another text in another split; "
                    "name one split"
                )
            self._records[key, row["model_name"]] = _record(row)

    async def ask(self, ask: Ask) -> Reply:
        """Return the recorded answer to the question of the episode; see `DelegatePool.ask`."""
        recorded = self._names.get(ask.candidate, ask.candidate)
        record = self._records.get((ask.question.query_id, recorded))
        if record is None:
            fault = f"{self.folder} has no answer of {recorded} to {ask.question.query_id}"
            return Reply(None, fault=fault)
        if record.text is None:
            return Reply(None, fault=record.fault)
        return Reply(record.text, record.input_tokens, record.output_tokens, cached=True)

    async def close(self) -> None:
        """Do nothing: the records stay in memory."""


def _rows(table: pa.Table, wanted: Sequence[str]) -> Iterable[dict[str, Any]]:
    """Yield the rows of a table; a column that it lacks is None."""
    empty = dict.fromkeys(wanted)
    there = table.select([name for name in wanted if name in table.column_names])
    for batch in there.to_batches(max_chunksize=1024):
        for row in batch.to_pylist():
            yield empty | row


def _record(row: Mapping[str, Any]) -> _Record:
    text, fault = row["response"], ""
    labels = [label for label, _ in options_of(row["choices"])]
    if text is None and (row["error"] is not None or row["performance"] is None):
        fault = row["error"] or "the answer was not measured"
    elif text is None and len(labels) > 1:
        text = UNDECIDED
    elif text is None:
        fault = "the answer was not recorded"
    elif len(labels) > 1 and text.strip() in labels:
        text = f"The answer is ({text.strip()})."
    return _Record(text, row["input_tokens"] or 0, row["output_tokens"] or 0, fault)


def read_questions(
    folder: Path,
    split: str = "train",
    *,
    limit: int | None = None,
    max_characters: int | None = None,
    seed: int = 0,
) -> list[Question]:
    """Read the questions of one split for training, in an order drawn by ``seed``.

    They come from ``queries_<split>.jsonl`` where the folder has it, else from the routing table:
    the query with its options (`with_choices`), its ground truth and its metric.

    Args:
        folder: Routing-data folder.
        split: Name of the split.
        limit: Maximum number of questions, of those short enough; None takes all.
        max_characters: Leave out longer queries, options included; None keeps all.
        seed: Of the order. With the same seed a smaller ``limit`` gives the first of them.

    Raises:
        ConfigError: A line of the file of questions is wrong.
        SchemaError: The table is missing or wrong, a row has no ground truth or metric, or no
            question is left.
    """
    path = queries_path(folder, split)
    found = read_query_file(path) if path.is_file() else _of_table(split_path(folder, split))
    kept = [one for one in found if max_characters is None or len(one.query) <= max_characters]
    random.Random(seed).shuffle(kept)  # noqa: S311 - an order, no secret
    kept = kept[:limit]
    if not kept:
        what = f"none of {len(found)} questions is within max_characters={max_characters}, "
        raise SchemaError(f"{folder}, split {split}: {what}limit={limit}")
    return kept


def _of_table(path: Path) -> list[Question]:
    table = read_routing_table(path)
    check_columns(table, ("ground_truth", "metric"), path)
    wanted = ("query_id", "task_name", "query", "choices", "ground_truth", "metric")
    questions: dict[str, Question] = {}
    for number, row in enumerate(_rows(table, wanted)):
        if row["query_id"] in questions:
            continue
        options = options_of(row["choices"])
        try:
            questions[row["query_id"]] = Question(
                query_id=row["query_id"],
                task_name=row["task_name"] or "",
                query=with_choices(row["query"], row["choices"]),
                choices=[{"label": label, "text": text} for label, text in options] or None,
                ground_truth=_truth(row["ground_truth"]),
                metric=row["metric"],
                max_tokens=MAX_TOKENS,
            )
        except ValidationError as error:
            wrong = [str(one["loc"][0]) for one in error.errors(include_url=False)]
            where = names(list(dict.fromkeys(wrong)))
            raise SchemaError(
                f"{path}: row {number}: {where} is missing or wrong; training needs the question's "
                "id, ground truth and metric"
            ) from None
    return list(questions.values())


def _truth(text: str | None) -> Any:
    """Return a ground truth; several accepted answers are a JSON list of texts."""
    try:
        data = json.loads(text) if text and text.startswith("[") else None
    except ValueError:
        return text
    listed = isinstance(data, list) and data and all(isinstance(one, str) for one in data)
    return data if listed else text
