"""The first phase of a data run: from benchmarks and ready questions to split questions.

The routing-data folder gets, for each split that has questions,

    queries_<split>.jsonl      `waypost.contracts.questions.Question`, one a line
    queries_<split>.parquet    the same as a table
    queries.json               what was taken from where, and how it was split

What is drawn depends on the seed and on the questions' ids and texts alone: not on the order of
rows or benchmarks.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from waypost.contracts.errors import ConfigError, Fault
from waypost.contracts.progress import Watcher
from waypost.contracts.questions import Question, queries_path, write_questions
from waypost.contracts.splits import duplicate_groups, share_out
from waypost.contracts.tables import SPLITS
from waypost.pipelines.data_config import DataConfig, load_data_config, run_folder
from waypost.pipelines.gathering import find_all, gather
from waypost.pipelines.question_files import parquet_path, write_parquet, write_report
from waypost.storage.uri import Uri, is_uri

logger = logging.getLogger(__name__)

Progress = Watcher


def run(
    config_path: str | Path, overrides: Sequence[str] = (), progress: Progress | None = None
) -> dict[str, Any]:
    """Gather and split the questions of a data run, and write them.

    Files of an earlier run that this one does not write are removed.

    Args:
        config_path: YAML of a `DataConfig`.
        overrides: ``key=value`` settings on top of it.
        progress: Told of (what is read, how many are done, how many there are).

    Returns:
        What ``queries.json`` holds, and ``folder``: the path, or the URI of a store.

    Raises:
        ConfigError: with every fault of the config and of the files of ready questions.
        SchemaError, MissingExtraError, PluginError: a benchmark cannot be loaded.
        StorageError: the store cannot be written.
    """
    config_path = Path(config_path)
    config = load_data_config(config_path, overrides)
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
        write_report(folder, report)
    # Of a store the local folder is a copy that is gone by now.
    return {"folder": str(Uri(config.out)) if is_uri(config.out) else str(folder), **report}


def build(
    config: DataConfig, base: Path, progress: Progress | None = None
) -> dict[str, list[Question]]:
    """Gather the questions of a data run and split them; nothing is written.

    Args:
        config: The run.
        base: Folder that its paths are relative to.
        progress: See `run`.

    Returns:
        Split -> questions, only splits that have any, in the order of `SPLITS`.

    Raises:
        ConfigError, SchemaError, MissingExtraError, PluginError: as `run`.
    """
    return _build(config, base, "config", progress)[0]


def _build(
    config: DataConfig, base: Path, where: str, progress: Progress | None
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
