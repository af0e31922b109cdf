"""What shows only by asking a router anew: its latency, and which changes flip its choice."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

import numpy as np

from waypost.contracts.errors import WaypostError

TIMED = 200
REWRITTEN = 100
"""Most queries that are timed, and written differently; drawn by seed."""

_turns = count()
_SECONDS = 2.0
_LEAST = 20

Choose = Callable[[Sequence[str]], list[str]]
"""Name of the LLM that a router chooses for each text, at lambda 0."""


@dataclass(frozen=True, eq=False)
class Live:
    """A fitted router that can be asked anew.

    Attributes:
        route: Decide one text, embedding included; what is timed.
        choose: Decide texts together.
        seed: Of samples of the texts, and of what they are rewritten to.
        fit_s: Seconds of the fit; None where not known.
        refit: Fit the router again with the next seed; None where no seed or no fit is known.
    """

    route: Callable[[str], object]
    choose: Choose
    seed: int
    fit_s: float | None = None
    refit: Callable[[], Choose] | None = None


def sample(texts: Sequence[str], most: int, seed: int) -> list[str]:
    """Draw texts without replacement, in their order."""
    if len(texts) <= most:
        return list(texts)
    rows = np.random.default_rng(seed).choice(len(texts), most, replace=False)
    return [texts[i] for i in np.sort(rows)]


def decision_ms(route: Callable[[str], object], texts: Sequence[str]) -> tuple[float, float]:
    """Time single decisions, text to decision, embedding included.

    Returns p50 and p99 in milliseconds of these texts, of fewer of them where a decision takes
    long; NaN twice where the router does not decide alone.
    """
    taken: list[float] = []
    try:
        for text in texts[:3]:  # what loads at the first call is not a decision's time
            route(f"{text} -")
        begun = time.perf_counter()
        for text in texts:
            asked = f"{text} {next(_turns)}"  # no cache knows it, nor what another router was asked
            start = time.perf_counter()
            route(asked)
            end = time.perf_counter()
            taken.append(1000 * (end - start))
            if len(taken) >= _LEAST and end - begun > _SECONDS:
                break
    except WaypostError:
        return np.nan, np.nan
    return float(np.percentile(taken, 50)), float(np.percentile(taken, 99))


def apart(one: Sequence[str], other: Sequence[str]) -> float:
    """Return the share of choices that differ."""
    return float(np.mean([a != b for a, b in zip(one, other, strict=True)]))


def flips(choose: Choose, texts: Sequence[str], seed: int) -> dict[str, float]:
    """Return the share of queries whose choice changes with how they are written.

    Returns one share for each of `PERTURBATIONS`; NaN where the router does not decide alone.
    """
    try:
        plain = choose(texts)
        found = {}
        for name, change in PERTURBATIONS.items():
            draw = np.random.default_rng(seed)
            found[name] = apart(plain, choose([change(text, draw) for text in texts]))
    except WaypostError:
        return dict.fromkeys(PERTURBATIONS, np.nan)
    return found


def _case(text: str, draw: Any) -> str:
    return text.lower() if text != text.lower() else text.upper()


def _blanks(text: str, draw: Any) -> str:
    return f"  {text.replace(' ', '  ', 3)} \n"


def _punctuation(text: str, draw: Any) -> str:
    stripped = text.rstrip(".?!:; \n")
    return stripped if stripped != text.rstrip() else f"{stripped}."


def _typos(text: str, draw: np.random.Generator) -> str:
    """Swap two inner letters of one word in ten, at least of one."""
    words = list(re.finditer(r"[^\W\d_]{4,}", text))
    if not words:
        return text
    letters = list(text)
    for i in draw.choice(len(words), max(1, len(words) // 10), replace=False):
        at = int(draw.integers(words[i].start() + 1, words[i].end() - 2))
        letters[at], letters[at + 1] = letters[at + 1], letters[at]
    return "".join(letters)


PERTURBATIONS: dict[str, Callable[[str, Any], str]] = {
    "case": _case,
    "blanks": _blanks,
    "punctuation": _punctuation,
    "typos": _typos,
}
"""Ways to write a query differently without asking something else."""
