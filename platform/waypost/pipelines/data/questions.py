"""First phase of a data run: draw questions from benchmarks and files, and split them.

Writes the questions of each split as JSONL and parquet, and a report as ``queries.json``.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from waypost.benchmarks.base import CUSTOM, Benchmark
from waypost.benchmarks.catalog import find_benchmark
from waypost.benchmarks.rows import data_files, load_questions
from waypost.contracts.atomic import replacing, write_text
from waypost.contracts.errors import ConfigError, Fault, RegistryError, names
from waypost.contracts.questions import Question, queries_path, write_questions
from waypost.contracts.records import Watcher
from waypost.contracts.splits import duplicate_groups, share_out
from waypost.contracts.tables import SPLITS
from waypost.pipelines.data.config import BenchmarkChoice, DataConfig, load_data_config, run_folder
from waypost.pipelines.data.own_questions import read_own_questions
from waypost.scorers import metric_name
from waypost.storage.uri import Uri, is_uri

logger = logging.getLogger(__name__)

REPORT = "queries.json"

_SCHEMA = pa.schema(
    [
        ("query_id", pa.string()),
        ("task_name", pa.string()),
        ("query", pa.large_string()),
        ("choices", pa.large_string()),
        ("ground_truth", pa.large_string()),
        ("metric", pa.string()),
        ("max_tokens", pa.int32()),
        ("version", pa.string()),
    ]
)


@dataclass
class Gathered:
    """Questions before they are split.

    Attributes:
        questions: Question by id.
        sources: Facts of each benchmark and file, for the report.
        doubled: Number of questions left out because their id is taken.
        warnings: Messages about deviations from the config.
    """

    questions: dict[str, Question] = field(default_factory=dict)
    sources: list[dict[str, Any]] = field(default_factory=list)
    doubled: int = 0
    warnings: list[str] = field(default_factory=list)


def find_all(config: DataConfig, base: Path, where: str) -> dict[str, Benchmark]:
    """Find the benchmarks of a run and check that every file exists and holds something.

    Args:
        config: The run.
        base: Folder that its paths are relative to.
        where: The config's file, for messages.

    Raises:
        ConfigError: With all faults.
    """
    found: dict[str, Benchmark] = {}
    wrong: list[Fault] = []
    if not (config.benchmarks or config.questions):
        wrong.append(Fault(where, "has no source; expected benchmarks or questions"))
    if config.test_share + config.validation_share >= 1 and not config.only_test:
        wrong.append(Fault(f"{where}: test_share, validation_share", "leave nothing for training"))
    for name, choice in config.benchmarks.items():
        key = f"{where}: benchmarks.{name}"
        try:
            found[name] = find_benchmark(name)
            path = _path(found[name], choice, base)
            if path is not None:
                data_files(path, found[name].source, choice.split)
        except RegistryError as error:
            wrong.append(Fault(key, str(error)))
        except ConfigError as error:
            wrong += [Fault(f"{key}.path", str(fault)) for fault in error.faults]
    for number, file in enumerate(config.questions):
        path, key = base / file, f"{where}: questions.{number}"
        if not path.is_file():
            wrong.append(Fault(key, f"{path}: no such file"))
        elif not path.stat().st_size:
            wrong.append(Fault(key, f"{path}: holds no question"))
    if wrong:
        raise ConfigError(wrong)
    return found


def _path(benchmark: Benchmark, choice: BenchmarkChoice, base: Path) -> Path | None:
    return benchmark.source.path if choice.path is None else base / Path(choice.path).expanduser()


def gather(
    config: DataConfig, base: Path, benchmarks: dict[str, Benchmark], progress: Watcher
) -> Gathered:
    """Read every benchmark and file of ready questions, and draw from each.

    Args:
        config: The run.
        base: Folder that its paths are relative to.
        benchmarks: See `find_all`.
        progress: Called with (source, finished sources, all sources).

    Raises:
        ConfigError: With all faults of the files of ready questions, or there is no question.
        SchemaError, MissingExtraError: A benchmark cannot be loaded.
    """
    gathered = Gathered()
    total = len(benchmarks) + len(config.questions)
    for number, (name, benchmark) in enumerate(benchmarks.items()):
        progress(name, number, total)
        choice = config.benchmarks[name]
        path = _path(benchmark, choice, base)
        loaded = load_questions(
            benchmark,
            path,
            split=choice.split,
            revision=choice.revision,
            max_tokens=choice.max_tokens,
            instruction=choice.instruction,
        )
        drawn = _sample(loaded.questions, choice.n, config.seed)
        if choice.n is not None and choice.n > len(drawn):
            gathered.warnings.append(f"{name}: {choice.n} asked for, there are {len(drawn)}")
        gathered.doubled += loaded.rows - len(loaded.questions)
        gathered.questions |= {one.query_id: one for one in drawn}
        gathered.sources.append(
            {
                "benchmark": name,
                "version": benchmark.version,
                "source": benchmark.source.dataset if path is None else str(path),
                "split": choice.split or benchmark.source.split,
                "revision": choice.revision,
                "rows": loaded.rows,
                "questions": len(drawn),
            }
        )
    _add_ready(gathered, config, base, progress, total)
    progress("", total, total)
    return gathered


def _add_ready(
    gathered: Gathered, config: DataConfig, base: Path, progress: Watcher, total: int
) -> None:
    wrong: list[Fault] = []
    for number, file in enumerate(config.questions):
        progress(file, total - len(config.questions) + number, total)
        try:
            ready = read_own_questions(base / file, _check_metric)
        except ConfigError as error:
            wrong += error.faults
            continue
        for one in ready:
            there = gathered.questions.setdefault(one.query_id, one)
            if there is not one:
                gathered.doubled += 1
                if there != one:
                    problem = f"query_id {one.query_id} is another question elsewhere"
                    wrong.append(Fault(str(base / file), problem))
        gathered.sources.append({"questions_file": file, "questions": len(ready)})
    if wrong:
        raise ConfigError(wrong)
    if not gathered.questions:
        given = names([*config.benchmarks, *config.questions])
        raise ConfigError([Fault(given, "holds no question")])


def _check_metric(metric: str) -> None:
    if metric.startswith(CUSTOM):
        return
    try:
        metric_name(metric)
    except RegistryError as error:
        raise ValueError(str(error)) from None


def _sample(questions: Sequence[Question], n: int | None, seed: int) -> list[Question]:
    """Return the first ``n`` in an order by seed and id; larger draws contain smaller ones."""

    def draw(question: Question) -> tuple[bytes, str]:
        key = f"{seed}\x1f{question.query_id}".encode()
        return hashlib.blake2b(key, digest_size=16).digest(), question.query_id

    return sorted(questions, key=draw)[:n]


def parquet_path(folder: Path, split: str) -> Path:
    """Return the table of one split's questions in a routing-data folder."""
    return folder / f"queries_{split}.parquet"


def write_parquet(path: Path, questions: Sequence[Question]) -> None:
    """Write questions as a table atomically; choices and lists of truths are JSON text."""
    rows = []
    for one in questions:
        row = one.model_dump()
        row["choices"] = (
            None if one.choices is None else json.dumps(one.choices, ensure_ascii=False)
        )
        if not isinstance(one.ground_truth, str):
            row["ground_truth"] = json.dumps(one.ground_truth, ensure_ascii=False)
        rows.append(row)
    with replacing(path) as partial:
        pq.write_table(pa.Table.from_pylist(rows, schema=_SCHEMA), partial)


def run(
    config_path: str | Path, overrides: Sequence[str] = (), progress: Watcher | None = None
) -> dict[str, Any]:
    """Gather and split the questions of a data run, and write them.

    Files of splits that this run does not have are removed.

    Args:
        config_path: YAML of a `DataConfig`.
        overrides: ``key=value`` settings on top of it.
        progress: Called with (source, finished sources, all sources).

    Returns:
        The content of ``queries.json``, and ``folder``: the path, or the URI of a store.

    Raises:
        ConfigError: With all faults of the config and of the files of ready questions.
        SchemaError, MissingExtraError, PluginError: A benchmark cannot be loaded.
        StorageError: The store cannot be written.
    """
    config_path = Path(config_path)
    config = load_data_config(config_path, overrides, needs_llms=False)
    splits, report = _build(config, config_path.parent, str(config_path), progress)
    with run_folder(config_path, config) as folder:
        for split in SPLITS:
            lines, table = queries_path(folder, split), parquet_path(folder, split)
            if split in splits:
                write_questions(lines, splits[split])
                write_parquet(table, splits[split])
            else:
                lines.unlink(missing_ok=True)
                table.unlink(missing_ok=True)
        write_text(folder / REPORT, json.dumps(report, indent=2, ensure_ascii=False) + "\n")
    # For a store the local folder was a temporary copy.
    return {"folder": str(Uri(config.out)) if is_uri(config.out) else str(folder), **report}


def build(
    config: DataConfig, base: Path, progress: Watcher | None = None
) -> dict[str, list[Question]]:
    """Gather and split the questions of a data run without writing them.

    Args:
        config: The run.
        base: Folder that its paths are relative to.
        progress: See `run`.

    Returns:
        Split -> questions, without empty splits, in the order of `SPLITS`.

    Raises:
        ConfigError, SchemaError, MissingExtraError, PluginError: See `run`.
    """
    return _build(config, base, "config", progress)[0]


def _build(
    config: DataConfig, base: Path, where: str, progress: Watcher | None
) -> tuple[dict[str, list[Question]], dict[str, Any]]:
    benchmarks = find_all(config, base, where)
    gathered = gather(config, base, benchmarks, progress or (lambda *_: None))
    questions = list(gathered.questions.values())
    groups = duplicate_groups([one.query for one in questions])
    homes = _homes(questions, groups, config)
    splits = {
        split: [one for one, home in zip(questions, homes, strict=True) if home == split]
        for split in SPLITS
    }
    splits = {split: found for split, found in splits.items() if found}
    for warning in gathered.warnings:
        logger.warning("%s", warning)
    counts = {split: Counter(one.task_name for one in found) for split, found in splits.items()}
    distinct = int(groups.max()) + 1
    return splits, {
        "seed": config.seed,
        "sources": gathered.sources,
        "doubled": gathered.doubled,
        "questions": len(questions),
        "groups": distinct,
        "near_duplicates": len(questions) - distinct,
        "splits": {split: len(found) for split, found in splits.items()},
        "tasks": {
            task: {split: counts[split][task] for split in splits}
            for task in sorted({one.task_name for one in questions})
        },
        "warnings": gathered.warnings,
    }


def _homes(
    questions: Sequence[Question], groups: np.ndarray[Any, Any], config: DataConfig
) -> list[str]:
    """Return the split of each question: the shares hold within each task, groups stay whole."""
    texts = [one.query for one in questions]
    tasks = [one.task_name for one in questions]
    if config.only_test:
        return ["test"] * len(questions)
    homes = np.full(len(questions), "train", dtype=object)
    left, taken = np.arange(len(questions)), 0.0
    for split, share in (("test", config.test_share), ("validation", config.validation_share)):
        if not share:
            continue
        inner = np.unique(groups[left], return_inverse=True)[1]
        if inner.max() < 1:
            problem = f"there is one distinct question; a {split} split needs two"
            raise ConfigError([Fault(f"{split}_share", problem)])
        rows = left.tolist()
        chosen = share_out(
            [texts[i] for i in rows],
            [tasks[i] for i in rows],
            share / (1 - taken),
            config.seed,
            inner,
        )
        homes[left[chosen]] = split
        left, taken = left[~chosen], taken + share
    return [str(home) for home in homes]
