"""Figures of the ways, and whether they reach what the project aims at."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from waypost.bench.data.watched import Watched
from waypost.bench.gateway.processes import BenchError

MOST_RATIO = 1.15
"""A sweep of cheap trials on Ray, start-up and all, over a plain loop."""

OF_LINEAR = 0.8
"""Share of as many times the speed as there are workers that counts as near-linear."""

Figures = dict[str, float]


def figures(seen: Watched, workers: int) -> Figures:
    """Return what one way took.

    Args:
        seen: Of the way's process; see `way.main`.
        workers: Processes that fit; 1 for the loop.

    Returns:
        ``trials``; ``seconds`` from data at hand to Ray's end, ``start_s`` of these until the
        workers began to fit (their mean), ``fitting_s`` from then to the last row; ``per_s`` and
        ``fitting_per_s``, trials over the first and the last of these; ``idle_ms``, what a
        worker does beside fitting while there are trials, for each; ``cpu_s`` over
        ``seconds`` and ``fitting_cpu_s`` over ``fitting_s``, of all processes; ``trial_ms``, the
        mean time of a trial's fits.
    """
    said = seen.said
    trials, fits = said["trials"], said["fit_seconds"]
    seconds, fitting = said["end"] - said["ready"], said["last"] - said["first"]
    return {
        "trials": trials,
        "workers": workers,
        "seconds": seconds,
        "start_s": said["first"] - said["ready"],
        "fitting_s": fitting,
        "per_s": trials / seconds,
        "fitting_per_s": trials / fitting,
        "idle_ms": 1000 * (workers * fitting - fits) / trials,
        "trial_ms": 1000 * fits / trials,
        "cpu_s": seen.cpu_between(said["ready"], said["end"]),
        "fitting_cpu_s": seen.cpu_between(said["first"], said["last"]),
    }


def check_same(ways: Mapping[str, Watched]) -> None:
    """See that every way found the same scores.

    Raises:
        BenchError: naming one that did not: then the fits were not the same.
    """
    first, *others = ways
    known = ways[first].said["scores"]
    for name in others:
        scores = ways[name].said["scores"]
        if scores.keys() != known.keys() or any(
            abs(scores[key] - score) > 1e-6 for key, score in known.items()
        ):
            raise BenchError(f"{name}: its scores are not those of the {first}")


def compared(loop: Figures, ray: Figures) -> Figures:
    """Return a way on Ray over the loop.

    Returns:
        ``ratio`` of seconds, start-up included, and ``fitting_ratio`` without; ``speed_up``, one
        over that, and ``of_linear``, its share of the number of workers;
        ``overhead_ms`` of CPU time a trial without start-up, ``start_cpu_s`` of the start-up.
    """
    speed_up = loop["fitting_s"] / ray["fitting_s"]
    extra = ray["fitting_cpu_s"] - loop["fitting_cpu_s"]
    return {
        "ratio": ray["seconds"] / loop["seconds"],
        "fitting_ratio": 1 / speed_up,
        "speed_up": speed_up,
        "of_linear": speed_up / ray["workers"],
        "overhead_ms": 1000 * extra / ray["trials"],
        "start_cpu_s": ray["cpu_s"] - ray["fitting_cpu_s"],
    }


@dataclass(frozen=True)
class Aim:
    """One thing aimed at.

    Attributes:
        aim: In words, with its bound.
        value: What was reached; None where it was not measured.
        reached: None where it was not measured.
    """

    aim: str
    value: float | None
    reached: bool | None


def aims(cases: Mapping[str, Mapping[str, Any]]) -> list[Aim]:
    """Compare what was measured with the aims.

    Args:
        cases: ``cheap`` and ``costly``, each with ``compared`` by way, the one of most workers
            last; one that was not measured is missing.
    """
    cheap, costly = (_last(cases.get(name)) for name in ("cheap", "costly"))
    ratio = None if cheap is None else cheap["ratio"]
    share = None if costly is None else costly["of_linear"]
    return [
        Aim(
            f"cheap trials: Ray's time, start-up included, at most {MOST_RATIO:g} of the loop's",
            ratio,
            None if ratio is None else ratio <= MOST_RATIO,
        ),
        Aim(
            f"costly trials: speed-up at least {OF_LINEAR:g} of the number of workers",
            share,
            None if share is None else share >= OF_LINEAR,
        ),
    ]


def _last(case: Mapping[str, Any] | None) -> Figures | None:
    return None if case is None else list(case["compared"].values())[-1]
