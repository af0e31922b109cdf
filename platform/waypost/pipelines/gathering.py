"""What a data run asks, before it is split: draws from benchmarks, and ready questions."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from waypost.benchmarks.base import Benchmark
from waypost.benchmarks.catalog import find_benchmark
from waypost.benchmarks.rows import data_files, load_questions
from waypost.contracts.errors import ConfigError, Fault, RegistryError, names
from waypost.contracts.progress import Watcher
from waypost.contracts.questions import Question, read_questions
from waypost.pipelines.data_config import BenchmarkChoice, DataConfig


@dataclass
class Gathered:
    """Questions before they are split.

    Attributes:
        questions: By id.
        sources: What each benchmark or file gave, for the report.
        doubled: Questions left out since one of the same id is there.
        warnings: What is not as was asked for, in words.
    """

    questions: dict[str, Question] = field(default_factory=dict)
    sources: list[dict[str, Any]] = field(default_factory=list)
    doubled: int = 0
    warnings: list[str] = field(default_factory=list)


def find_all(config: DataConfig, base: Path, where: str) -> dict[str, Benchmark]:
    """Find the benchmarks of a run and look whether every file is there.

    Args:
        config: The run.
        base: Folder that its paths are relative to.
        where: Its file, for messages.

    Raises:
        ConfigError: with every fault.
    """
    found: dict[str, Benchmark] = {}
    wrong: list[Fault] = []
    if not (config.benchmarks or config.questions):
        wrong.append(Fault(where, "asks nothing; expected benchmarks or questions"))
    if config.test_share + config.validation_share >= 1:
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
        if not (base / file).is_file():
            wrong.append(Fault(f"{where}: questions.{number}", f"{base / file}: no such file"))
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
        progress: Told of (what is read, how many are done, how many there are).

    Raises:
        ConfigError: with every fault of the files of ready questions; or nothing is to be asked.
        SchemaError, MissingExtraError: a benchmark cannot be loaded.
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
            ready = read_questions(base / file)
        except ConfigError as error:
            wrong += error.faults
            continue
        for one in ready:
            there = gathered.questions.setdefault(one.query_id, one)
            if there is not one:
                gathered.doubled += 1
                if there != one:
                    problem = f"query_id {one.query_id} means another question elsewhere"
                    wrong.append(Fault(str(base / file), problem))
        gathered.sources.append({"questions_file": file, "questions": len(ready)})
    if wrong:
        raise ConfigError(wrong)
    if not gathered.questions:
        given = names([*config.benchmarks, *config.questions])
        raise ConfigError([Fault(given, "holds no question")])


def _sample(questions: Sequence[Question], n: int | None, seed: int) -> list[Question]:
    """Return the first ``n`` in an order drawn by seed and id, so that more only adds to fewer."""

    def draw(question: Question) -> tuple[bytes, str]:
        key = f"{seed}\x1f{question.query_id}".encode()
        return hashlib.blake2b(key, digest_size=16).digest(), question.query_id

    return sorted(questions, key=draw)[:n]
