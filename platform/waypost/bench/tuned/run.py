"""Sweeps of several routers on several data sets, and each winner beside its default on test."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from waypost.bench.tuned.data import Source, check_names, prepared
from waypost.bench.tuned.rows import Row, counted, row_of
from waypost.contracts.errors import ConfigError, Fault, SchemaError, WaypostError
from waypost.contracts.routing_data import read_routing_data
from waypost.pipelines.evaluation.inputs import reason
from waypost.pipelines.ray_session import ray_session
from waypost.report.numbers import plain
from waypost.tune.config import TuneConfig, read_sweep
from waypost.tune.sweep import Watcher, run_sweep

FORMAT = "waypost-bench-tuned/1"
ROUTERS = ("knnrouter", "mlprouter", "mfrouter", "graphrouter", "auto")

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Options:
    """What is compared.

    Attributes:
        sources: Routing data.
        routers: Each has its ``<router>.yaml`` in the folder of configs.
        configs: Folder of the sweeps' files.
        encoder: Query encoder of all.
        overrides: ``key=value`` settings of every file.
        fresh: Delete earlier results.
    """

    sources: tuple[Source, ...]
    routers: tuple[str, ...] = ROUTERS
    configs: Path = Path("tune_configs")
    encoder: str = "onnx"
    overrides: tuple[str, ...] = ()
    fresh: bool = False


def run(options: Options, out: Path, tell: Tell, watcher: Watcher | None = None) -> dict[str, Any]:
    """Compare; what a folder of results holds already is not measured again.

    Args:
        options: What.
        out: Folder of the results: sweeps, one file a row, result.json.
        tell: Called with a line for each step.
        watcher: Told of each sweep's trials.

    Returns:
        JSON-able data: ``format``, ``machine``, ``options``, ``data`` (by name: questions, rows
        by router, failed routers with the reason), ``counts``, ``seconds`` of this run.

    Raises:
        ConfigError: faults of all the sweeps' files, or ``out`` holds results of something else.
        SchemaError, WeightsError: data or encoder cannot be had.
    """
    start, load = time.monotonic(), os.getloadavg()[0]
    configs = read_configs(options)
    check_names(list(options.sources))
    data: dict[str, Any] = {}
    with ExitStack() as stack:
        session = _Session(stack)
        for source in options.sources:
            if options.fresh:
                shutil.rmtree(out / source.name, ignore_errors=True)
            folder = prepared(source, out)
            found = data[source.name] = {**_facts(folder), "rows": {}, "failed": {}}
            for name, config in configs.items():
                what = f"{source.name}: {name}"
                try:
                    row = _row(config, folder, out / source.name, what, session, tell, watcher)
                    found["rows"][name] = row
                # One router that fails, its data wanting, must not end the others.
                except WaypostError as error:
                    found["failed"][name] = reason(error)
                    tell(f"{what} failed: {found['failed'][name]}")
    rows = [row for one in data.values() for row in one["rows"].values()]
    return write_json_as(
        out / "result.json",
        {
            "format": FORMAT,
            "machine": {"cores": os.cpu_count(), "load": [load, os.getloadavg()[0]]},
            "options": {
                "encoder": options.encoder,
                "overrides": list(options.overrides),
                "seeds": {one.name: one.seed for one in options.sources},
            },
            "data": data,
            "counts": counted(rows),
            "seconds": time.monotonic() - start,
        },
    )


def read_configs(options: Options) -> dict[str, TuneConfig]:
    """Read the sweeps' files.

    Raises:
        ConfigError: with every fault of all files.
    """
    overrides = [f"encoder={options.encoder}", *options.overrides]
    found: dict[str, TuneConfig] = {}
    faults: list[Fault] = []
    for name in dict.fromkeys(options.routers):
        try:
            found[name] = read_sweep(options.configs / f"{name}.yaml", overrides)
        except ConfigError as error:
            faults += error.faults
    if faults:
        raise ConfigError(faults)
    return found


class _Session:
    """A Ray that is started for the first sweep that needs it, and serves all."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack, self._is_there = stack, False

    def begin(self) -> None:
        if not self._is_there:
            self._stack.enter_context(ray_session(threads=1))
            self._is_there = True


def _row(
    config: TuneConfig,
    folder: Path,
    place: Path,
    what: str,
    session: _Session,
    tell: Tell,
    watcher: Watcher | None,
) -> Row:
    """Return a router's row: the one kept, if it is of the same sweep, else a new one."""
    kept, asked = place / f"{config.router}.json", plain(config.model_dump(mode="json"))
    if (row := _kept(kept, asked)) is not None:
        tell(f"{what}: there already")
        return row
    tell(f"{what}: up to {config.budget.trials} trials")
    session.begin()
    report = run_sweep(config, folder, place / config.router, watcher=watcher)
    if "quality" not in (report.get("test") or {}):
        failed = (report.get("test") or {}).get("failed") or "no test split"
        raise SchemaError(f"{config.router}: could not be tested: {failed}")
    row = row_of(report)
    write_json_as(kept, {"asked": asked, "row": row})
    return row


def _kept(path: Path, asked: Mapping[str, Any]) -> Row | None:
    if not path.is_file():
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        return None  # torn by a kill
    return found["row"] if found["asked"] == asked else None


def _facts(folder: Path) -> dict[str, Any]:
    train, test = (read_routing_data(folder, name) for name in ("train", "test"))
    return {
        "train": len(train),
        "test": len(test),
        "llms": len(train.llms),
        "train_digest": train.digest,
        "test_digest": test.digest,
    }


def write_json_as(path: Path, data: Any) -> dict[str, Any]:
    """Write JSON in one step; returns what the file holds."""
    known: dict[str, Any] = plain(data)
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(json.dumps(known, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    partial.replace(path)
    return known
