"""Metrics that need new decisions of a router: its latency, and flips of its choice."""

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
"""Maximum queries that are timed (`TIMED`) and rewritten (`REWRITTEN`); drawn by seed."""

_turns = count()
_SECONDS = 2.0
_LEAST = 20

Choose = Callable[[Sequence[str]], list[str]]
"""Returns the name of the LLM that a router chooses for each text, at lambda 0."""


@dataclass(frozen=True, eq=False)
class Live:
    """A fitted router for new decisions.

    Attributes:
        route: Routes one text, embedding included; used for timing.
        choose: Routes several texts together.
        seed: Seed of samples of the texts, and of their perturbations.
        fit_s: Seconds of the fit; None if unknown.
        refit: Fits the router again with the next seed; None without a seed or a fit.
    """

    route: Callable[[str], object]
    choose: Choose
    seed: int
    fit_s: float | None = None
    refit: Callable[[], Choose] | None = None


def sample(texts: Sequence[str], most: int, seed: int) -> list[str]:
    """Return at most ``most`` texts, drawn without replacement, in their order."""
    if len(texts) <= most:
        return list(texts)
    rows = np.random.default_rng(seed).choice(len(texts), most, replace=False)
    return [texts[i] for i in np.sort(rows)]


def decision_ms(route: Callable[[str], object], texts: Sequence[str]) -> tuple[float, float]:
    """Time single decisions from text to decision, embedding included.

    Returns p50 and p99 in milliseconds, of fewer texts if decisions are slow; (NaN, NaN) if the
    router cannot decide without calls.
    """
    taken: list[float] = []
    try:
        for text in texts[:3]:  # warm up: loading at the first call must not be timed
            route(f"{text} -")
        begun = time.perf_counter()
        for text in texts:
            asked = f"{text} {next(_turns)}"  # a new text, so that no cache has it
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
    """Return the share of queries whose choice changes under each of `PERTURBATIONS`.

    The shares are NaN if the router cannot decide without calls.
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
    """Swap two inner letters in one of ten words, at least in one word."""
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
"""Perturbations that rewrite a query without changing its meaning."""
