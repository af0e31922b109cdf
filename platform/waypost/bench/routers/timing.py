"""Times of one thing that is fitted and then asked."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from waypost.contracts import policy
from waypost.contracts.records import QueryBatch
from waypost.contracts.router import ScoreRouter
from waypost.registry import make_router

LAM = 0.1
"""Cost weight of the batches: costs have their part in what is measured."""

_WARM_UP = 5


@dataclass(frozen=True)
class Timing:
    """What was measured.

    Attributes:
        fit_s: Of one fit, the first of its kind in this process: imports count.
        per_s: Queries a second in a batch, the best of several.
        p50_ms, p99_ms: Of one query alone, each another one.
        memory_mb: Bytes of the learned arrays, in millions; None where they are not known.
    """

    fit_s: float
    per_s: float
    p50_ms: float
    p99_ms: float
    memory_mb: float | None


def seconds(call: Callable[[], Any]) -> float:
    """Time one call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def singles(ask: Callable[[int], Any], count: int) -> tuple[float, float]:
    """Return p50 and p99 milliseconds of ``ask(0)`` to ``ask(count - 1)``."""
    for i in range(min(_WARM_UP, count)):
        ask(i)
    found = [seconds(lambda i=i: ask(i)) * 1e3 for i in range(count)]  # type: ignore[misc]
    return float(np.median(found)), float(np.quantile(found, 0.99))


@dataclass(frozen=True)
class Subject:
    """What is timed.

    Attributes:
        fit_s: Of its fit.
        ask_all: Answers the whole batch.
        ask_one: Answers one query of it.
        memory_mb: See `Timing`.
    """

    fit_s: float
    ask_all: Callable[[], Any]
    ask_one: Callable[[int], Any]
    memory_mb: float | None = None


def timings(
    subjects: Mapping[str, Subject], count: int, repeats: int, alone: int
) -> dict[str, Timing]:
    """Time batches round by round, so that a busy minute of the machine is everyone's.

    Args:
        subjects: What is timed, by name.
        count: Queries of the batch.
        repeats: Rounds.
        alone: Queries answered one by one.
    """
    least = dict.fromkeys(subjects, float("inf"))
    for _ in range(repeats):
        for name, subject in subjects.items():
            least[name] = min(least[name], seconds(subject.ask_all))
    found = {}
    for name, subject in subjects.items():
        p50, p99 = singles(subject.ask_one, min(alone, count))
        found[name] = Timing(subject.fit_s, count / least[name], p50, p99, subject.memory_mb)
    return found


def fitted(name: str, params: dict[str, Any], data: Any) -> tuple[ScoreRouter, float]:
    """Fit a router with these parameters; return it and the seconds that took."""
    start = time.perf_counter()
    router = make_router(name, params)
    assert isinstance(router, ScoreRouter)  # the caller chose by class
    router.fit(data)
    return router, time.perf_counter() - start


def subject_of(router: ScoreRouter, fit_s: float, batch: QueryBatch) -> Subject:
    """Return a fitted router's decisions: prediction, cost and ranking; `decide` of one query."""

    def decide_all() -> None:
        asked = QueryBatch(batch.queries, batch.embeddings)  # a batch keeps what was computed of it
        prediction = router.predict(asked)
        policy.rank(
            prediction.quality,
            router.predict_cost(asked, prediction),
            router.model_names,
            lam=LAM,
            cost_ref=router.cost_model_.cost_ref,
        )

    def decide_one(i: int) -> None:
        assert batch.embeddings is not None
        router.decide(batch.queries[i : i + 1], batch.embeddings[i : i + 1])

    return Subject(fit_s, decide_all, decide_one, memory_mb(router))


def memory_mb(router: ScoreRouter) -> float:
    """Return the size of the learned arrays in millions of bytes."""
    return sum(array.nbytes for array in router.get_state()[0].values()) / 1e6
