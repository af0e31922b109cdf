"""The questions of a data run, with their accepted answers."""

from __future__ import annotations

import json
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator

from waypost.contracts.atomic import replacing
from waypost.contracts.errors import ConfigError, Fault
from waypost.contracts.tables import SPLITS
from waypost.contracts.wording import faults


class Question(BaseModel):
    """One question, as a line of ``queries_<split>.jsonl``.

    Attributes:
        query_id: Unique key in all splits together.
        task_name: Benchmark kind, such as ``gsm8k``.
        query: The whole prompt to the LLM, which is also what a router sees.
        choices: Options of a multiple-choice question (``label`` and ``text``), or null.
        ground_truth: Accepted strings, a letter, a number, or the tests of a program.
        metric: Name of the scorer (`waypost.scorers.METRICS`).
        max_tokens: Cap of the answer.
        version: Version of the benchmark's prompt and ground truth; a part of its identity.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    query_id: str = Field(min_length=1)
    task_name: str
    query: str
    choices: list[dict[str, str]] | None = None
    ground_truth: str | list[str]
    metric: str
    max_tokens: int = Field(ge=1)
    version: str | None = None

    @field_validator("metric")
    @classmethod
    def _known(cls, metric: str, info: ValidationInfo) -> str:
        if info.context is not None:
            info.context(metric)
        return metric


def queries_path(folder: Path, split: str) -> Path:
    """Return the JSONL file of one split's questions in a routing-data folder."""
    return folder / f"queries_{split}.jsonl"


CheckMetric: TypeAlias = Callable[[str], object]
"""Raises a ValueError for an unknown metric."""


def read_questions(path: Path, check_metric: CheckMetric | None = None) -> list[Question]:
    """Read a file of questions.

    Args:
        path: JSONL of questions.
        check_metric: Check of each line's metric; None accepts any text.

    Raises:
        ConfigError: with a fault for each line that is not a question, each missing key and
            unknown metric, and each repeated id.
    """
    if not path.is_file():
        raise ConfigError([Fault(str(path), "no such file; expected JSONL of questions")])
    found: list[Fault] = []
    questions = [question for _, question in _unique({"": path}, found, check_metric)]
    if found:
        raise ConfigError(found)
    return questions


def write_questions(path: Path, questions: Iterable[Question]) -> None:
    """Write a file of questions, replacing it in one step."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as partial, partial.open("w", encoding="utf-8") as file:
        for question in questions:
            data = question.model_dump(exclude_none=True)
            file.write(json.dumps(data, ensure_ascii=False) + "\n")


def iter_splits(folder: Path) -> Iterator[tuple[str, Question]]:
    """Yield (split, question) pairs, the splits in the order of `SPLITS`.

    Raises:
        ConfigError: there is no question; or, after the last question, with a fault for each line
            that is not a question and for each repeated id.
    """
    every = {split: queries_path(folder, split) for split in SPLITS}
    paths = {split: path for split, path in every.items() if path.is_file()}
    if not paths:
        problem = "holds no questions (queries_train.jsonl); run `waypost data queries` first"
        raise ConfigError([Fault(str(folder), problem)])
    found: list[Fault] = []
    yield from _unique(paths, found)
    if found:
        raise ConfigError(found)


def read_splits(folder: Path) -> dict[str, Sequence[Question]]:
    """Read the questions of the first phase, by split; splits without a file are left out.

    Raises:
        ConfigError: see `iter_splits`.
    """
    splits: dict[str, list[Question]] = {
        split: [] for split in SPLITS if queries_path(folder, split).is_file()
    }
    for split, question in iter_splits(folder):
        splits[split].append(question)
    return dict(splits)


def _unique(
    paths: Mapping[str, Path], found: list[Fault], check_metric: CheckMetric | None = None
) -> Iterator[tuple[str, Question]]:
    """Yield each question with its name in ``paths``; add faults to ``found``.

    Ids are kept as hashes of 8 bytes. Where two are equal the files are read again.
    """
    hashes = array("q")
    for name, path in paths.items():
        for _, question in _parsed(path, found, check_metric):
            hashes.append(hash(question.query_id))
            yield name, question
    if len(np.unique(np.frombuffer(hashes, np.int64))) < len(hashes):
        found[:] = _with_doubles(paths, check_metric)


def _with_doubles(paths: Mapping[str, Path], check_metric: CheckMetric | None) -> list[Fault]:
    """Return all faults of the files, in order."""
    found: list[Fault] = []
    home: dict[str, str] = {}
    for name, path in paths.items():
        for where, question in _parsed(path, found, check_metric):
            key = question.query_id
            if key not in home:
                home[key] = name
            elif home[key] == name:
                found.append(Fault(where, f"query_id {key} stands twice"))
            else:
                found.append(Fault(where, f"query_id {key} stands in {home[key]}, too"))
    return found


def _parsed(
    path: Path, found: list[Fault], check_metric: CheckMetric | None
) -> Iterator[tuple[str, Question]]:
    """Yield place and question of each line; add faults to ``found``."""
    with path.open(encoding="utf-8", newline="\n") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            where = f"{path}:{number}"
            try:
                yield where, Question.model_validate_json(line, context=check_metric)
            except ValidationError as error:
                found += faults(error, where, Question)
