"""Measure the CPU time that the gateway's process spends on an answer, beside a bare forwarder.

The gateway runs in one process without Ray: its own HTTP server, the router and HTTP engines, in
front of a local upstream that answers at once. Its process's CPU time over the number of answers
means something on a busy machine, too, where latencies and throughput do not.

Example: waypost bench cpu --beside ../waypost-before --rounds 3
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from pydantic import DirectoryPath, Field

from waypost.bench import _cpu
from waypost.bench._http1 import Endpoint
from waypost.bench._processes import Server, free_ports
from waypost.bench._targets import START_S, Scene
from waypost.bench.harness import Result, Tell
from waypost.serve.config import AUTO

HERE, BESIDE, FORWARDER = "this build", "the other build", "forwarder"


class Options(_cpu.Turns):
    """Options of ``waypost bench cpu``."""

    beside: DirectoryPath | None = Field(
        None, description="Another checkout, measured in turns with this one."
    )
    forwarder: bool = Field(True, description="Measure the bare forwarder, too.")


def run(options: Options, tell: Tell) -> Result:
    """Measure every server in turns.

    Returns:
        Figures: ``cells``, one for each server, kind and concurrency, with ``cpu_us`` (CPU
        microseconds of the server's process an answer; see `spread`) and ``errors``.

    Raises:
        BenchError: A server does not start, or the client fails.
    """
    with ExitStack() as stack:
        scene = stack.enter_context(_cpu.scene_of(options))
        servers = {HERE: stack.enter_context(_cpu.alone(scene))}
        if options.beside is not None:
            servers[BESIDE] = stack.enter_context(_cpu.alone(scene, options.beside))
        if options.forwarder:
            servers[FORWARDER] = stack.enter_context(_forwarder(scene))
        found, errors = _cpu.in_turns(servers, scene.upstream, options, tell)
    figures = {"cells": found, "errors": errors}
    shown = [_cpu.table(found)]
    return Result(shown, _cpu.facts(options), (), figures, _cpu.failed(errors))


@contextmanager
def _forwarder(scene: Scene) -> Iterator[_cpu.Running]:
    (port,) = free_ports(1)
    command = [sys.executable, "-m", "waypost.bench._forwarder", str(port), str(scene.upstream)]
    with Server(FORWARDER, command, port, scene.folder / "forwarder.txt") as server:
        server.wait([AUTO], START_S)
        yield _cpu.Running(Endpoint(port, AUTO), server.pid)
