"""Times of one thing that is fitted and then asked."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from waypost.contracts import policy
from waypost.contracts.prediction import QueryBatch
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


def best_rate(ask: Callable[[], Any], count: int, repeats: int) -> float:
    """Return how many of ``count`` queries a second the fastest of some calls decided."""
    return count / min(seconds(ask) for _ in range(repeats))


def fitted(name: str, params: dict[str, Any], data: Any) -> tuple[ScoreRouter, float]:
    """Fit a router with these parameters; return it and the seconds that took."""
    start = time.perf_counter()
    router = make_router(name, params)
    assert isinstance(router, ScoreRouter)  # the caller chose by class
    router.fit(data)
    return router, time.perf_counter() - start


def time_router(
    router: ScoreRouter, fit_s: float, batch: QueryBatch, repeats: int, alone: int
) -> Timing:
    """Time decisions: prediction, cost and ranking of a batch; `decide` of one query.

    Args:
        router: Fitted.
        fit_s: Of its fit.
        batch: Queries with their vectors.
        repeats: How often the batch is decided.
        alone: How many of the queries are decided alone.
    """

    def decide_all() -> None:
        prediction = router.predict(batch)
        policy.rank(
            prediction.quality,
            router.predict_cost(batch, prediction),
            router.model_names,
            lam=LAM,
            cost_ref=router.cost_model_.cost_ref,
        )

    def decide_one(i: int) -> None:
        assert batch.embeddings is not None
        router.decide(batch.queries[i : i + 1], batch.embeddings[i : i + 1])

    p50, p99 = singles(decide_one, min(alone, len(batch)))
    per_s = best_rate(decide_all, len(batch), repeats)
    return Timing(fit_s, per_s, p50, p99, memory_mb(router))


def memory_mb(router: ScoreRouter) -> float:
    """Return the size of the learned arrays in millions of bytes."""
    return sum(array.nbytes for array in router.get_state()[0].values()) / 1e6
