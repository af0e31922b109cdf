"""What the project aims at, and whether this run reached it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from waypost.bench.routers.large import Large
from waypost.bench.routers.reference import NEIGHBOURS
from waypost.bench.routers.timing import Timing

LINEAR = ("linearrouter", "mfrouter", "clusterrouter")
"""Routers whose decision is a product or two of the vector and a matrix."""

NEAREST = "knnrouter"
AUTO = "auto"

FIT_S = 120.0
LINEAR_PER_S = 200_000.0
NEAREST_PER_S = 5_000.0
SINGLE_MS = 1.0
LARGE_MS = 5.0


@dataclass(frozen=True)
class Aim:
    """One thing aimed at.

    Attributes:
        aim: In words, with its bound.
        value: The figure reached; None where it was not measured.
        reached: None where it was not measured.
    """

    aim: str
    value: float | None
    reached: bool | None


def aims(
    routers: Mapping[str, Timing],
    references: Mapping[str, Timing],
    large: Mapping[str, Large],
    *,
    whole: bool,
) -> list[Aim]:
    """Compare what was measured with the aims.

    Args:
        routers: Times by router.
        references: Times of scikit-learn's models.
        large: See `time_large`; empty where it was not measured.
        whole: Every router was asked for and fitted: only then is the sum of fits one.
    """
    fits = sum(one.fit_s for one in routers.values()) if whole else None
    without = fits - routers[AUTO].fit_s if fits is not None and AUTO in routers else None
    slowest = min((routers[name].per_s for name in LINEAR if name in routers), default=None)
    single = [one.p50_ms for one in routers.values()]
    nearest = routers[NEAREST].per_s if NEAREST in routers else None
    theirs = max((v.per_s for k, v in references.items() if k.startswith(NEIGHBOURS)), default=0.0)
    times = nearest / theirs if nearest is not None and theirs else None
    return [
        _below("fits of all routers in all, s", fits, FIT_S),
        _below("fits of all routers but auto in all, s", without, FIT_S),
        _at_least("linear routers, the slowest, decisions/s", slowest, LINEAR_PER_S),
        _at_least("neighbours, decisions/s", nearest, NEAREST_PER_S),
        _at_least("neighbours over scikit-learn's faster ones, decisions/s", times, 1.0),
        _below("one decision, the slowest router's p50, ms", max(single, default=None), SINGLE_MS),
        _below(
            "neighbours with an index, p50, ms",
            large["index"].p50_ms if "index" in large else None,
            LARGE_MS,
        ),
        _below(
            "neighbours with an index, p99, ms",
            large["index"].p99_ms if "index" in large else None,
            LARGE_MS,
        ),
    ]


def _below(what: str, value: float | None, bound: float) -> Aim:
    return Aim(f"{what}: under {bound:g}", value, None if value is None else value < bound)


def _at_least(what: str, value: float | None, bound: float) -> Aim:
    reached = None if value is None else value >= bound
    return Aim(f"{what}: at least {bound:,g}", value, reached)
