"""The questions of a data run: what is asked, and what a right answer is."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from waypost.contracts.errors import ConfigError, Fault
from waypost.contracts.tables import SPLITS


class Question(BaseModel):
    """One question, as a line of ``queries_<split>.jsonl``.

    Attributes:
        query_id: Unique key in all splits together.
        task_name: Benchmark kind, such as ``gsm8k``.
        query: What the LLM is asked, whole, and what a router sees.
        choices: Options of a multiple-choice question (``label`` and ``text``), or null.
        ground_truth: Accepted strings, a letter, a number, or the tests of a program.
        metric: Name of the scorer (`waypost.scorers.METRICS`).
        max_tokens: Cap of the answer.
        version: Of the benchmark's prompt and ground truth; another one is another question.
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


def queries_path(folder: Path, split: str) -> Path:
    """Return the JSONL file of one split's questions in a routing-data folder."""
    return folder / f"queries_{split}.jsonl"


def read_questions(path: Path) -> list[Question]:
    """Read a file of questions.

    Raises:
        ConfigError: with a fault for each line that is not a question, and for each doubled id.
    """
    if not path.is_file():
        raise ConfigError([Fault(str(path), "no such file; expected JSONL of questions")])
    questions: list[Question] = []
    found: list[Fault] = []
    seen: set[str] = set()
    for number, line in enumerate(path.read_text(encoding="utf-8").split("\n"), start=1):
        if not line.strip():
            continue
        where = f"{path}:{number}"
        try:
            question = Question.model_validate_json(line)
        except ValidationError as error:
            found += [
                Fault(f"{where}: {'.'.join(map(str, one['loc']))}".rstrip(": "), one["msg"])
                for one in error.errors(include_url=False, include_context=False)
            ]
            continue
        if question.query_id in seen:
            found.append(Fault(where, f"query_id {question.query_id} stands twice"))
        seen.add(question.query_id)
        questions.append(question)
    if found:
        raise ConfigError(found)
    return questions


def write_questions(path: Path, questions: Iterable[Question]) -> None:
    """Write a file of questions, replacing it in one step."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    with partial.open("w", encoding="utf-8") as file:
        for question in questions:
            data = question.model_dump(exclude_none=True)
            file.write(json.dumps(data, ensure_ascii=False) + "\n")
    partial.replace(path)


def read_splits(folder: Path) -> dict[str, Sequence[Question]]:
    """Read the questions that the first phase wrote, by split, in the order of `SPLITS`.

    Raises:
        ConfigError: there are none, a line is wrong, or an id stands in two splits.
    """
    paths = {split: queries_path(folder, split) for split in SPLITS}
    found = {split: read_questions(path) for split, path in paths.items() if path.is_file()}
    if not found:
        problem = "holds no questions (queries_train.jsonl); run `waypost data queries` first"
        raise ConfigError([Fault(str(folder), problem)])
    home: dict[str, str] = {}
    twice = [
        Fault(str(paths[split]), f"query_id {one.query_id} stands in {home[one.query_id]}, too")
        for split, questions in found.items()
        for one in questions
        if home.setdefault(one.query_id, split) != split
    ]
    if twice:
        raise ConfigError(twice)
    return dict(found)
