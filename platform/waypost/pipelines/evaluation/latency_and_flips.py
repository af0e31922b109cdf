"""What shows only by asking a router anew: how long it takes, and what makes it change its mind."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from itertools import count
from typing import Any

import numpy as np

from waypost.contracts.errors import WaypostError
from waypost.contracts.records import Query
from waypost.contracts.router import TrainableRouter
from waypost.pipelines.evaluation.inputs import Vectors

TIMED = 200
REWRITTEN = 100
"""Most queries that are timed, and written differently; drawn by seed."""

_turns = count()
_SECONDS = 2.0
_LEAST = 20


def sample(texts: Sequence[str], most: int, seed: int) -> list[str]:
    """Draw texts without replacement, in their order."""
    if len(texts) <= most:
        return list(texts)
    rows = np.random.default_rng(seed).choice(len(texts), most, replace=False)
    return [texts[i] for i in np.sort(rows)]


def decision_ms(router: TrainableRouter, texts: Sequence[str]) -> tuple[float, float]:
    """Time single decisions, text to decision, embedding included.

    Returns p50 and p99 in milliseconds of these texts, of fewer of them where a router takes
    its time; NaN twice where it does not decide alone.
    """
    taken: list[float] = []
    try:
        for text in texts[:3]:  # what loads at the first call is not a decision's time
            router.route_single(f"{text} -")
        begun = time.perf_counter()
        for text in texts:
            asked = f"{text} {next(_turns)}"  # no cache knows it, nor what another router was asked
            start = time.perf_counter()
            router.route_single(asked)
            end = time.perf_counter()
            taken.append(1000 * (end - start))
            if len(taken) >= _LEAST and end - begun > _SECONDS:
                break
    except WaypostError:
        return np.nan, np.nan
    return float(np.percentile(taken, 50)), float(np.percentile(taken, 99))


def flip_rate(
    router: TrainableRouter, texts: Sequence[str], vectors: Vectors, seed: int
) -> dict[str, float]:
    """Share of queries whose choice at lambda 0 changes with how they are written.

    Returns one share for each of `PERTURBATIONS`; NaN where the router does not decide alone.
    """
    try:
        plain = _choices(router, texts, vectors)
        found = {}
        for name, change in PERTURBATIONS.items():
            draw = np.random.default_rng(seed)
            changed = _choices(router, [change(text, draw) for text in texts], vectors)
            found[name] = float(np.mean([a != b for a, b in zip(plain, changed, strict=True)]))
    except WaypostError:
        return dict.fromkeys(PERTURBATIONS, np.nan)
    return found


def _choices(router: TrainableRouter, texts: Sequence[str], vectors: Vectors) -> list[str]:
    queries = [Query(text) for text in texts]
    return [one.model for one in router.decide(queries, vectors.of_texts(router, texts))]


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
