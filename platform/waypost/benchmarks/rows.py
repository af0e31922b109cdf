"""The rows of a benchmark: from the model hub, or from local files of the same schema."""

from __future__ import annotations

import csv
import gzip
import json
import zlib
from collections.abc import Iterable, Iterator, Sequence
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
"""Kinds of local files."""

_SHOWN = 5
_UNREADABLE = (OSError, EOFError, UnicodeDecodeError, zlib.error, csv.Error, pa.ArrowException)


@dataclass(frozen=True)
class Loaded:
    """The questions of a benchmark.

    Attributes:
        questions: In the order of the rows, each once.
        rows: How many rows were read; more than questions where some stand twice.
    """

    questions: list[Question]
    rows: int


Located = tuple[str, dict[str, Any]]
"""Where a row stands, for messages, and the row."""


def load_questions(
    benchmark: Benchmark,
    path: Path | None = None,
    *,
    split: str | None = None,
    revision: str | None = None,
    max_tokens: int | None = None,
) -> Loaded:
    """Make a question of every row of a benchmark; a row that stands twice is asked once.

    Args:
        benchmark: Whose schema the rows have.
        path: Local file or folder, see `data_files`; None is the benchmark's own source.
        split: None is the benchmark's own.
        revision: Of the hub's data set; None is its newest.
        max_tokens: Cap of an answer; None is the benchmark's own.

    Raises:
        ConfigError: there is no such file.
        SchemaError: rows are not of the schema: file, row, column and what was expected.
        MissingExtraError: the hub is asked and the package datasets is not installed.
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
            question = benchmark.read(row, max_tokens)
        except RowError as error:
            wrong.append(f"{where}: {error}")
            continue
        questions.setdefault(question.query_id, question)
    if wrong:
        more = [f"and {len(wrong) - _SHOWN} more rows"] if len(wrong) > _SHOWN else []
        raise SchemaError("\n".join([*wrong[:_SHOWN], *more]))
    return Loaded(list(questions.values()), count)


def data_files(path: Path, source: Source, split: str | None) -> list[Path]:
    """Return the files to read of a path, sorted.

    Of a folder: those below it that are named after the split (``test.jsonl``,
    ``test-00000-of-00001.parquet``), and every one where none is and no split is asked for. Where
    it has folders named after the source's configurations, only those count.

    Raises:
        ConfigError: no such path, no file to read in it, or none of that split.
    """
    if path.is_file():
        if _suffix(path) is None:
            kinds = ", ".join(SUFFIXES)
            raise ConfigError([Fault(str(path), f"is no file of rows; expected one of {kinds}")])
        return [path]
    if not path.is_dir():
        raise ConfigError([Fault(str(path), "no such file or folder")])
    homes = [path / config for config in source.configs if (path / config).is_dir()]
    files = sorted(f for home in homes or [path] for f in home.rglob("*") if _suffix(f))
    if not files:
        kinds = ", ".join(SUFFIXES)
        raise ConfigError([Fault(str(path), f"holds no file of rows ({kinds})")])
    wanted = split or source.split
    of_split = [file for file in files if _is_of(file, wanted)]
    if split and not of_split:
        raise ConfigError([Fault(str(path), f"holds no file of split {split} ({split}*.parquet)")])
    return of_split or files


def _suffix(path: Path) -> str | None:
    return next((suffix for suffix in SUFFIXES if path.name.endswith(suffix)), None)


def _is_of(path: Path, split: str) -> bool:
    stem = path.name.removesuffix(_suffix(path) or "")
    return stem == split or stem.startswith(f"{split}-")


def file_rows(files: Sequence[Path], benchmark: Benchmark) -> Iterator[Located]:
    """Yield the rows of local files, in order; rows are counted from 1 in each.

    Raises:
        SchemaError: a file cannot be read, or a line is no JSON object.
    """
    for file in files:
        try:
            for number, row in enumerate(_rows_of(file, benchmark), start=1):
                yield f"{file}: row {number}", row
        except _UNREADABLE as error:
            raise SchemaError(f"{file}: cannot be read: {type(error).__name__}: {error}") from None


def _rows_of(file: Path, benchmark: Benchmark) -> Iterable[dict[str, Any]]:
    if file.suffix == ".parquet":
        with pq.ParquetFile(file) as parquet:
            # Of a nested column as much as is stored; of the others only what is read.
            names = parquet.schema_arrow.names
            wanted = [name for name in (*benchmark.columns, *benchmark.optional) if name in names]
            if lacking := [name for name in benchmark.columns if name not in names]:
                raise SchemaError(_lacks(str(file), lacking, names))
            for batch in parquet.iter_batches(batch_size=4096, columns=wanted):
                yield from batch.to_pylist()
    elif file.suffix == ".csv":
        with file.open(encoding="utf-8-sig", newline="") as text:
            yield from csv.DictReader(text)
    else:
        opener = gzip.open if file.suffix == ".gz" else open
        with opener(file, "rt", encoding="utf-8") as text:
            yield from _lines(file, text)


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
    """Yield the rows of the hub's data set, downloaded into its cache where they are not there.

    No code of a data set is run.

    Raises:
        MissingExtraError: the package datasets is not installed.
        SchemaError: the data set cannot be had; the message says how to go on without the hub.
    """
    try:
        import datasets
    except ImportError:
        raise MissingExtraError("datasets", "data") from None
    source = benchmark.source
    for config in source.configs or (None,):
        name = "/".join(filter(None, (source.dataset, config, split)))
        try:
            if settings().offline:  # by our own switch, too: the cache is read, the hub not asked
                datasets.config.HF_HUB_OFFLINE = True
            rows = datasets.load_dataset(source.dataset, config, split=split, revision=revision)
        # The client of the hub raises of many libraries: whatever it is, the remedy is the same.
        except Exception as error:
            reason = str(error).strip().partition("\n")[0] or type(error).__name__
            raise SchemaError(
                f"{name}: the data set cannot be had from the hub: {reason}\n"
                f"Without the hub: set benchmarks.{benchmark.name}.path to a file or folder of "
                f"the same columns ({', '.join(benchmark.columns)})"
            ) from error
        if lacking := [column for column in benchmark.columns if column not in rows.column_names]:
            raise SchemaError(_lacks(name, lacking, rows.column_names))
        wanted = [*benchmark.columns, *benchmark.optional]
        kept = rows.select_columns([column for column in wanted if column in rows.column_names])
        for number, row in enumerate(kept, start=1):
            yield f"{name}: row {number}", row
