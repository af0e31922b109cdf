"""Measure how fast `waypost data responses` asks a slow endpoint, beside simpler ways.

The pipeline, a thread pool and a sequential loop (as in LLMRouter) call the same endpoint on this
machine. Rates are measured at the endpoint.

Example: waypost bench data --quick; waypost bench data --cells 1000,10000,100000
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field, field_validator

from waypost.bench import harness
from waypost.bench._asking import ANSWER
from waypost.bench._processes import Watched, fetch, upstream, watched
from waypost.bench.harness import Aim, BenchError, Result, Table, Tell, at_least, at_most
from waypost.report.numbers import fixed, percent

PIPELINE, POOL, SEQUENTIAL = "waypost data responses", "thread pool", "one after another"
OF_IDEAL = 0.9
FLAT = 1.25
"""Highest ratio of memory at the most cells to memory at the fewest that counts as flat."""

_EDGE = 0.1
_SLOT_S = 0.1


class Options(harness.Options):
    """Options of ``waypost bench data``.

    Attributes:
        sequential: Number of calls of the sequential loop.
        every_s: Seconds between two samples of CPU time.
        cells_latency: Latency of the endpoint in seconds while memory is measured.
        cells_every_s: Seconds between two samples of memory.
    """

    calls: int = Field(12_800, ge=10, description="Calls of the pipeline and of the thread pool.")
    in_flight: int = Field(64, ge=1, description="Concurrent calls.")
    latency: float = Field(
        0.1, ge=0.001, description="Seconds that the endpoint takes for an answer."
    )
    cells: tuple[int, ...] = Field(
        (),
        description="Also measure memory at these numbers of cells; 100,000 take some minutes.",
        json_schema_extra={"metavar": "N,N,..."},
    )
    sequential: int = 60
    every_s: float = 0.5
    cells_latency: float = 0.005
    cells_every_s: float = 0.2

    @field_validator("cells", mode="before")
    @classmethod
    def _numbers(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        parts = [part.strip() for part in value.split(",") if part.strip()]
        if not all(part.isdecimal() and int(part) for part in parts):
            raise ValueError(f"expected whole numbers from 1 and commas, got {value!r}")
        return tuple(map(int, parts))


QUICK = {"calls": 1280, "sequential": 10}


def run(options: Options, tell: Tell) -> Result:
    """Measure the pipeline, the thread pool and the sequential loop one after the other.

    Returns:
        Figures: ``ways`` (by name), ``ratios``, ``memory`` (a row for each number of cells).

    Raises:
        BenchError: A process failed, or calls are missing or were made twice.
    """
    ways = {}
    calls = {PIPELINE: options.calls, POOL: options.calls, SEQUENTIAL: options.sequential}
    with _endpoint(options.latency) as port:
        for name, count in calls.items():
            tell(f"{name}: {count} calls")
            ways[name] = _figures(*_one(name, count, options, port, options.every_s), options)
    memory = []
    for cells in options.cells:
        tell(f"memory: {cells} cells")
        with _endpoint(options.cells_latency) as port:
            memory.append(_memory(*_one(PIPELINE, cells, options, port, options.cells_every_s)))
    return result(ways, memory, options)


def result(
    ways: Mapping[str, Mapping[str, Any]], memory: Sequence[Mapping[str, Any]], options: Options
) -> Result:
    """Return the result of these figures."""
    over = ratios(ways)
    milliseconds, ideal = 1000 * options.latency, options.in_flight / options.latency
    rows = [
        [name, *(write({**one, "over": over.get(name, 1.0)}) for _, write in WAY)]
        for name, one in ways.items()
    ]
    title = (
        f"An endpoint that answers after {milliseconds:g} ms, {options.in_flight} calls in flight"
    )
    tables = [Table(title, ("way", *(head for head, _ in WAY)), rows)]
    if memory:
        title = (
            "Most memory of their own (anonymous pages: no files, no object store), MB, at "
            f"{1000 * options.cells_latency:g} ms"
        )
        rows = [[f"{row['cells']:,}", *(f"{row[key]:,.0f}" for key in MEMORY)] for row in memory]
        tables.append(Table(title, ("cells", *MEMORY.values()), rows))
    facts = (
        "Rates are those at the endpoint, from its first call to its last answer (steady: over "
        "the middle 80 % of the answers); CPU seconds are those of the caller with all its "
        "processes, per 1,000 calls while it asks, and from start to end with all start-up. "
        "Callers and endpoint share the cores. One after another is how LLMRouter asks (rebuilt: "
        f"the loop of its route_batch without its libraries). {options.in_flight} calls at once "
        f"and {milliseconds:g} ms make {ideal:g} calls/s at best."
    )
    figures = {"ways": ways, "ratios": over, "memory": memory}
    return Result(tables, facts, aims(ways, memory), figures)


WAY: tuple[tuple[str, Callable[[Mapping[str, Any]], str]], ...] = (
    ("calls", lambda one: f"{one['calls']:,}"),
    ("calls/s", lambda one: fixed(one["per_s"], 1)),
    ("of ideal", lambda one: percent(one["of_ideal"])),
    ("steady", lambda one: fixed(one["steady_per_s"], 1)),
    ("of ideal", lambda one: percent(one["steady_of_ideal"])),
    ("ours over it", lambda one: fixed(one["over"], 2)),
    ("at once: mean", lambda one: fixed(one["mean_at_once"], 1)),
    ("most", lambda one: str(one["most_at_once"])),
    ("CPU s/1k", lambda one: fixed(one["cpu_s_per_1k"], 2)),
    ("CPU s in all", lambda one: fixed(one["cpu_s"], 1)),
    ("s in all", lambda one: fixed(one["wall_s"], 1)),
)
"""Columns of the table of ways: head, and function that formats the cell."""

MEMORY = {
    "askers_mb": "askers",
    "driver_mb": "driver",
    "store_mb": "object store",
    "tree_mb": "all processes",
    "per_s": "calls/s",
    "wall_s": "s in all",
}
"""Key of a memory figure -> its column head."""


def _endpoint(latency_s: float) -> Any:
    return upstream("--text", ANSWER, "--latency", str(latency_s))


def _one(
    name: str, calls: int, options: Options, port: int, every_s: float
) -> tuple[Watched, dict[str, Any]]:
    threads = 1 if name == SEQUENTIAL else options.in_flight
    words = ["--port", str(port), "--calls", str(calls), "--in-flight", str(threads)]
    with tempfile.TemporaryDirectory(prefix="waypost-bench-") as folder:
        if name == PIPELINE:
            words += ["--folder", str(Path(folder) / "run")]
        seen = watched("waypost.bench._asking", words, every_s)
    if seen.said.get("unanswered"):
        raise BenchError(f"{name}: {seen.said['unanswered']} of {calls} cells have no answer")
    found = take(port)
    if (found["calls"], found["answered"]) != (calls, calls):
        told = f"the endpoint saw {found['calls']} calls and answered {found['answered']}"
        raise BenchError(f"{name}: {told}, expected {calls} of both")
    return seen, found


def _figures(seen: Watched, calls: dict[str, Any], options: Options) -> dict[str, Any]:
    ideal = options.in_flight / options.latency
    return {
        **calls,
        "of_ideal": calls["per_s"] / ideal,
        "steady_of_ideal": calls["steady_per_s"] / ideal,
        "cpu_s_per_1k": seen.cpu_between(calls["begin"], calls["end"]) / calls["calls"] * 1000,
        "cpu_s": seen.cpu_s[-1],
        "wall_s": seen.wall_s,
    }


def _memory(seen: Watched, calls: dict[str, Any]) -> dict[str, Any]:
    return {
        "cells": calls["calls"],
        "driver_mb": seen.driver_mb,
        "askers_mb": seen.askers_mb,
        "store_mb": seen.said["store_mb"],
        "tree_mb": seen.tree_mb,
        "per_s": calls["per_s"],
        "wall_s": seen.wall_s,
    }


# -- figures --------------------------------------------------------------------------------------


def traffic(begins: Sequence[float], ends: Sequence[float]) -> dict[str, Any]:
    """Summarise a record of calls and answers, given in monotonic seconds.

    Returns:
        ``calls`` begun and ``answered``; ``begin``, the time of the first call, and ``end``, of
        the last answer; ``per_s``, answers per second between the two, and ``steady_per_s``, the
        same over the middle 80 % of the answers; ``most_at_once`` and ``mean_at_once``, maximum
        and mean number of calls in flight; ``timeline``, answers in each tenth of a second.

    Raises:
        ValueError: No call was answered.
    """
    if not len(ends):
        raise ValueError("no call was answered")
    came, went = np.sort(np.asarray(begins)), np.sort(np.asarray(ends))
    begin, end = float(came[0]), float(went[-1])
    low, high = int(len(went) * _EDGE), int(len(went) * (1 - _EDGE)) - 1
    middle = float(went[high] - went[low]) if high > low else 0.0
    # calls in flight at each call: the calls so far less the answers before it
    at_once = np.arange(1, len(came) + 1) - np.searchsorted(went, came, side="right")
    seconds = end - begin
    unanswered = (len(came) - len(went)) * end
    return {
        "calls": len(came),
        "answered": len(went),
        "begin": begin,
        "end": end,
        "per_s": len(went) / seconds,
        "steady_per_s": (high - low) / middle if middle else len(went) / seconds,
        "most_at_once": int(at_once.max()),
        "mean_at_once": float(went.sum() + unanswered - came.sum()) / seconds,
        "timeline": np.bincount(((went - begin) / _SLOT_S).astype(int)).tolist(),
    }


def take(port: int) -> dict[str, Any]:
    """Fetch the endpoint's record, which clears it there, and summarise it with `traffic`."""
    record = json.loads(fetch(port, "GET", "/traffic")[1])
    return traffic(record["begins"], record["ends"])


def ratios(ways: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """Return the ratio of the first way's calls per second to those of each other way."""
    (_, first), *others = ways.items()
    return {name: first["per_s"] / other["per_s"] for name, other in others}


def growth(memory: Sequence[Mapping[str, Any]], key: str) -> float | None:
    """Return the ratio of a figure at the most cells to that at the fewest; None below two rows."""
    if len(memory) < 2:
        return None
    rows = sorted(memory, key=lambda row: row["cells"])
    return float(rows[-1][key] / rows[0][key])


def aims(ways: Mapping[str, Mapping[str, Any]], memory: Sequence[Mapping[str, Any]]) -> list[Aim]:
    """Compare the figures with the aims.

    Args:
        ways: Figures by way, the pipeline first.
        memory: Rows of memory figures, one for each number of cells; may be empty.
    """
    name, first = next(iter(ways.items()))
    return [
        at_least(f"{name}, share of the ideal rate", first["of_ideal"], OF_IDEAL),
        at_least(f"{name}, the same of the middle 80 %", first["steady_of_ideal"], OF_IDEAL),
        at_most("askers, times that memory grows", growth(memory, "askers_mb"), FLAT),
        at_most("driver, times that memory grows", growth(memory, "driver_mb"), FLAT),
    ]
