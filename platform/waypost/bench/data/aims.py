"""What the project aims at in asking, and whether a run reached it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

OF_IDEAL = 0.9
FLAT = 1.25
"""Memory at the most cells over that at the fewest that still counts as flat."""


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


def ratios(ways: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """Return the first way's calls a second over those of each other way."""
    (_, first), *others = ways.items()
    return {name: first["per_s"] / other["per_s"] for name, other in others}


def growth(memory: Sequence[Mapping[str, Any]], key: str) -> float | None:
    """Return a figure at the most cells over that at the fewest; None for fewer than two rows."""
    if len(memory) < 2:
        return None
    rows = sorted(memory, key=lambda row: row["cells"])
    return float(rows[-1][key] / rows[0][key])


def aims(ways: Mapping[str, Mapping[str, Any]], memory: Sequence[Mapping[str, Any]]) -> list[Aim]:
    """Compare what was measured with the aims.

    Args:
        ways: Figures of the ways of asking, the pipeline's first.
        memory: Rows by number of cells; may be empty.
    """
    name, first = next(iter(ways.items()))
    found = [
        _at_least(f"{name}, share of the ideal rate", first["of_ideal"], OF_IDEAL),
        _at_least(f"{name}, the same of the middle 80 %", first["steady_of_ideal"], OF_IDEAL),
    ]
    for what, key in (("askers", "askers_mb"), ("driver", "driver_mb")):
        value = growth(memory, key)
        reached = None if value is None else value <= FLAT
        found.append(Aim(f"{what}: memory grows at most {FLAT:g} times", value, reached))
    return found


def _at_least(what: str, value: float, bound: float) -> Aim:
    return Aim(f"{what}: at least {bound:g}", value, value >= bound)
