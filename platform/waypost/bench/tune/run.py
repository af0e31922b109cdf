"""Both cases, each in a plain loop and on Ray, one process after another."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

from waypost.bench.data.watched import Watched, watched
from waypost.bench.tune.case import SPACES, Case
from waypost.bench.tune.figures import aims, check_same, compared, figures
from waypost.contracts.errors import RegistryError

FORMAT = "waypost-bench-tune/1"
LOOP = "plain loop"
_WAY = "waypost.bench.tune.way"
_EVERY_S = 0.2

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Options:
    """What is measured.

    Attributes:
        cheap: Trials of which none takes long; None leaves them out.
        costly: Trials whose fits take over a second each; None leaves them out.
        workers: Of Ray.
    """

    cheap: Case | None = field(default_factory=lambda: Case("knnrouter", 1000, 200, 5))
    costly: Case | None = field(default_factory=lambda: Case("mlprouter", 3000, 16, 2))
    workers: int = 2


QUICK = Options(Case("knnrouter", 150, 12, 2, 3, 16), Case("mlprouter", 150, 4, 2, 3, 16))


def run(options: Options, tell: Tell) -> dict[str, Any]:
    """Measure.

    Args:
        options: What.
        tell: Told what is measured next.

    Returns:
        JSON data: ``format``, ``machine``, ``cases`` (``cheap`` and ``costly``: ``case``, ``ways``
        by name and ``compared`` with the loop), ``aims``.

    Raises:
        BenchError: a process failed, or the ways' scores differ.
        RegistryError: a router that the bench has no settings for.
    """
    cases = {"cheap": options.cheap, "costly": options.costly}
    for case in cases.values():
        if case is not None and case.router not in SPACES:
            known = ", ".join(SPACES)
            raise RegistryError(f"{case.router}: no settings to measure; expected one of {known}")
    load = os.getloadavg()[0]
    found = {
        name: _case(name, case, options.workers, tell)
        for name, case in cases.items()
        if case is not None
    }
    return {
        "format": FORMAT,
        "machine": {
            "cores": len(os.sched_getaffinity(0)),
            "load": [load, os.getloadavg()[0]],
            "python": platform.python_version(),
        },
        "cases": found,
        "aims": [asdict(aim) for aim in aims(found)],
    }


def _case(name: str, case: Case, workers: int, tell: Tell) -> dict[str, Any]:
    counts = {LOOP: 0, **{_on_ray(count): count for count in sorted({1, workers})}}
    seen: dict[str, Watched] = {}
    for way, count in counts.items():
        tell(f"{name}: {case.trials} trials of {case.router}, {way}")
        words = ["--case", json.dumps(asdict(case)), "--workers", str(count)]
        seen[way] = watched(_WAY, words, _EVERY_S)
    check_same(seen)
    ways = {way: figures(one, max(counts[way], 1)) for way, one in seen.items()}
    return {
        "case": asdict(case),
        "ways": ways,
        "compared": {way: compared(ways[LOOP], one) for way, one in ways.items() if way != LOOP},
    }


def _on_ray(workers: int) -> str:
    return f"Ray Tune, {workers} worker{'s' if workers > 1 else ''}"
