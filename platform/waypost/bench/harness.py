"""The parts shared by all benchmarks: options, result, aims, figures and machine facts."""

from __future__ import annotations

import os
import pkgutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Any, Protocol

import numpy as np

import waypost.bench
from waypost.config import StrictModel
from waypost.contracts.errors import WaypostError
from waypost.report.compact import machine
from waypost.report.numbers import UNKNOWN, table

PERCENTILES = (50, 95, 99)
PACKAGES = ("numpy", "ray", "scikit-learn", "torch", "transformers", "trl")
"""Packages whose versions are part of every result, where they are installed."""


ELSEWHERE = {"rl": "waypost_rl.bench"}
"""Benches of packages that the platform does not import: name -> module."""


class BenchError(WaypostError):
    """A process of a bench does not start, fails or does not answer."""


class Options(StrictModel):
    """Base of a bench's options; a field with a description is an option of its command.

    ``json_schema_extra`` of a field may have ``metavar`` (the option is one string that the model
    parses) or ``argument`` (the field takes the command's arguments; help shows this text).
    """


class _NoBar(Protocol):
    def __call__(self, done: int, total: int, what: str = ...) -> None: ...


@dataclass(frozen=True)
class Tell:
    """Callbacks for the progress of a bench.

    Attributes:
        line: Called with a line for each step.
        bar: Called with (done, total, what) while a long step runs.
    """

    line: Callable[[str], None] = lambda line: None
    bar: _NoBar = lambda done, total, what="": None

    def __call__(self, line: str) -> None:
        """Report a line."""
        self.line(line)


@dataclass(frozen=True)
class Aim:
    """A target of the project for one figure; `at_most` and `at_least` create one.

    Attributes:
        aim: Description with the bound.
        value: The measured figure; None if it was not measured.
        reached: Whether the value is within the bound; None if it was not measured.
    """

    aim: str
    value: float | None
    reached: bool | None


def at_most(what: str, value: float | None, bound: float) -> Aim:
    """Return an aim that is reached if the value is at most a bound."""
    return Aim(f"{what}: at most {bound:,g}", value, None if value is None else value <= bound)


def at_least(what: str, value: float | None, bound: float) -> Aim:
    """Return an aim that is reached if the value is at least a bound."""
    return Aim(f"{what}: at least {bound:,g}", value, None if value is None else value >= bound)


@dataclass(frozen=True)
class Table:
    """A title, heads and rows of text; the first column names the row."""

    title: str
    heads: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Result:
    """The result of a bench.

    Attributes:
        tables: Tables for display.
        facts: A text that explains the tables.
        aims: Aims, reached or not.
        figures: All figures, JSON-able.
        failed: Name of an incomplete measurement -> reason.
    """

    tables: Sequence[Table]
    facts: str
    aims: Sequence[Aim] = ()
    figures: Mapping[str, Any] = field(default_factory=dict)
    failed: Mapping[str, str] = field(default_factory=dict)


def benches() -> dict[str, str]:
    """Return the name of every bench and the first line of its module.

    Every module of this package is a bench, except this one and those that begin with ``_``; so are
    those of `ELSEWHERE`.
    """
    names = [info.name for info in pkgutil.iter_modules(waypost.bench.__path__)]
    names = [one for one in names if one[0] != "_" and one != "harness"]
    return {one: _first_line(module_of(one)) for one in sorted({*names, *ELSEWHERE})}


def module_of(name: str) -> str:
    """Return the name of the module of a bench."""
    return ELSEWHERE.get(name, f"waypost.bench.{name}")


def _first_line(module: str) -> str:
    # read, not imported: importing a bench needs its libraries
    spec = find_spec(module)
    loader: Any = spec and spec.loader
    return str(loader.get_source(module).split('"""')[1]).partition("\n")[0]


@dataclass(frozen=True)
class Report:
    """A result with the facts common to all benches.

    Attributes:
        result: Result of the bench.
        data: JSON-able: ``format``, ``machine``, ``options``, the bench's figures, ``aims``,
            ``failed``.
    """

    result: Result
    data: Mapping[str, Any]

    @property
    def tables(self) -> Iterator[Table]:
        """The bench's tables, then the table of aims."""
        yield from self.result.tables
        if self.result.aims:
            told = {True: "reached", False: "not reached", None: "not measured"}
            rows = [[one.aim, figure(one.value), told[one.reached]] for one in self.result.aims]
            yield Table("Aims", ("aim", "value", ""), rows)

    @property
    def facts(self) -> str:
        """The bench's facts, then load and packages."""
        before, after = self.data["machine"]["load"]
        packages = self.data["machine"]["packages"]
        named = ", ".join(f"{name} {release}" for name, release in packages.items())
        return f"{self.result.facts} Load {before:.1f} before and {after:.1f} after; {named}."

    def markdown(self, command: str) -> str:
        """Return the tables, the facts and the command line."""
        lines = []
        for one in self.tables:
            lines += [f"{one.title}:", "", *table(one.heads, one.rows), ""]
        return "\n".join([*lines, self.facts, "", f"    {command}"])


def measure(name: str, options: Options, tell: Tell) -> Report:
    """Run a bench.

    Args:
        name: One of `benches`.
        options: Instance of its module's ``Options``.
        tell: Progress callbacks.

    Raises:
        WaypostError: The bench raised it.
    """
    load = os.getloadavg()[0]
    result: Result = import_module(module_of(name)).run(options, tell)
    data = {
        "format": f"waypost-bench-{name}/2",
        "machine": {
            **machine(),
            "load": [load, os.getloadavg()[0]],
            "packages": {one: found for one in PACKAGES if (found := _version(one))},
        },
        "options": options.model_dump(mode="json"),
        **result.figures,
        "aims": [asdict(aim) for aim in result.aims],
        "failed": dict(result.failed),
    }
    return Report(result, data)


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


# -- figures --------------------------------------------------------------------------------------


def seconds(call: Callable[[], Any]) -> float:
    """Return the seconds that one call takes."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def milliseconds(ask: Callable[[int], Any], count: int, warm_up: int = 5) -> list[float]:
    """Return the milliseconds of ``ask(0)`` to ``ask(count - 1)``, after ``warm_up`` calls."""
    for i in range(min(warm_up, count)):
        ask(i)
    return [1e3 * seconds(lambda i=i: ask(i)) for i in range(count)]  # type: ignore[misc]


def percentiles(values: Sequence[float]) -> dict[str, float]:
    """Return ``p50``, ``p95`` and ``p99``, with linear interpolation.

    Raises:
        ValueError: There are no values.
    """
    if not len(values):
        raise ValueError("percentiles of no values")
    found = np.percentile(np.asarray(values, float), PERCENTILES)
    return {f"p{p}": float(value) for p, value in zip(PERCENTILES, found, strict=True)}


def spread(values: Sequence[float]) -> dict[str, float]:
    """Return ``median``, ``least`` and ``most`` of values, usually one for each round.

    Raises:
        ValueError: There are no values.
    """
    found = np.asarray(values, float)
    return {
        "median": float(np.median(found)),
        "least": float(found.min()),
        "most": float(found.max()),
    }


def over_rounds(rounds: Sequence[Sequence[float]]) -> dict[str, dict[str, float]]:
    """Return the `spread` over the rounds of each of their `percentiles`."""
    each = [percentiles(values) for values in rounds]
    return {key: spread([one[key] for one in each]) for key in each[0]}


def figure(value: float | None) -> str:
    """Return a number as text with three significant digits."""
    if value is None:
        return UNKNOWN
    if abs(value) >= 1000:
        return f"{float(f'{value:.3g}'):,.0f}"
    return f"{value:#.3g}".removesuffix(".")


def with_range(one: Mapping[str, float]) -> str:
    """Return a `spread` as text: the median, then least and most in brackets."""
    return f"{figure(one['median'])} [{figure(one['least'])}, {figure(one['most'])}]"
