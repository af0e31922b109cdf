"""All ways of asking against one endpoint, one after the other, and their figures."""

from __future__ import annotations

import os
import platform
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from waypost.bench.data.aims import aims, ratios
from waypost.bench.data.traffic import Traffic, take
from waypost.bench.data.watched import Watched, watched
from waypost.bench.gateway.processes import BenchError, listening

PIPELINE, POOL, SEQUENTIAL = "waypost data responses", "thread pool", "one after another"

_ENDPOINT = "waypost.bench.data.endpoint"
_PIPELINE = "waypost.bench.data.pipeline"
_THREADS = "waypost.bench.data.threads"

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Options:
    """What is measured.

    Attributes:
        calls: Of the pipeline and of the pool.
        sequential: Calls of the way that makes one after another.
        in_flight: Calls at once that are allowed.
        latency_s: Of the endpoint.
        every_s: Seconds between two looks at CPU time.
        cells: Numbers of cells whose memory is measured, too.
        cells_latency_s: Of the endpoint then.
        cells_every_s: Seconds between two looks at memory.
    """

    calls: int = 12_800
    sequential: int = 60
    in_flight: int = 64
    latency_s: float = 0.1
    every_s: float = 0.5
    cells: tuple[int, ...] = ()
    cells_latency_s: float = 0.005
    cells_every_s: float = 0.2


QUICK = Options(calls=1280, sequential=10)


def run(options: Options, tell: Tell) -> dict[str, Any]:
    """Measure everything.

    Args:
        options: What.
        tell: Told what is measured next.

    Returns:
        JSON data: options, machine, ``ways`` (by name), ``ratios``, ``memory`` (a row for each
        number of cells), ``aims``.

    Raises:
        BenchError: a process failed, or calls are missing or were made twice.
    """
    load = os.getloadavg()[0]
    ways = {}
    with listening("the endpoint", _ENDPOINT, "--latency", str(options.latency_s)) as port:
        for name, calls in (
            (PIPELINE, options.calls),
            (POOL, options.calls),
            (SEQUENTIAL, options.sequential),
        ):
            tell(f"{name}: {calls} calls")
            seen, calls_seen = _one(name, calls, options, port, options.every_s)
            ways[name] = _figures(seen, calls_seen, options)
    memory = [_memory(cells, options, tell) for cells in options.cells]
    return {
        "options": asdict(options),
        "machine": {
            "cores": os.cpu_count(),
            "load": [load, os.getloadavg()[0]],
            "python": platform.python_version(),
        },
        "ways": ways,
        "ratios": ratios(ways),
        "memory": memory,
        "aims": [asdict(aim) for aim in aims(ways, memory)],
    }


def _one(
    name: str, calls: int, options: Options, port: int, every_s: float
) -> tuple[Watched, Traffic]:
    if name == PIPELINE:
        with tempfile.TemporaryDirectory(prefix="waypost-bench-") as folder:
            words = ["--in-flight", str(options.in_flight), "--folder", str(Path(folder) / "run")]
            seen = _run(_PIPELINE, port, calls, words, every_s)
        if seen.said["unanswered"]:
            raise BenchError(f"{name}: {seen.said['unanswered']} of {calls} cells have no answer")
    else:
        threads = options.in_flight if name == POOL else 1
        seen = _run(_THREADS, port, calls, ["--threads", str(threads)], every_s)
    calls_seen = take(port)
    if (calls_seen.calls, calls_seen.answered) != (calls, calls):
        told = f"the endpoint saw {calls_seen.calls} calls and answered {calls_seen.answered}"
        raise BenchError(f"{name}: {told}, expected {calls} of both")
    return seen, calls_seen


def _run(module: str, port: int, calls: int, words: Sequence[str], every_s: float) -> Watched:
    return watched(module, ["--port", str(port), "--calls", str(calls), *words], every_s)


def _figures(seen: Watched, calls: Traffic, options: Options) -> dict[str, Any]:
    ideal = options.in_flight / options.latency_s
    asking = seen.cpu_between(calls.begin, calls.end)
    return {
        "calls": calls.calls,
        "per_s": calls.per_s,
        "of_ideal": calls.per_s / ideal,
        "steady_per_s": calls.steady_per_s,
        "steady_of_ideal": calls.steady_per_s / ideal,
        "most_at_once": calls.most_at_once,
        "mean_at_once": calls.mean_at_once,
        "cpu_s_per_1k": asking / calls.calls * 1000,
        "cpu_s": seen.cpu_s[-1],
        "wall_s": seen.wall_s,
        "timeline": list(calls.timeline),
    }


def _memory(cells: int, options: Options, tell: Tell) -> dict[str, Any]:
    tell(f"memory: {cells} cells")
    latency = str(options.cells_latency_s)
    with listening("the endpoint", _ENDPOINT, "--latency", latency) as port:
        seen, calls = _one(PIPELINE, cells, options, port, options.cells_every_s)
    return {
        "cells": cells,
        "driver_mb": seen.driver_mb,
        "askers_mb": seen.askers_mb,
        "store_mb": seen.said["store_mb"],
        "tree_mb": seen.tree_mb,
        "per_s": calls.per_s,
        "wall_s": seen.wall_s,
    }
