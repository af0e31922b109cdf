"""Measure the CPU time that the gateway's process spends on an answer, beside a bare forwarder.

The gateway runs in one process without Ray: its own HTTP server, the router and HTTP engines, in
front of a local upstream that answers at once. Its process's CPU time over the number of answers
means something on a busy machine, too, where latencies and throughput do not.

Example: waypost bench cpu --beside ../waypost-before --rounds 3
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from pydantic import DirectoryPath, Field

from waypost.bench import _alone, _groups, harness
from waypost.bench._client import Job, Slice, measure
from waypost.bench._http1 import Endpoint
from waypost.bench._processes import Server, free_ports, upstream
from waypost.bench._targets import ARTIFACT, START_S, Scene, graph
from waypost.bench.harness import BenchError, Result, Table, Tell, spread, with_range
from waypost.config import resolve_path
from waypost.serve.config import AUTO

HERE, BESIDE, FORWARDER = "this build", "the other build", "forwarder"


class Turns(harness.Options):
    """Options of benches that measure servers in turns.

    Attributes:
        concurrency: Requests in flight.
        settle_s: Seconds after a measurement for work that follows the answers.
    """

    artifact: DirectoryPath | None = Field(
        None, description=f"Artifact of the router.  [default: {ARTIFACT}]"
    )
    rounds: int = Field(3, ge=1, description="Measurements of every cell.")
    seconds: float = Field(2.0, gt=0, description="Seconds of a measurement.")
    tokens: int = Field(64, ge=1, description="Tokens of every answer.")
    seed: int = Field(0, ge=0, description="Seed of the prompts.")
    concurrency: tuple[int, ...] = (1, 64)
    settle_s: float = 0.0


class Options(Turns):
    """Options of ``waypost bench cpu``."""

    beside: DirectoryPath | None = Field(
        None, description="Another checkout, measured in turns with this one."
    )
    forwarder: bool = Field(True, description="Measure the bare forwarder, too.")


@dataclass(frozen=True)
class Running:
    """A server under measurement."""

    endpoint: Endpoint
    pid: int


def run(options: Options, tell: Tell) -> Result:
    """Measure every server in turns.

    Returns:
        Figures: ``cells``, one for each server, kind and concurrency, with ``cpu_us`` (CPU
        microseconds of the server's process an answer; see `spread`) and ``errors``.

    Raises:
        BenchError: A server does not start, or the client fails.
    """
    artifact = options.artifact or resolve_path(ARTIFACT)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="waypost-bench-")))
        port = stack.enter_context(upstream("--tokens", str(options.tokens)))
        scene = Scene(port, artifact, folder)
        servers = {HERE: stack.enter_context(alone(scene))}
        if options.beside is not None:
            servers[BESIDE] = stack.enter_context(alone(scene, options.beside))
        if options.forwarder:
            servers[FORWARDER] = stack.enter_context(_forwarder(scene))
        found, errors = in_turns(servers, port, options, tell)
    return Result([table(found)], _facts(options), (), {"cells": found, "errors": errors})


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
    cells: dict[tuple[str, bool, int], list[float]] = {}
    errors = 0
    kinds = [(stream, step) for stream in (False, True) for step in options.concurrency]
    for number in range(-1, options.rounds):  # the first is not counted
        for stream, step in kinds:
            for name, server in servers.items():
                tell(f"round {number + 1} of {options.rounds}: {name}")
                part = Slice("saturation", step, stream, options.seconds)
                job = Job(
                    server.endpoint, Endpoint(there, "echo"), (part,), options.seed + number + 1
                )
                begin = cpu_s(server.pid)
                (sample,) = measure(job)
                time.sleep(options.settle_s)
                spent = cpu_s(server.pid) - begin
                errors += sample.errors
                if number >= 0:
                    # each worker's first request is not in the sample
                    each = 1e6 * spent / (sample.answered + sample.errors + step)
                    cells.setdefault((name, stream, step), []).append(each)
    found = [
        {"server": name, "stream": stream, "concurrency": step, "cpu_us": spread(values)}
        | {"rounds_us": values}
        for (name, stream, step), values in cells.items()
    ]
    return found, errors


@contextmanager
def alone(
    scene: Scene, checkout: Path | None = None, changes: Mapping[str, Any] | None = None
) -> Iterator[Running]:
    """Run the gateway without Ray during the block; see `_alone`.

    Args:
        scene: Upstream and artifact.
        checkout: Folder of another build; None is this one.
        changes: Other arguments of the graph; None as a value takes one out.

    Raises:
        BenchError: It does not start.
    """
    plain = graph("inline", 0, scene, "direct")["applications"][0]["args"]
    args = {k: v for k, v in {**plain, **(changes or {})}.items() if v is not None}
    # as Ray sets it for replicas
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    if checkout is not None:
        roots = [str(checkout.resolve() / root) for root in ("platform", "routers")]
        environment["PYTHONPATH"] = os.pathsep.join(roots)
    process = _groups.begin(
        [sys.executable, "-P", str(Path(_alone.__file__))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )
    try:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps(args))
        process.stdin.close()
        line = process.stdout.readline()
        if not line.strip().isdecimal():
            raise BenchError("the gateway did not start; its messages are above")
        yield Running(Endpoint(int(line), AUTO), process.pid)
    finally:
        _groups.finish(process)
        if process.stdout is not None:
            process.stdout.close()


@contextmanager
def _forwarder(scene: Scene) -> Iterator[Running]:
    (port,) = free_ports(1)
    command = [sys.executable, "-m", "waypost.bench._forwarder", str(port), str(scene.upstream)]
    with Server(FORWARDER, command, port, scene.folder / "forwarder.txt") as server:
        server.wait([AUTO], START_S)
        yield Running(Endpoint(port, AUTO), server.pid)


def cpu_s(pid: int) -> float:
    """Return the CPU seconds that a process has used, all its threads together."""
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


def table(cells: Sequence[Mapping[str, Any]]) -> Table:
    """Return a row for each server, and a column for each kind and concurrency."""
    names = list(dict.fromkeys(cell["server"] for cell in cells))
    kinds = list(dict.fromkeys((cell["stream"], cell["concurrency"]) for cell in cells))
    by_cell = {(c["server"], c["stream"], c["concurrency"]): c["cpu_us"] for c in cells}
    heads = [f"{'streams' if stream else 'whole'}, {step} in flight" for stream, step in kinds]
    rows = [[name, *(with_range(by_cell[name, *kind]) for kind in kinds)] for name in names]
    return Table("CPU of the process, microseconds an answer [range]", ("server", *heads), rows)


def _facts(options: Turns) -> str:
    return (
        f"Answers of {options.tokens} tokens; seed {options.seed}; medians of {options.rounds} "
        f"rounds of {options.seconds:g} s, in turns, ranges in brackets."
    )
