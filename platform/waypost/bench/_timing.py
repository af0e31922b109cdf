"""Time fitted models: a batch, single queries, and the last turn of a session."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from waypost.bench import harness
from waypost.contracts import policy
from waypost.contracts.records import QueryBatch
from waypost.contracts.router import ScoreRouter
from waypost.contracts.session import Session, Turn
from waypost.contracts.staying import with_earlier

LAM = 0.1
"""Cost weight of the batches; above 0, so that decisions use costs."""


@dataclass(frozen=True)
class Timing:
    """The timing of one subject.

    Attributes:
        fit_s: Seconds of the first fit in this process, imports included.
        per_s: Queries per second in a batch, the best of several rounds.
        p50_ms, p99_ms: Milliseconds of a single query, over different queries.
        memory_mb: Size of the learned arrays in MB (1e6 bytes); None if unknown.
        session_p50_ms: As ``p50_ms``, for the last turn of a session; None where none is kept.
    """

    fit_s: float
    per_s: float
    p50_ms: float
    p99_ms: float
    memory_mb: float | None
    session_p50_ms: float | None = None


@dataclass(frozen=True)
class Subject:
    """A fitted model to time, on the whole batch and on single queries of it; see `Timing`."""

    fit_s: float
    ask_all: Callable[[], Any]
    ask_one: Callable[[int], Any]
    memory_mb: float | None = None
    ask_in_session: Callable[[int], Any] | None = None


def subject_of(router: ScoreRouter, fit_s: float, batch: QueryBatch, turns: int) -> Subject:
    """Return a fitted router's decisions: predict, cost and rank a batch; `decide` one query.

    Args:
        router: The router.
        fit_s: Seconds of its fit.
        batch: Queries, with their vectors.
        turns: Turns of a session, the last one included. All are decided with their vectors given,
            as the cache of an encoder has those of earlier turns.
    """

    def decide_all() -> None:
        asked = QueryBatch(batch.queries, batch.embeddings)  # a new batch has no cached results
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

    def decide_in_session(i: int) -> None:
        assert batch.embeddings is not None
        rows = [(i + step) % len(batch) for step in range(turns)]
        earlier = tuple(Turn(batch.queries[row].text, 100, 50) for row in rows[:-1])
        own = replace(batch.queries[rows[-1]], input_tokens=100, session=Session(earlier, 50))
        router.decide(with_earlier((own,))[0], batch.embeddings[rows])

    return Subject(fit_s, decide_all, decide_one, memory_mb(router), decide_in_session)


def memory_mb(router: ScoreRouter) -> float:
    """Return the size of the learned arrays in MB (1e6 bytes)."""
    return sum(array.nbytes for array in router.get_state()[0].values()) / 1e6


def timings(
    subjects: Mapping[str, Subject], count: int, repeats: int, alone: int
) -> dict[str, Timing]:
    """Time batches round by round, so that other load on the machine affects all subjects alike.

    Args:
        subjects: Models to time, by name.
        count: Queries of the batch.
        repeats: Number of rounds.
        alone: Number of queries to time one by one.
    """
    least = dict.fromkeys(subjects, float("inf"))
    for _ in range(repeats):
        for name, subject in subjects.items():
            least[name] = min(least[name], harness.seconds(subject.ask_all))
    found = {}
    for name, subject in subjects.items():
        single = harness.percentiles(harness.milliseconds(subject.ask_one, min(alone, count)))
        per_s = count / least[name]
        found[name] = Timing(subject.fit_s, per_s, single["p50"], single["p99"], subject.memory_mb)
        if (ask := subject.ask_in_session) is not None:
            session = harness.percentiles(harness.milliseconds(ask, min(alone, count)))
            found[name] = replace(found[name], session_p50_ms=session["p50"])
    return found
