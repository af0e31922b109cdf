"""How a row of the table of metrics is computed: what is measured, and what comes of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from waypost.contracts.types import Floats
from waypost.metrics.comparison import (
    CURVE_DRAWS,
    Comparison,
    Outcomes,
    Sweep,
    mean,
    mean_usd,
)
from waypost.metrics.intervals import interval
from waypost.metrics.latency_and_flips import Live

Numbers = dict[str, Any]
"""Numbers of one row of report.json by key, NaN where they cannot be computed."""

Need = Literal["scores", "costs", "list prices", "predictions", "router", "other routers"]
Unit = Literal[
    "score", "0 to 1", "-1 to 1", "score squared", "nats", "share", "%", "p", "yes or no",
    "USD per 1,000 queries", "USD per million tokens", "ms", "s", "queries", "LLMs", "steps",
]  # fmt: skip

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Subject:
    """What is measured: choices at each lambda, and the router that makes them.

    Attributes:
        comparison: What the choices are held against.
        sweep: The choices, and what was predicted.
        live: The router; None for references.
    """

    comparison: Comparison
    sweep: Sweep
    live: Live | None = None
    _known: dict[Callable[[Subject], Any], Any] = field(
        default_factory=dict, init=False, repr=False
    )

    def once(self, of: Callable[[Subject], T]) -> T:
        """Return what a function gives for this subject, computed at the first call only."""
        if of not in self._known:
            self._known[of] = of(self)
        found: T = self._known[of]
        return found

    @property
    def first(self) -> Outcomes:
        """Outcomes at lambda 0."""
        return self.sweep.outcomes[0]

    @property
    def scores(self) -> Floats:
        """Measured scores, shape (n, m)."""
        return self.comparison.test.quality

    @property
    def predicted(self) -> Floats:
        """Predicted scores, shape (n, m); all NaN where the router predicts none."""
        found = self.sweep.predicted
        return np.full(self.scores.shape, np.nan) if found is None else found

    @property
    def difference(self) -> Floats:
        """Score at lambda 0 less that of the best single LLM, shape (n,)."""
        return self.first.quality - self.comparison.best_outcomes.quality

    @property
    def curve(self) -> Curve:
        """Means at each lambda."""
        return self.once(Curve.of)

    def has(self, needs: Iterable[Need]) -> bool:
        """Say whether it holds what a metric needs; unknown costs give unknown numbers."""
        lacks = {"predictions": self.sweep.predicted is None, "router": self.live is None}
        return not any(lacks.get(need, False) for need in needs)


@dataclass(frozen=True, eq=False)
class Curve:
    """Means at each lambda, shape (n_lambdas,): quality, dollars of a call, list price."""

    lambdas: tuple[float, ...]
    quality: Floats
    cost_usd: Floats
    price: Floats

    @classmethod
    def of(cls, subject: Subject) -> Curve:
        """Average a subject's choices."""
        done = subject.sweep.outcomes
        return cls(
            subject.sweep.lambdas,
            np.array([mean(one.quality) for one in done]),
            np.array([mean_usd(one.cost_usd) for one in done]),
            np.array([_list_price(subject.comparison, one.model) for one in done]),
        )

    def points(self, values: Floats) -> list[list[float]]:
        """Return ``[lambda, quality, value]`` of each lambda."""
        rows = zip(self.lambdas, self.quality, values, strict=True)
        return [[lam, float(q), float(v)] for lam, q, v in rows]


def _list_price(comparison: Comparison, model: NDArray[np.intp]) -> float:
    """Mean blended list price of the chosen LLMs; NaN where one of them has none."""
    chosen = model[model >= 0]
    return float(comparison.prices[chosen].mean()) if len(chosen) else np.nan


@dataclass(frozen=True)
class Metric:
    """A row of the table of metrics.

    Attributes:
        key: Its key in report.json.
        title: Head of its column; ``{}`` is the key of a value that is a mapping.
        formula: How it is computed, in a line.
        of: Compute it; None where it compares routers, which is done after all are measured.
        unit: Unit or range; empty where the value is no single number.
        better: Which values are better.
        needs: What it is computed from.
        table: Heading of the report's table that it stands in; empty is report.json alone.
        draws: Its bootstrap draws, shape (draws,), for the interval; None where it has none. A
            function that returns None has none for this subject.
        ends: Keys of the interval's ends; left out they are ``KEY_low`` and ``KEY_high``.
        unknown: The value where what it needs is not there.
        source: Paper, or place in the literature.
        signed: Written with a sign.
        on_request: Computed only where it is asked for by key, since it takes long.
    """

    key: str
    title: str
    formula: str
    of: Callable[[Subject], Any] | None
    unit: Unit | Literal[""] = ""
    better: Literal["higher", "lower", "none"] = "none"
    needs: tuple[Need, ...] = ("scores",)
    table: str = ""
    draws: Callable[[Subject], Floats | None] | None = None
    ends: tuple[str, ...] = ()
    unknown: Any = np.nan
    source: str = ""
    signed: bool = False
    on_request: bool = False

    @property
    def interval(self) -> tuple[str, str] | None:
        """Keys of the two ends of its 95 % bootstrap interval; None where it has none."""
        if self.draws is None and not self.ends:
            return None
        low, high = self.ends or (f"{self.key}_low", f"{self.key}_high")
        return low, high


@dataclass(frozen=True, eq=False)
class Measured:
    """Numbers of one row of the report.

    Attributes:
        numbers: As in report.json, NaN where they cannot be computed.
        draws: Bootstrap draws by the key of the number they belong to (``unseen.`` before those
            of the unseen queries); what intervals over seeds are made of.
        sweep: What they come from, for routers.
    """

    numbers: Numbers
    draws: dict[str, Floats] = field(default_factory=dict)
    sweep: Sweep | None = None

    def put(self, metric: Metric, value: Any, drawn: Floats | None) -> None:
        """Add a metric's value, and its interval where it has one."""
        self.numbers[metric.key] = value
        if metric.interval is not None:
            ends = (np.nan, np.nan) if drawn is None else interval(drawn)
            self.numbers.update(zip(metric.interval, ends, strict=True))
        if drawn is not None:
            self.draws[metric.key] = drawn


def measure(
    subject: Subject, metrics: Iterable[Metric], asked: Sequence[str] = (), *, unseen: bool = True
) -> Measured:
    """Compute metrics of one subject.

    Args:
        subject: What is measured.
        metrics: Rows of the table.
        asked: Keys of those that are computed on request only.
        unseen: Add the headline (what has an interval at lambda 0) of the queries without a
            near-duplicate in training.
    """
    found = Measured({}, sweep=None if subject.live is None else subject.sweep)
    for row in metrics:
        if row.of is None:
            continue
        known = subject.has(row.needs) and (not row.on_request or row.key in asked)
        drawn = row.draws(subject) if known and row.draws is not None else None
        found.put(row, row.of(subject) if known else row.unknown, drawn)
    if unseen:
        _add_unseen(found, subject, [row for row in metrics if row.key in HEADLINE])
    return found


HEADLINE = ("quality", "delta_best_single")
"""Metrics that are also told of the queries without a near-duplicate in training."""


def headline_draws(subject: Subject) -> Floats:
    """Draws of the two of `HEADLINE`, shape (draws, 2); over the same queries, so paired."""
    columns = np.column_stack([subject.first.quality, subject.difference])
    return subject.comparison.bootstrap.means(columns)


def _add_unseen(found: Measured, subject: Subject, headline: Sequence[Metric]) -> None:
    ground, part = subject.comparison, Measured({})
    rows = ground.unseen
    columns = np.column_stack([subject.first.quality, subject.difference])[rows]
    drawn = None
    if rows.all():
        drawn = subject.once(headline_draws)
    elif rows.any():
        drawn = ground.unseen_bootstrap.means(columns)
    for place, row in enumerate(headline):
        part.put(row, mean(columns[:, place]), None if drawn is None else drawn[:, place])
    found.numbers["unseen"] = part.numbers
    found.draws.update({f"unseen.{key}": own for key, own in part.draws.items()})


def curve_draws(subject: Subject, of: Callable[[Floats], Floats]) -> Floats:
    """Compute a number that is no mean in each of `CURVE_DRAWS` draws; see `Bootstrap`."""
    return subject.comparison.bootstrap.statistic(of, CURVE_DRAWS)


def compare_quality(
    routers: dict[str, Numbers], drawn: dict[str, Floats], metric: Metric
) -> str | None:
    """Add to each router's numbers its quality less the highest one, with the interval.

    Draws are of the same queries for all, so differences are paired. The highest was found on the
    evaluated split, so a router whose interval holds 0 may well be the better one.

    Args:
        routers: Numbers with ``quality``, by name.
        drawn: Bootstrap draws of each one's quality.
        metric: Where the difference stands.

    Returns:
        The name of the highest; None without routers.
    """
    known = {name: row["quality"] for name, row in routers.items() if not np.isnan(row["quality"])}
    top = max(known, key=lambda name: known[name], default=None)
    for name, row in routers.items():
        own = Measured(row)
        if top is None or name not in known:
            own.put(metric, np.nan, None)
        else:
            own.put(metric, row["quality"] - known[top], drawn[name] - drawn[top])
    return top
