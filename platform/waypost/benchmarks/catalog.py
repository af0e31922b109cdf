"""The available benchmarks: the built-in ones and those in plug-in folders.

A plug-in folder contains ``benchmark.yaml`` or ``benchmark.py`` (`waypost.benchmarks.custom`), next
to router plug-ins. Listing runs no plug-in code; a broken plug-in is listed with its error.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from pathlib import Path
from typing import Literal

from waypost.benchmarks import tasks
from waypost.benchmarks.base import CUSTOM, Benchmark
from waypost.benchmarks.custom import read_python, read_yaml_task, score_function
from waypost.config import settings
from waypost.contracts.errors import ConfigError, PluginError, RegistryError, SchemaError, names
from waypost.contracts.wording import did_you_mean
from waypost.registry.entries import searched_paths
from waypost.registry.sources import BENCHMARK_PY, BENCHMARK_YAML, is_benchmark, read_source


@dataclass(frozen=True)
class BenchmarkEntry:
    """Catalog entry of one benchmark.

    Attributes:
        name: Task name.
        kind: Origin of the benchmark.
        location: Module or folder.
        summary: One line.
        source: Hub data set or local path; None until the benchmark is loaded.
        metric, columns: As in `Benchmark`; None until the benchmark is loaded.
        error: Reason why the benchmark cannot be used; None if it can.
    """

    name: str
    kind: Literal["built-in", "yaml", "python"]
    location: str
    summary: str = ""
    source: str | None = None
    metric: str | None = None
    columns: tuple[str, ...] | None = None
    error: str | None = None

    def __str__(self) -> str:
        return f"benchmark {self.name} ({self.location})"


def list_benchmarks(plugin_paths: Sequence[Path] | None = None) -> list[BenchmarkEntry]:
    """Return every benchmark, built-in ones first; a name that is taken gives an ``error``.

    Args:
        plugin_paths: Parents of plug-in folders; default: those of `waypost.registry.searching`,
            else of the settings.
    """
    found = {
        name: _facts(BenchmarkEntry(name, "built-in", type(one).__module__), one)
        for name, one in _builtin().items()
    }
    shadowed: list[BenchmarkEntry] = []
    paths = searched_paths() if plugin_paths is None else plugin_paths
    for entry in _plugins(settings().plugin_paths if paths is None else paths):
        first = found.setdefault(entry.name, entry)
        if first is not entry and first.location != entry.location:
            problem = f"the name is taken by the {first.kind} benchmark at {first.location}"
            shadowed.append(replace(entry, error=problem))
    key = {"built-in": 0}
    return sorted(
        (*found.values(), *shadowed), key=lambda one: (key.get(one.kind, 1), one.name, one.location)
    )


def find_benchmark(name: str, plugin_paths: Sequence[Path] | None = None) -> Benchmark:
    """Return the benchmark of a name; a plug-in is loaded.

    Raises:
        RegistryError: no benchmark has that name; the message lists the known names.
        PluginError: the plug-in of that name does not load.
    """
    if name in _builtin():
        return _builtin()[name]
    entry = _plugin(name, plugin_paths)
    folder = Path(entry.location)
    benchmark = read_yaml_task(folder) if entry.kind == "yaml" else read_python(folder)
    if entry.kind == "python" and not benchmark.metric:
        benchmark.metric = f"{CUSTOM}{name}"
    return benchmark


def load_entry(entry: BenchmarkEntry, plugin_paths: Sequence[Path] | None = None) -> BenchmarkEntry:
    """Load a benchmark and return its complete entry, or its entry with the error."""
    if entry.error is not None:
        return entry
    try:
        return _facts(entry, find_benchmark(entry.name, plugin_paths))
    except (RegistryError, ConfigError, SchemaError) as error:
        return replace(entry, error=str(error))


def custom_metric(name: str, plugin_paths: Sequence[Path] | None = None) -> Callable[..., float]:
    """Return the scorer of a metric that a benchmark defines itself.

    Workers receive only the metric's name and the plug-in's source, and call this function.

    Args:
        name: ``custom:`` and the task's name.
        plugin_paths: As in `list_benchmarks`.

    Returns:
        A function of (response, ground_truth, choices, query) to a score in [0, 1].

    Raises:
        RegistryError, PluginError: there is no such plug-in, or it does not load.
    """
    paths = searched_paths() if plugin_paths is None else plugin_paths
    paths = settings().plugin_paths if paths is None else paths
    return _score(name.removeprefix(CUSTOM), tuple(paths))


def find_scorer(metric: str) -> str | Callable[..., float]:
    """Return the ``metric`` argument of `waypost.scorers.score`: a name or a benchmark's function.

    Raises:
        RegistryError, PluginError: as in `custom_metric`.
    """
    return custom_metric(metric) if metric.startswith(CUSTOM) else metric


@lru_cache(maxsize=64)  # called for every scored answer
def _score(name: str, plugin_paths: tuple[Path, ...]) -> Callable[..., float]:
    entry = _plugin(name, plugin_paths)
    if entry.kind != "python":
        raise PluginError(f"{entry}: defines no metric; {BENCHMARK_PY} can define score()")
    return score_function(Path(entry.location))


@cache
def _builtin() -> dict[str, Benchmark]:
    modules = [one.name for one in pkgutil.iter_modules(tasks.__path__)]
    found = [importlib.import_module(f"{tasks.__name__}.{name}").BENCHMARK for name in modules]
    return {one.name: one for one in sorted(found, key=lambda one: str(one.name))}


def _plugin(name: str, plugin_paths: Sequence[Path] | None) -> BenchmarkEntry:
    entries = list_benchmarks(plugin_paths)
    named = [entry for entry in entries if entry.name == name and entry.kind != "built-in"]
    if usable := [entry for entry in named if entry.error is None]:
        return usable[0]
    if named:
        raise PluginError(f"{named[0]}: {named[0].error}")
    usable_names = [entry.name for entry in entries if entry.error is None]
    near, there = did_you_mean(name, usable_names), names(usable_names, limit=40)
    raise RegistryError(f"no benchmark is named {name!r}{near}; there are: {there}")


def _plugins(parents: Sequence[Path]) -> list[BenchmarkEntry]:
    found: list[BenchmarkEntry] = []
    for parent in parents:
        try:
            folders = sorted(one for one in parent.iterdir() if one.is_dir() and is_benchmark(one))
        except OSError:
            continue  # absent or unreadable: `waypost list-routers` reports it
        if is_benchmark(parent):
            problem = "is a plug-in itself: set WAYPOST_PLUGINS to its parent folder"
            found.append(BenchmarkEntry(parent.name, "yaml", str(parent), error=problem))
        shown = [folder for folder in folders if not folder.name.startswith((".", "_"))]
        found += [_entry(folder.resolve()) for folder in shown]
    return found


def _entry(folder: Path) -> BenchmarkEntry:
    if not (folder / BENCHMARK_YAML).is_file():
        found = read_source(folder / BENCHMARK_PY)
        return BenchmarkEntry(folder.name, "python", str(folder), found.summary, error=found.error)
    entry = BenchmarkEntry(folder.name, "yaml", str(folder))
    if (folder / BENCHMARK_PY).is_file():
        problem = f"contains both {BENCHMARK_YAML} and {BENCHMARK_PY}; expected one of them"
        return replace(entry, error=problem)
    try:
        return _facts(entry, read_yaml_task(folder))
    except (ConfigError, RegistryError) as error:
        return replace(entry, error=str(error))


def _facts(entry: BenchmarkEntry, one: Benchmark) -> BenchmarkEntry:
    return replace(
        entry,
        name=one.name,
        summary=one.summary,
        source=str(one.source),
        metric=one.metric,
        columns=tuple(one.columns),
    )
