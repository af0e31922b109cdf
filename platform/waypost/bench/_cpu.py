"""Servers measured in turns by the CPU time that an answer takes, and what one adds to another."""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from pydantic import DirectoryPath, Field

from waypost.bench import harness
from waypost.bench._client import Job, Slice, measure
from waypost.bench._http1 import Endpoint
from waypost.bench._processes import Server, free_ports, upstream
from waypost.bench._targets import ARTIFACT, START_S, Scene, graph
from waypost.bench.harness import Table, Tell, spread, with_range
from waypost.config import resolve_path
from waypost.metrics.intervals import interval
from waypost.report.numbers import percent
from waypost.serve.config import AUTO

_DRAWS = 2_000


class Turns(harness.Options):
    """Options of benches that measure servers in turns.

    Attributes:
        concurrency: Requests in flight.
        settle_s: Seconds after the last measurement for work that follows the answers.
    """

    artifact: DirectoryPath | None = Field(
        None, description=f"Artifact of the router.  [default: {ARTIFACT}]"
    )
    rounds: int = Field(40, ge=1, description="Measurements of every cell.")
    seconds: float = Field(0.5, gt=0, description="Seconds of a measurement.")
    tokens: int = Field(64, ge=1, description="Tokens of every answer.")
    seed: int = Field(0, ge=0, description="Seed of the prompts.")
    concurrency: tuple[int, ...] = (1, 64)
    settle_s: float = 3.0


@dataclass(frozen=True)
class Running:
    """A server under measurement."""

    endpoint: Endpoint
    pid: int


@contextmanager
def scene_of(options: Turns) -> Iterator[Scene]:
    """Run the upstream, with a temporary folder, during the block.

    Raises:
        BenchError: It does not start.
    """
    with (
        tempfile.TemporaryDirectory(prefix="waypost-bench-") as folder,
        upstream("--tokens", str(options.tokens)) as port,
    ):
        yield Scene(port, options.artifact or resolve_path(ARTIFACT), Path(folder))


def in_turns(
    servers: Mapping[str, Running], there: int, options: Turns, tell: Tell
) -> tuple[list[dict[str, Any]], int]:
    """Measure servers in turns.

    Args:
        servers: Name -> server.
        there: Port of the upstream.
        options: How often, for how long.
        tell: Progress callbacks.

    Returns:
        The cells, one for each server, kind and concurrency, and the number of errors.

    Raises:
        BenchError: The client fails.
    """
    found, errors = [], 0
    for stream in (False, True):
        for step in options.concurrency:
            each, failures = _in_turns(servers, there, options, tell, stream, step)
            errors += failures
            found += [
                {"server": name, "stream": stream, "concurrency": step, "cpu_us": spread(values)}
                | {"rounds_us": values}
                for name, values in each.items()
            ]
    return found, errors


def _in_turns(
    servers: Mapping[str, Running],
    there: int,
    options: Turns,
    tell: Tell,
    stream: bool,
    step: int,
) -> tuple[dict[str, list[float]], int]:
    """Measure one kind of answers: microseconds of each server and round, and errors."""
    each: dict[str, list[float]] = {name: [] for name in servers}
    begun: dict[str, tuple[float, int]] = {}  # CPU seconds before a slice, its requests
    errors = 0

    def close(name: str) -> None:
        # Up to the server's next slice, so that work that follows the answers is counted.
        before, requests = begun.pop(name)
        each[name].append(1e6 * (cpu_s(servers[name].pid) - before) / requests)

    for number in range(-1, options.rounds):  # the first is not counted
        # Each second round in the opposite order: a machine that gets slower favours nobody.
        for name, server in list(servers.items())[:: -1 if number % 2 else 1]:
            tell(f"round {number + 1} of {options.rounds}: {name}")
            if name in begun:
                close(name)
            part = Slice("saturation", step, stream, options.seconds)
            job = Job(server.endpoint, Endpoint(there, "echo"), (part,), options.seed + number + 1)
            before = cpu_s(server.pid)
            (sample,) = measure(job)
            errors += sample.errors
            if number >= 0:
                # each worker's first request is not in the sample
                begun[name] = before, sample.answered + sample.errors + step
    time.sleep(options.settle_s)
    for name in servers:
        close(name)
    return each, errors


@contextmanager
def alone(
    scene: Scene, checkout: Path | None = None, changes: Mapping[str, Any] | None = None
) -> Iterator[Running]:
    """Run ``waypost serve --local`` during the block: the gateway with its router, without Ray.

    Args:
        scene: Upstream and artifact.
        checkout: Folder of another build that has ``--local``; None is this one.
        changes: Other arguments of the graph; None as a value takes one out.

    Raises:
        BenchError: It does not start.
    """
    (port,) = free_ports(1)
    config = graph("inline", port, scene, "direct")
    (application,) = config["applications"]
    args = {**application["args"], **(changes or {})}
    application["args"] = {key: value for key, value in args.items() if value is not None}
    folder = Path(tempfile.mkdtemp(dir=scene.folder))
    path = folder / "gateway.yaml"
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    environment: dict[str, str | None] = {"OMP_NUM_THREADS": "1"}  # as Ray sets it for replicas
    if checkout is not None:
        roots = [str(checkout.resolve() / root) for root in ("platform", "routers")]
        environment["PYTHONPATH"] = os.pathsep.join(roots)
    command = [sys.executable, "-P", "-m", "waypost.cli", "serve", "--local", str(path)]
    with Server("gateway", command, port, folder / "log.txt", environment) as server:
        server.wait([AUTO], START_S)
        yield Running(Endpoint(port, AUTO), server.pid)


def cpu_s(pid: int) -> float:
    """Return the CPU seconds that a process has used, all its threads together."""
    return time.clock_gettime(~pid << 3 | 2)  # Linux's clock of another process: nanoseconds


def table(cells: Sequence[Mapping[str, Any]]) -> Table:
    """Return a row for each server, and a column for each kind and concurrency."""
    names = list(dict.fromkeys(cell["server"] for cell in cells))
    kinds = list(dict.fromkeys((cell["stream"], cell["concurrency"]) for cell in cells))
    by_cell = {(c["server"], c["stream"], c["concurrency"]): c["cpu_us"] for c in cells}
    heads = [kind_of(*kind) for kind in kinds]
    rows = [[name, *(with_range(by_cell[name, *kind]) for kind in kinds)] for name in names]
    return Table("CPU of the process, microseconds an answer [range]", ("server", *heads), rows)


def added(
    cells: Sequence[Mapping[str, Any]], pairs: Mapping[str, str], plain: str
) -> dict[str, dict[str, dict[str, float]]]:
    """Return what servers add to the CPU of an answer, as shares of the plain one in a round.

    Args:
        cells: See `in_turns`.
        pairs: Server -> the server without what it adds.
        plain: The server whose answers are the whole.

    Returns:
        Server -> kind -> ``share``, of all rounds together, and ``low`` and ``high``, the bounds of
        its 95 % interval by resampled rounds.
    """
    by_cell = {(c["server"], c["stream"], c["concurrency"]): c["rounds_us"] for c in cells}
    kinds = list(dict.fromkeys((c["stream"], c["concurrency"]) for c in cells))
    found: dict[str, dict[str, dict[str, float]]] = {}
    for name, before in pairs.items():
        for kind in kinds:
            this, that, whole = (np.array(by_cell[one, *kind]) for one in (name, before, plain))
            drawn = np.random.default_rng(0).integers(0, len(this), (_DRAWS, len(this)))
            low, high = interval((this - that)[drawn].sum(axis=1) / whole[drawn].sum(axis=1))
            share = float((this - that).sum() / whole.sum())
            one = {"share": share, "low": low, "high": high}
            found.setdefault(name, {})[kind_of(*kind)] = one
    return found


def kind_of(stream: bool, concurrency: int) -> str:
    """Return the head of a column."""
    return f"{'streams' if stream else 'whole'}, {concurrency} in flight"


def with_interval(one: Mapping[str, float]) -> str:
    """Return a share of `added` and its interval as text."""
    share, low, high = (percent(one[key], sign=True) for key in ("share", "low", "high"))
    return f"{share} [{low}, {high}]"


def failed(errors: int) -> dict[str, str]:
    """Return what `Result.failed` says of requests without a whole answer."""
    return {"requests": f"{errors} had no whole answer"} if errors else {}


def facts(options: Turns) -> str:
    """Return what explains the tables."""
    return (
        f"Answers of {options.tokens} tokens; seed {options.seed}; medians of {options.rounds} "
        f"rounds of {options.seconds:g} s, in turns, ranges in brackets; a share of CPU is "
        "that of all rounds together, with its 95 % interval by resampled rounds."
    )
