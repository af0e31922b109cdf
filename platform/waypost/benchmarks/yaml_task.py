"""Benchmarks defined in a YAML file.

The file contains the location of the rows and a template of the prompt, for example:

    summary: Questions about our products
    source: {path: questions.jsonl}          # or {dataset: org/name, config: main, split: test}
    columns: {question: text, options: texts, answer: text}
    prompt: |
      {question}
      {choices}
      Reply with just the letter.
    choices: options
    ground_truth: answer
    metric: letter
    max_tokens: 32
"""

from __future__ import annotations

import string
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator

from waypost.benchmarks.base import Benchmark, Fields, Row, RowError, Source
from waypost.benchmarks.options import multiple_choice
from waypost.config import StrictModel, parse, read_yaml
from waypost.contracts.errors import ConfigError, Fault, RegistryError
from waypost.registry.sources import BENCHMARK_YAML

Kind = Literal["text", "texts", "number"]

_KINDS: dict[str, Any] = {"text": str, "texts": list[str], "number": int | float}
_CHOICES = "choices"


class YamlSource(StrictModel):
    """Location of the rows: a hub data set, or a path relative to the YAML file."""

    dataset: str = ""
    config: str | list[str] = Field(default_factory=list)
    split: str = "test"
    path: str | None = None


class YamlTask(StrictModel):
    """Keys of ``benchmark.yaml``.

    Attributes:
        name: Task name; default: the name of the folder.
        summary: One line for ``waypost list-benchmarks``.
        source: Location of the rows.
        columns: Required columns: ``text``, ``texts`` (a list) or ``number``.
        prompt: Template: ``{column}`` for a text or number, ``{choices}`` for the lettered options.
        choices: Column with the list of options, or several columns with one option each.
        ground_truth: Column of the accepted answer or answers. With ``choices`` it contains the
            right option's letter, text, or position from 0.
        metric: Name of a scorer.
        max_tokens: Token limit of an answer.
        version: Increase it when a prompt or an answer changes.
    """

    name: str = Field(default="", pattern=r"^[\w.-]*$")
    summary: str = ""
    source: YamlSource
    columns: dict[str, Kind] = Field(min_length=1)
    prompt: str = Field(min_length=1)
    choices: str | list[str] | None = None
    ground_truth: str
    metric: str
    max_tokens: int = Field(ge=1)
    version: str = "1"

    @field_validator("version", mode="before")
    @classmethod
    def _as_text(cls, value: Any) -> Any:
        return str(value) if isinstance(value, int | float) else value


class YamlBenchmark(Benchmark):
    """A benchmark defined by a YAML file."""

    def __init__(self, task: YamlTask, folder: Path) -> None:
        source = task.source
        configs = [source.config] if isinstance(source.config, str) else source.config
        path = None if source.path is None else folder / source.path
        self.task = task
        self.name = task.name or folder.name
        self.summary = task.summary
        self.source = Source(source.dataset, source.split, tuple(configs), path)
        self.columns = {column: _KINDS[kind] for column, kind in task.columns.items()}
        self.metric = task.metric
        self.max_tokens = task.max_tokens
        self.version = task.version

    def question(self, row: Row) -> Fields:
        """Return the question made from the template."""
        truth = row[self.task.ground_truth]
        shown = {
            key: value.strip() if isinstance(value, str) else value for key, value in row.items()
        }
        if self.task.choices is None:
            query = self.task.prompt.format_map(shown).strip()
            return Fields(query, truth if isinstance(truth, list) else str(truth))
        columns = self.task.choices
        texts = row[columns] if isinstance(columns, str) else [row[one] for one in columns]
        asked = multiple_choice("", texts, _right(truth, texts, self.task.ground_truth))
        options = "\n".join(f"{one['label']}. {one['text']}" for one in asked.choices or ())
        query = self.task.prompt.format_map({**shown, _CHOICES: options}).strip()
        return Fields(query, asked.ground_truth, asked.choices)


def read_yaml_task(folder: Path) -> YamlBenchmark:
    """Read a folder's ``benchmark.yaml``.

    Raises:
        ConfigError: the file is invalid; the error lists every fault.
    """
    path = folder / BENCHMARK_YAML
    task = parse(YamlTask, read_yaml(path), str(path))
    if found := [Fault(f"{path}: {key}", problem) for key, problem in _faults(task)]:
        raise ConfigError(found)
    return YamlBenchmark(task, folder)


def _faults(task: YamlTask) -> list[tuple[str, str]]:
    from waypost.scorers import metric_name

    found: list[tuple[str, str]] = []
    known = ", ".join(task.columns)
    if bool(task.source.dataset) == (task.source.path is not None):
        found.append(("source", "expected either dataset (a hub id) or path (a file or folder)"))
    listed = [one for one, kind in task.columns.items() if kind == "texts"]
    try:
        parts = list(string.Formatter().parse(task.prompt))
    except ValueError as error:
        found.append(("prompt", f"{error}; write {{{{ and }}}} for braces"))
        parts = []
    allowed = {*task.columns} - {*listed} | ({_CHOICES} if task.choices is not None else set())
    for _, column, form, conversion in parts:
        if column is not None and (column not in allowed or form or conversion):
            shown = ", ".join(sorted(allowed))
            found.append(("prompt", f"{{{column}}} cannot be filled in; there are {shown}"))
    if task.ground_truth not in task.columns:
        found.append(("ground_truth", f"{task.ground_truth} is not one of the columns: {known}"))
    if isinstance(task.choices, str) and task.choices not in listed:
        found.append(("choices", f"{task.choices} is not a column of kind texts"))
    if isinstance(task.choices, list):
        found += [
            ("choices", f"{one} is not a column of kind text")
            for one in task.choices
            if task.columns.get(one) != "text"
        ]
    try:
        metric_name(task.metric)
    except RegistryError as error:
        found.append(("metric", f"{error}; benchmark.py can define its own metric"))
    return found


def _right(truth: Any, texts: list[str], column: str) -> int:
    """Return the position of the right option."""
    if isinstance(truth, int):
        return truth
    if isinstance(truth, str):
        said = truth.strip()
        if said in texts:
            return texts.index(said)
        letters = string.ascii_uppercase[: len(texts)]
        if len(said) == 1 and said.upper() in letters:
            return letters.index(said.upper())
    raise RowError(column, "is neither a letter, a text nor a position of the options")
