"""What every bench shares: options, result, aims, figures and the facts of the machine."""

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
PACKAGES = ("numpy", "ray", "scikit-learn")
"""Packages whose versions stand in every result."""


class BenchError(WaypostError):
    """A process of a bench does not start, fails or does not answer; the message says why."""


class Options(StrictModel):
    """Base of a bench's options; a field with a description is an option of its command.

    ``json_schema_extra`` of a field may hold ``metavar`` (the option is one text that the model
    reads) or ``argument`` (the field is the command's arguments, shown by this text).
    """


class _NoBar(Protocol):
    def __call__(self, done: int, total: int, what: str = ...) -> None: ...


@dataclass(frozen=True)
class Tell:
    """Told how far a bench is.

    Attributes:
        line: Called with a line for each step.
        bar: Called with (done, total, what) while a long step runs.
    """

    line: Callable[[str], None] = lambda line: None
    bar: _NoBar = lambda done, total, what="": None

    def __call__(self, line: str) -> None:
        """Tell a line."""
        self.line(line)


@dataclass(frozen=True)
class Aim:
    """One thing aimed at; `at_most` and `at_least` make one.

    Attributes:
        aim: In words, with its bound.
        value: The figure reached; None where it was not measured.
        reached: None where it was not measured.
    """

    aim: str
    value: float | None
    reached: bool | None


def at_most(what: str, value: float | None, bound: float) -> Aim:
    """Return an aim that is reached up to a bound."""
    return Aim(f"{what}: at most {bound:,g}", value, None if value is None else value <= bound)


def at_least(what: str, value: float | None, bound: float) -> Aim:
    """Return an aim that is reached from a bound on."""
    return Aim(f"{what}: at least {bound:,g}", value, None if value is None else value >= bound)


@dataclass(frozen=True)
class Table:
    """A title, heads and rows of text; the first column names the row."""

    title: str
    heads: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Result:
    """What a bench found.

    Attributes:
        tables: For people.
        facts: What a reader needs to know to read them.
        aims: Reached or not.
        figures: Everything, JSON-able.
        failed: What was not measured to the end -> why.
    """

    tables: Sequence[Table]
    facts: str
    aims: Sequence[Aim] = ()
    figures: Mapping[str, Any] = field(default_factory=dict)
    failed: Mapping[str, str] = field(default_factory=dict)


def benches() -> dict[str, str]:
    """Return the name of every bench and the first line of its module.

    A bench is a module of this package; those whose name begins with ``_``, and this one, are not.
    """
    names = [info.name for info in pkgutil.iter_modules(waypost.bench.__path__)]
    return {one: _first_line(one) for one in names if one[0] != "_" and one != "harness"}


def _first_line(name: str) -> str:
    # read, not imported: a list of benches needs none of their libraries
    spec = find_spec(f"waypost.bench.{name}")
    loader: Any = spec and spec.loader
    return str(loader.get_source(f"waypost.bench.{name}").split('"""')[1]).partition("\n")[0]


@dataclass(frozen=True)
class Report:
    """A result with what holds for all benches.

    Attributes:
        result: The bench's own.
        data: JSON-able: ``format``, ``machine``, ``options``, the bench's figures, ``aims``,
            ``failed``.
    """

    result: Result
    data: Mapping[str, Any]

    @property
    def tables(self) -> Iterator[Table]:
        """The bench's tables, and that of the aims."""
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
        options: Of its module's ``Options``.
        tell: Told how far it is.

    Raises:
        WaypostError: what the bench raises.
    """
    load = os.getloadavg()[0]
    result: Result = import_module(f"waypost.bench.{name}").run(options, tell)
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
    """Time one call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def milliseconds(ask: Callable[[int], Any], count: int, warm_up: int = 5) -> list[float]:
    """Time ``ask(0)`` to ``ask(count - 1)``, after a few of them that are not counted."""
    for i in range(min(warm_up, count)):
        ask(i)
    return [1e3 * seconds(lambda i=i: ask(i)) for i in range(count)]  # type: ignore[misc]


def percentiles(values: Sequence[float]) -> dict[str, float]:
    """Return ``p50``, ``p95`` and ``p99``, interpolated.

    Raises:
        ValueError: there are no values.
    """
    if not len(values):
        raise ValueError("percentiles of no values")
    found = np.percentile(np.asarray(values, float), PERCENTILES)
    return {f"p{p}": float(value) for p, value in zip(PERCENTILES, found, strict=True)}


def spread(values: Sequence[float]) -> dict[str, float]:
    """Return ``median``, ``least`` and ``most``, as of several rounds.

    Raises:
        ValueError: there are no values.
    """
    found = np.asarray(values, float)
    return {
        "median": float(np.median(found)),
        "least": float(found.min()),
        "most": float(found.max()),
    }


def over_rounds(rounds: Sequence[Sequence[float]]) -> dict[str, dict[str, float]]:
    """Return `percentiles` of each round, as their `spread` over the rounds."""
    each = [percentiles(values) for values in rounds]
    return {key: spread([one[key] for one in each]) for key in each[0]}


def figure(value: float | None) -> str:
    """Write a number with three significant digits."""
    if value is None:
        return UNKNOWN
    if abs(value) >= 1000:
        return f"{float(f'{value:.3g}'):,.0f}"
    return f"{value:#.3g}".removesuffix(".")


def with_range(one: Mapping[str, float]) -> str:
    """Write a `spread`: the median, and least and most in brackets."""
    return f"{figure(one['median'])} [{figure(one['least'])}, {figure(one['most'])}]"
