"""Benchmarks in plug-in folders: a Python file with a `Benchmark`, or a YAML file.

``benchmark.py`` defines one subclass of `Benchmark` (or one instance). It may define its own metric
as ``score(response, ground_truth, choices, query) -> float`` in [0, 1].
"""

from __future__ import annotations

import inspect
import math
import sys
import traceback
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from types import ModuleType
from typing import Any

from waypost.benchmarks.base import Benchmark, Source
from waypost.benchmarks.yaml_task import read_yaml_task
from waypost.contracts.errors import PluginError, RegistryError, names
from waypost.registry.classes import load_plugin_module
from waypost.registry.sources import BENCHMARK_PY

__all__ = ["read_python", "read_yaml_task", "score_function"]

SCORE = "score"
"""Name of the metric function in a ``benchmark.py``."""


def read_python(folder: Path) -> Benchmark:
    """Load the benchmark of a folder's ``benchmark.py``.

    Its name is the folder's. Its metric is "" if the file defines ``score``.

    Raises:
        PluginError: the file does not load, or does not define exactly one benchmark.
    """
    module = _module(folder)
    there = list(dict.fromkeys(filter(_hashable, vars(module).values())))
    made = [one for one in there if isinstance(one, Benchmark)]
    classes = [
        one
        for one in there
        if inspect.isclass(one)
        and issubclass(one, Benchmark)
        and one.__module__ == module.__name__
        and not inspect.isabstract(one)
    ]
    candidates = [type(one).__name__ for one in made] or [one.__name__ for one in classes]
    if len(candidates) != 1:
        problem = "expected exactly one subclass or instance of Benchmark that defines question()"
        found = names(candidates) or "none"
        raise PluginError(f"{folder / BENCHMARK_PY}: {problem}; found {found}")
    with _Guarded(folder):
        benchmark = made[0] if made else classes[0]()
    _check(benchmark, folder, scores=callable(getattr(module, SCORE, None)))
    return benchmark


def score_function(folder: Path) -> Callable[..., float]:
    """Return ``score`` of a folder's ``benchmark.py``; any failure of it raises a PluginError.

    Raises:
        PluginError: the file does not load or has no such function.
    """
    score = getattr(_module(folder), SCORE, None)
    if not callable(score):
        raise PluginError(f"{folder / BENCHMARK_PY}: defines no function {SCORE}()")

    def checked(response: str, ground_truth: Any, choices: Any = None, query: Any = None) -> float:
        # Without the error's text, which may quote the answer.
        with _Guarded(folder, quoting=False):
            value = float(score(response, ground_truth, choices, query))
        if not (math.isfinite(value) and 0 <= value <= 1):
            raise PluginError(f"{folder / BENCHMARK_PY}: {SCORE}() gave {value}; expected 0 to 1")
        return value

    return checked


def _module(folder: Path) -> ModuleType:
    with _Guarded(folder):
        return load_plugin_module(folder, BENCHMARK_PY)


class _Guarded:
    """Context that turns errors of plug-in code into a PluginError with file and line.

    Output of the code goes to stderr, because a command may write JSON to stdout.
    """

    def __init__(self, folder: Path, *, quoting: bool = True) -> None:
        self.path = folder / BENCHMARK_PY
        self.quoting = quoting
        self.stdout = redirect_stdout(sys.stderr)

    def __enter__(self) -> None:
        self.stdout.__enter__()

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        self.stdout.__exit__(kind, error, trace)
        if isinstance(error, Exception | SystemExit) and not isinstance(error, PluginError):
            frames = traceback.extract_tb(trace)
            lines = [f.lineno for f in frames if f.filename == str(self.path)]
            where = f", line {lines[-1]}" if lines else ""
            problem = type(error).__name__
            if self.quoting:
                problem += f": {error}"
            raise PluginError(f"{self.path}{where}: {problem}") from error


def _check(benchmark: Benchmark, folder: Path, *, scores: bool) -> None:
    from waypost.scorers import metric_name

    kinds = {"source": Source, "columns": dict, "max_tokens": int}
    if not scores:
        kinds["metric"] = str
    if lacking := [
        f"{key} ({kind.__name__})"
        for key, kind in kinds.items()
        if not isinstance(getattr(benchmark, key, None), kind)
    ]:
        raise PluginError(f"{folder / BENCHMARK_PY}: the benchmark lacks {', '.join(lacking)}")
    if getattr(benchmark, "name", folder.name) != folder.name:
        problem = f"its name is {benchmark.name!r}; expected its folder's, {folder.name!r}"
        raise PluginError(f"{folder / BENCHMARK_PY}: {problem}")
    benchmark.name = folder.name
    if scores:
        benchmark.metric = ""
        return
    try:
        metric_name(benchmark.metric)
    except RegistryError as error:
        raise PluginError(f"{folder / BENCHMARK_PY}: {error}, or define {SCORE}()") from None


def _hashable(one: Any) -> bool:
    return type(one).__hash__ is not None
