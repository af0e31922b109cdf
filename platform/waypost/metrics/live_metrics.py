"""Metrics of calls and seconds of answers, and of a router that decides anew."""

from __future__ import annotations

import numpy as np

from waypost.contracts.errors import WaypostError
from waypost.contracts.types import Floats
from waypost.metrics.comparison import mean, mostly_known
from waypost.metrics.latency_and_flips import (
    REWRITTEN,
    TIMED,
    Live,
    apart,
    decision_ms,
    flips,
    sample,
)
from waypost.metrics.measure import Subject


def calls(s: Subject) -> float:
    """Return the mean number of calls per query at lambda 0."""
    made = s.first.calls
    return 1.0 if made is None else float(made.mean())


def _seconds(s: Subject) -> Floats:
    seconds = s.first.seconds
    return np.empty(0) if seconds is None else mostly_known(seconds)


def answer_s(s: Subject) -> float:
    """Return the mean seconds until the answer at lambda 0."""
    return mean(_seconds(s))


def answer_s_p95(s: Subject) -> float:
    """Return the 95th percentile of the seconds until the answer at lambda 0."""
    known = _seconds(s)
    return float(np.percentile(known, 95)) if len(known) else np.nan


def _live(s: Subject) -> Live:
    if s.live is None:
        raise ValueError("expected a router: this subject is a reference")
    return s.live


def latency(s: Subject) -> tuple[float, float]:
    """Return p50 and p99 of a decision's time, ms."""
    live = _live(s)
    return decision_ms(live.route, sample(s.comparison.test.queries, TIMED, live.seed))


def flip_rates(s: Subject) -> dict[str, float]:
    """Return the share of queries whose choice changes, by perturbation."""
    live = _live(s)
    return flips(live.choose, sample(s.comparison.test.queries, REWRITTEN, live.seed), live.seed)


def seed_disagreement(s: Subject) -> float:
    """Return the share of questions routed differently by two fit seeds; NaN without a seed."""
    if s.live is None or s.live.refit is None:
        return np.nan
    texts = s.comparison.test.queries
    try:
        return apart(s.live.choose(texts), s.live.refit()(texts))
    except WaypostError:  # the router cannot decide without calls
        return np.nan
