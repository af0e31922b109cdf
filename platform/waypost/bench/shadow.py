"""Measure the CPU time that the decision log and a shadow router add to an answer.

Three gateways, each in a process without Ray, in turns in front of one upstream: without a log,
with a decision log, and with a log and a shadow router, which is the acting router's artifact,
loaded a second time. Differences are within a round, as shares of the plain answer.

Example: waypost bench shadow --rounds 60
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

from waypost.bench import _cpu
from waypost.bench.harness import Aim, Result, Table, Tell, at_most

PLAIN, LOG, SHADOW = "no log", "decision log", "log and shadow"
PAIRS = {LOG: PLAIN, SHADOW: LOG}
MOST = 0.05
"""What a log, and a shadow, may add each."""


class Options(_cpu.Turns):
    """Options of ``waypost bench shadow``."""

    concurrency: tuple[int, ...] = (64,)


QUICK = {"rounds": 1, "seconds": 0.5}


def run(options: Options, tell: Tell) -> Result:
    """Measure the three gateways.

    Returns:
        Figures: ``cells`` as of `cpu.run`, and ``added``: LOG and SHADOW -> kind -> the
        share that they add, the shadow to the log; see `_cpu.added`.

    Raises:
        BenchError: A gateway does not start, or the client fails.
    """
    with ExitStack() as stack:
        scene = stack.enter_context(_cpu.scene_of(options))
        artifact, folder = str(scene.artifact), scene.folder
        routers = {"artifact": None, "routers": {"acting": artifact, "beside": artifact}}
        changes: dict[str, dict[str, Any]] = {
            PLAIN: routers,
            LOG: routers | {"decision_log": str(folder / "log")},
            SHADOW: routers | {"decision_log": str(folder / "both"), "shadow": "beside"},
        }
        servers = {
            name: stack.enter_context(_cpu.alone(scene, changes=one))
            for name, one in changes.items()
        }
        cells, errors = _cpu.in_turns(servers, scene.upstream, options, tell)
    more = _cpu.added(cells, PAIRS, PLAIN)
    figures = {"cells": cells, "errors": errors, "added": more}
    shown = [_cpu.table(cells), table(more)]
    return Result(shown, _cpu.facts(options), aims(more), figures, _cpu.failed(errors))


def table(more: Mapping[str, Mapping[str, Mapping[str, float]]]) -> Table:
    """Return a row for the log and for the shadow, and a column for each kind."""
    rows = [
        [
            {LOG: "the log adds", SHADOW: "the shadow adds"}[name],
            *map(_cpu.with_interval, kinds.values()),
        ]
        for name, kinds in more.items()
    ]
    return Table("CPU added to an answer", ("", *more[LOG]), rows)


def aims(more: Mapping[str, Mapping[str, Mapping[str, float]]]) -> list[Aim]:
    """Return what log and shadow may add."""
    names = {LOG: "log", SHADOW: "shadow"}
    return [
        at_most(f"CPU added by the {names[name]}, {kind}", one["share"], MOST)
        for name, kinds in more.items()
        for kind, one in kinds.items()
    ]
