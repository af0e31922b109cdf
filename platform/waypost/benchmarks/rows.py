"""Read the rows of a benchmark from the model hub or from local files of the same schema."""

from __future__ import annotations

import csv
import gzip
import json
import zlib
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import pyarrow as pa
import pyarrow.parquet as pq

from waypost.benchmarks.base import Benchmark, RowError, Source
from waypost.config import settings
from waypost.contracts.errors import ConfigError, Fault, MissingExtraError, SchemaError
from waypost.contracts.questions import Question

SUFFIXES = (".parquet", ".jsonl", ".jsonl.gz", ".csv")
"""Suffixes of local files of rows."""

_SHOWN = 5
_MARKS = ",;\t|"
_MOST_CHARACTERS = 1 << 26
UNREADABLE = (OSError, EOFError, UnicodeDecodeError, zlib.error, csv.Error, pa.ArrowException)
"""What reading a file of rows raises where it is broken."""


@dataclass(frozen=True)
class Loaded:
    """The questions of a benchmark.

    Attributes:
        questions: The distinct questions, in the order of the rows.
        rows: Number of rows read; larger than the number of questions if rows repeat.
    """

    questions: list[Question]
    rows: int


Located = tuple[str, dict[str, Any]]
"""Location of a row, for messages, and the row."""


def load_questions(
    benchmark: Benchmark,
    path: Path | None = None,
    *,
    split: str | None = None,
    revision: str | None = None,
    max_tokens: int | None = None,
    instruction: str = "",
) -> Loaded:
    """Return the questions of all rows of a benchmark; repeated rows give one question.

    Args:
        benchmark: The benchmark, which defines the schema of the rows.
        path: Local file or folder, see `data_files`; None takes the benchmark's source.
        split: Split of the data set; None takes the benchmark's own.
        revision: Revision of the hub's data set; None takes the newest.
        max_tokens: Token limit of an answer; None takes the benchmark's own.
        instruction: Line added below each prompt.

    Raises:
        ConfigError: ``path`` has no file to read.
        SchemaError: rows do not have the schema; the message lists file, row and column.
        MissingExtraError: the rows are on the hub and the package datasets is not installed.
    """
    source = benchmark.source
    path = source.path if path is None else path
    if path is None:
        rows = hub_rows(benchmark, split or source.split, revision)
    else:
        rows = file_rows(data_files(path, source, split), benchmark)
    questions: dict[str, Question] = {}
    wrong: list[str] = []
    count = 0
    for where, row in rows:
        count += 1
        try:
            question = benchmark.read(row, max_tokens, instruction)
        except RowError as error:
            wrong.append(f"{where}: {error}")
            continue
        questions.setdefault(question.query_id, question)
    if wrong:
        more = [f"and {len(wrong) - _SHOWN} more rows"] if len(wrong) > _SHOWN else []
        raise SchemaError("\n".join([*wrong[:_SHOWN], *more]))
    return Loaded(list(questions.values()), count)


def data_files(path: Path, source: Source, split: str | None) -> list[Path]:
    """Return the files of rows at a path, sorted.

    A folder is searched recursively, or only its subfolders named like configurations, if any.
    Files of the split match ``test.jsonl`` or ``test-00000-of-00001.parquet``. If there are none
    and ``split`` is None, all files are returned.

    Raises:
        ConfigError: the path does not exist, or has no file of rows or none of that split.
    """
    if path.is_file():
        if _suffix(path) is None:
            kinds = ", ".join(SUFFIXES)
            raise ConfigError([Fault(str(path), f"is not a file of rows; expected {kinds}")])
        return [path]
    if not path.is_dir():
        raise ConfigError([Fault(str(path), "no such file or folder")])
    homes = [path / config for config in source.configs if (path / config).is_dir()]
    files = sorted(f for home in homes or [path] for f in home.rglob("*") if _suffix(f))
    if not files:
        kinds = ", ".join(SUFFIXES)
        raise ConfigError([Fault(str(path), f"contains no file of rows ({kinds})")])
    wanted = split or source.split
    of_split = [file for file in files if _is_of(file, wanted)]
    if split and not of_split:
        raise ConfigError([Fault(str(path), f"has no file of split {split} ({split}*.parquet)")])
    return of_split or files


def _suffix(path: Path) -> str | None:
    return next((suffix for suffix in SUFFIXES if path.name.endswith(suffix)), None)


def _is_of(path: Path, split: str) -> bool:
    stem = path.name.removesuffix(_suffix(path) or "")
    return stem == split or stem.startswith(f"{split}-")


def file_rows(files: Sequence[Path], benchmark: Benchmark) -> Iterator[Located]:
    """Yield the rows of local files in order; row numbers start from 1 in each file.

    Raises:
        SchemaError: a file cannot be read, or a line is not a JSON object.
    """
    for file in files:
        try:
            rows = rows_of(file, benchmark.columns, benchmark.optional)
            for number, row in enumerate(rows, start=1):
                yield f"{file}: row {number}", row
        except UNREADABLE as error:
            raise SchemaError(f"{file}: cannot be read: {type(error).__name__}: {error}") from None


def rows_of(
    file: Path, columns: Collection[str], optional: Collection[str] | None = None
) -> Iterator[dict[str, Any]]:
    """Yield the rows of a file of one of `SUFFIXES`.

    Args:
        file: The file.
        columns: Columns that a parquet file must have; in a CSV file they tell the separator.
        optional: Further columns to read from a parquet file; None is all.

    Raises:
        SchemaError: a column is missing, a line is not a JSON object or has too many fields.
        `UNREADABLE`: the file cannot be read.
    """
    if file.suffix == ".parquet":
        with pq.ParquetFile(file) as parquet:
            # Nested columns are read whole; other columns only if they are wanted.
            names = parquet.schema_arrow.names
            more = names if optional is None else optional
            wanted = [name for name in dict.fromkeys((*columns, *more)) if name in names]
            if lacking := [name for name in columns if name not in names]:
                raise SchemaError(_lacks(str(file), lacking, names))
            for batch in parquet.iter_batches(batch_size=4096, columns=wanted):
                yield from batch.to_pylist()
    elif file.suffix == ".csv":
        with file.open(encoding="utf-8-sig", newline="") as text:
            yield from _table(file, text, columns)
    else:
        opener = gzip.open if file.suffix == ".gz" else open
        with opener(file, "rt", encoding="utf-8-sig") as text:
            yield from _lines(file, text)


def _table(file: Path, text: TextIO, columns: Iterable[str]) -> Iterator[dict[str, Any]]:
    """Yield the rows of a CSV file, whichever mark separates its columns."""
    csv.field_size_limit(_MOST_CHARACTERS)  # answers are longer than the module's own 131,072
    head = text.readline()
    text.seek(0)
    mark = max(
        _MARKS, key=lambda one: len({*next(csv.reader([head], delimiter=one), [])} & {*columns})
    )
    for number, row in enumerate(csv.DictReader(text, delimiter=mark), start=1):
        if None in row:
            raise SchemaError(f"{file}: row {number}: has more fields than the first line")
        yield row


def _lines(file: Path, text: TextIO) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(text, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise SchemaError(f"{file}: line {number}: is not JSON: {error}") from None
        if not isinstance(row, dict):
            found = type(row).__name__
            raise SchemaError(f"{file}: line {number}: expected a JSON object, found {found}")
        yield row


def _lacks(where: str, lacking: Sequence[str], names: Sequence[str]) -> str:
    return f"{where}: lacks column {', '.join(lacking)}; there are {', '.join(names)}"


def hub_rows(benchmark: Benchmark, split: str, revision: str | None) -> Iterator[Located]:
    """Yield the rows of the hub's data set, which is downloaded unless the hub's cache has it.

    No code of the data set is run.

    Raises:
        MissingExtraError: the package datasets is not installed.
        SchemaError: the data set cannot be loaded; the message explains how to use local files.
    """
    try:
        import datasets
    except ImportError:
        raise MissingExtraError("datasets", "data") from None
    source = benchmark.source
    for config in source.configs or (None,):
        name = "/".join(filter(None, (source.dataset, config, split)))
        try:
            if settings().offline:  # Waypost's own switch: read the cache, do not call the hub
                datasets.config.HF_HUB_OFFLINE = True
            rows = datasets.load_dataset(source.dataset, config, split=split, revision=revision)
        # The hub's client raises errors of many libraries; the remedy is the same for all.
        except Exception as error:
            reason = str(error).strip().partition("\n")[0] or type(error).__name__
            raise SchemaError(
                f"{name}: the data set cannot be loaded from the hub: {reason}\n"
                f"Without the hub: set benchmarks.{benchmark.name}.path to a file or folder with "
                f"the same columns ({', '.join(benchmark.columns)})"
            ) from error
        if lacking := [column for column in benchmark.columns if column not in rows.column_names]:
            raise SchemaError(_lacks(name, lacking, rows.column_names))
        wanted = [*benchmark.columns, *benchmark.optional]
        kept = rows.select_columns([column for column in wanted if column in rows.column_names])
        for number, row in enumerate(kept, start=1):
            yield f"{name}: row {number}", row
