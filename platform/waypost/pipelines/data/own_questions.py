"""Read a user's own questions: JSON lines, a JSON list or a CSV, with defaults for most keys."""

from __future__ import annotations

import csv
import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from waypost.contracts.choices import with_choices
from waypost.contracts.errors import ConfigError, Fault
from waypost.contracts.questions import CheckMetric, Question
from waypost.contracts.wording import faults, kind

OTHER_NAMES = {
    "question": "query",
    "prompt": "query",
    "input": "query",
    "answer": "ground_truth",
    "answers": "ground_truth",
    "target": "ground_truth",
    "expected": "ground_truth",
    "id": "query_id",
    "task": "task_name",
    "options": "choices",
}
"""Usual names of a key -> ours; ours wins where both are there."""

MAX_TOKENS = 256
"""Cap of an answer where a question names none."""

_SHOWN = 3
_MARKS = ",;\t|"
_TABLES = {".csv", ".tsv"}
_NOT_JSON = object()

Row = tuple[int, Any]


def read_own_questions(path: Path, check_metric: CheckMetric | None = None) -> list[Question]:
    """Read a file of questions, with defaults for all but the question and its answer.

    ``query_id`` is made of the file's name and a hash of the text, ``task_name`` is that name,
    ``metric`` is ``letter`` with choices, ``number`` for numbers, else ``short_answer``, and
    ``max_tokens`` is `MAX_TOKENS`. Choices that are plain texts are labelled A, B, ... and written
    below the question.

    Args:
        path: JSON lines, a JSON list of objects, or a CSV (separated by commas, semicolons, tabs).
        check_metric: Check of each metric; None accepts any text.

    Raises:
        ConfigError: The file cannot be read, or with a fault for each kind of thing that is wrong,
            which names the first lines where it is.
    """
    wrong: dict[tuple[str, str], list[int]] = {}
    found: dict[str, Question] = {}
    made: Counter[str] = Counter()
    for line, row in _rows(path):
        if row is _NOT_JSON:
            _note(wrong, "", "is not JSON; a table has the ending .csv or .tsv", line)
            continue
        if not isinstance(row, Mapping):
            _note(wrong, "", f"expected keys and values, found {kind(row)}", line)
            continue
        data = _filled(row, path.stem, made)
        try:
            question = Question.model_validate(data, context=check_metric)
        except ValidationError as error:
            for fault in faults(error, "", Question):
                _note(wrong, fault.where.removeprefix(": "), fault.problem, line)
            continue
        if question.query_id in found:
            _note(wrong, "query_id", f"{question.query_id} stands twice", line)
        found.setdefault(question.query_id, question)
    if wrong:
        raise ConfigError([_fault(path, *item) for item in wrong.items()])
    return list(found.values())


def _note(wrong: dict[tuple[str, str], list[int]], key: str, problem: str, line: int) -> None:
    wrong.setdefault((key, problem), []).append(line)


def _fault(path: Path, what: tuple[str, str], lines: Sequence[int]) -> Fault:
    key, problem = what
    shown = ", ".join(map(str, lines[:_SHOWN])) + (", ..." if len(lines) > _SHOWN else "")
    where = f"{path}: {len(lines)} lines ({shown})" if len(lines) > 1 else f"{path}:{lines[0]}"
    return Fault(f"{where}: {key}" if key else where, problem)


def _filled(row: Mapping[str, Any], stem: str, made: Counter[str]) -> dict[str, Any]:
    """Return a question's keys by our names, and the defaults of those that it lacks."""
    given = {key: value for key, value in row.items() if value not in (None, "")}
    data = {key: value for key, value in given.items() if key not in OTHER_NAMES}
    for theirs, ours in OTHER_NAMES.items():
        if theirs in given and ours not in data:
            data[ours] = given[theirs]
    _fill_choices(data)
    truth = data.get("ground_truth")
    if isinstance(truth, int | float) and not isinstance(truth, bool):
        truth = data["ground_truth"] = f"{truth:g}" if isinstance(truth, float) else str(truth)
    data.setdefault("task_name", stem)
    data.setdefault("max_tokens", MAX_TOKENS)
    data.setdefault("metric", _metric(data))
    if "query_id" not in data and isinstance(data.get("query"), str):
        digest = hashlib.blake2b(f"{data['query']}\x1f{truth}".encode(), digest_size=6).hexdigest()
        made[digest] += 1
        again = "" if made[digest] == 1 else f"-{made[digest]}"
        data["query_id"] = f"{stem}-{digest}{again}"
    elif isinstance(data.setdefault("query_id", stem), int):  # without a text it is refused anyway
        data["query_id"] = str(data["query_id"])
    return data


def _metric(data: Mapping[str, Any]) -> str:
    if data.get("choices"):
        return "letter"
    truth = data.get("ground_truth")
    texts = [truth] if isinstance(truth, str) else truth
    if isinstance(texts, list) and texts and all(map(_is_number, texts)):
        return "number"
    return "short_answer"


def _is_number(text: Any) -> bool:
    try:
        float(str(text).replace(",", ""))
    except ValueError:
        return False
    return True


def _fill_choices(data: dict[str, Any]) -> None:
    """Label choices that are plain texts, and write them below the question."""
    choices = data.get("choices")
    if isinstance(choices, str):  # of a CSV
        try:
            choices = data["choices"] = json.loads(choices)
        except ValueError:
            choices = data["choices"] = [one.strip() for one in choices.split("|")]
    if not isinstance(choices, list) or not choices:
        return
    if not all(isinstance(one, str) for one in choices) or len(choices) > 26:
        return
    data["choices"] = [
        {"label": chr(ord("A") + place), "text": text} for place, text in enumerate(choices)
    ]
    if isinstance(data.get("query"), str):
        data["query"] = with_choices(data["query"], json.dumps(data["choices"]))
    if data.get("ground_truth") in choices:
        data["ground_truth"] = chr(ord("A") + choices.index(data["ground_truth"]))


def _rows(path: Path) -> Iterator[Row]:
    """Yield the line and the content of each question.

    Raises:
        ConfigError: The file is not there, not text, or not of its form.
    """
    read: Callable[[str, Path], Iterator[Row]] = _json_lines
    if path.suffix.lower() in _TABLES:
        read = _table
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise ConfigError([Fault(str(path), "no such file; expected questions")]) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError([Fault(str(path), f"cannot be read as text: {error}")]) from None
    yield from read(text, path)


def _json_lines(text: str, path: Path) -> Iterator[Row]:
    if text.lstrip().startswith("["):
        yield from _json_list(text, path)
        return
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            row = _NOT_JSON
        yield number, row


def _json_list(text: str, path: Path) -> Iterator[Row]:
    try:
        listed = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError([Fault(str(path), f"is not JSON: {error}")]) from None
    yield from enumerate(listed, start=1)


def _table(text: str, path: Path) -> Iterator[Row]:
    lines = text.splitlines(keepends=True)
    if not lines:
        return
    mark = max(_MARKS, key=lambda one: len(next(csv.reader([lines[0]], delimiter=one), [])))
    rows = csv.DictReader(lines, delimiter=mark)
    try:
        for row in rows:
            if None in row:
                problem = f"has more cells than the {len(row) - 1} columns of the first line"
                raise ConfigError([Fault(f"{path}: line {rows.line_num}", problem)])
            yield rows.line_num, {key.strip(): value for key, value in row.items()}
    except csv.Error as error:
        raise ConfigError([Fault(f"{path}: line {rows.line_num}", f"{error}")]) from None
