"""Measure the CPU time that the decision log and a shadow router add to an answer.

Three gateways, each in a process without Ray, in turns in front of one upstream: without a log,
with a decision log, and with a log and a shadow router, which is the acting router's artifact,
loaded a second time. Differences are within a round, as shares of the plain answer.

Example: waypost bench shadow --rounds 5
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from waypost.bench import cpu
from waypost.bench._processes import upstream
from waypost.bench._targets import ARTIFACT, Scene
from waypost.bench.harness import Aim, Result, Table, Tell, at_most, spread
from waypost.config import resolve_path
from waypost.report.numbers import percent

PLAIN, LOG, SHADOW = "no log", "decision log", "log and shadow"
MOST = 0.05
"""What a log, and a shadow, may add each."""


class Options(cpu.Turns):
    """Options of ``waypost bench shadow``."""

    concurrency: tuple[int, ...] = (64,)
    settle_s: float = 3.0


QUICK = {"rounds": 1, "seconds": 0.5}


def run(options: Options, tell: Tell) -> Result:
    """Measure the three gateways.

    Returns:
        Figures: ``cells`` as of `cpu.run`, and ``added``: LOG and SHADOW -> kind -> `spread` of the
        shares that they add, the shadow to the log.

    Raises:
        BenchError: A gateway does not start, or the client fails.
    """
    artifact = str(options.artifact or resolve_path(ARTIFACT))
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="waypost-bench-")))
        port = stack.enter_context(upstream("--tokens", str(options.tokens)))
        scene = Scene(port, Path(artifact), folder)
        routers = {"artifact": None, "routers": {"acting": artifact, "beside": artifact}}
        changes: dict[str, dict[str, Any]] = {
            PLAIN: routers,
            LOG: routers | {"decision_log": str(folder / "log")},
            SHADOW: routers | {"decision_log": str(folder / "both"), "shadow": "beside"},
        }
        servers = {
            name: stack.enter_context(cpu.alone(scene, changes=one))
            for name, one in changes.items()
        }
        cells, errors = cpu.in_turns(servers, port, options, tell)
    more = added(cells)
    figures = {"cells": cells, "errors": errors, "added": more}
    facts = (
        f"Answers of {options.tokens} tokens; seed {options.seed}; {options.rounds} rounds of "
        f"{options.seconds:g} s, in turns; medians of the rounds, ranges in brackets."
    )
    return Result([cpu.table(cells), table(more)], facts, aims(more), figures)


def added(cells: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, dict[str, float]]]:
    """Return what log and shadow add, as shares of the plain answer of the same round."""
    by_cell = {(c["server"], c["stream"], c["concurrency"]): c["rounds_us"] for c in cells}
    kinds = list(dict.fromkeys((c["stream"], c["concurrency"]) for c in cells))
    found: dict[str, dict[str, dict[str, float]]] = {}
    for name, before in ((LOG, PLAIN), (SHADOW, LOG)):
        for kind in kinds:
            rounds = zip(*(by_cell[one, *kind] for one in (name, before, PLAIN)), strict=True)
            shares = [(this - that) / plain for this, that, plain in rounds]
            label = f"{'streams' if kind[0] else 'whole'}, {kind[1]} in flight"
            found.setdefault(name, {})[label] = spread(shares)
    return found


def table(more: Mapping[str, Mapping[str, Mapping[str, float]]]) -> Table:
    """Return a row for the log and for the shadow, and a column for each kind."""
    rows = [
        [
            {LOG: "the log adds", SHADOW: "the shadow adds"}[name],
            *(
                f"{percent(one['median'], sign=True)} [{percent(one['least'], sign=True)}, "
                f"{percent(one['most'], sign=True)}]"
                for one in kinds.values()
            ),
        ]
        for name, kinds in more.items()
    ]
    return Table("CPU added to an answer", ("", *more[LOG]), rows)


def aims(more: Mapping[str, Mapping[str, Mapping[str, float]]]) -> list[Aim]:
    """Return what log and shadow may add."""
    names = {LOG: "log", SHADOW: "shadow"}
    return [
        at_most(f"CPU added by the {names[name]}, {kind}", one["median"], MOST)
        for name, kinds in more.items()
        for kind, one in kinds.items()
    ]
