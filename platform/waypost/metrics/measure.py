"""The computation of metrics: subjects, rows of the table of metrics, and measured numbers."""

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

Need = Literal["scores", "costs", "list prices", "predictions", "router", "other routers", "curve"]
Unit = Literal[
    "score", "0 to 1", "-1 to 1", "score squared", "nats", "share", "%", "p", "yes or no",
    "USD per 1,000 queries", "USD per million tokens", "ms", "s", "queries", "LLMs",
    "steps", "calls",
]  # fmt: skip

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Subject:
    """The subject of a measurement: choices at each lambda, and the router that made them.

    Attributes:
        comparison: Splits, costs and draws to measure the choices with.
        sweep: The choices and predictions.
        live: The router; None for references.
    """

    comparison: Comparison
    sweep: Sweep
    live: Live | None = None
    _known: dict[Callable[[Subject], Any], Any] = field(
        default_factory=dict, init=False, repr=False
    )

    def once(self, of: Callable[[Subject], T]) -> T:
        """Return the value of a function for this subject, cached at the first call."""
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
        """Predicted scores, shape (n, m); all NaN if the router does not predict scores."""
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
        """Return whether a metric's needs are met; with unknown costs numbers are NaN instead."""
        lacks = {
            "predictions": self.sweep.predicted is None,
            "router": self.live is None,
            "curve": not self.sweep.spans,
        }
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
        """Return the means of a subject's choices."""
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
    """Return the mean blended list price of the chosen LLMs; NaN if one of them has none."""
    chosen = model[model >= 0]
    return float(comparison.prices[chosen].mean()) if len(chosen) else np.nan


@dataclass(frozen=True)
class Metric:
    """A row of the table of metrics.

    Attributes:
        key: Key in report.json.
        title: Head of its column; ``{}`` is replaced by the key of a value that is a mapping.
        formula: Definition in one line.
        of: Computes it; None for a comparison of routers, computed after all are measured.
        unit: Unit or range; empty if the value is not a single number.
        better: Direction of better values.
        needs: Inputs of the computation.
        table: Heading of its table in report.md; empty for report.json only.
        draws: Returns its bootstrap draws, shape (draws,), for the interval, or None for a subject
            without them; None if it has no interval.
        ends: Keys of the interval's ends; by default ``KEY_low`` and ``KEY_high``.
        unknown: Value if its needs are not met.
        source: Paper of the metric.
        signed: Whether it is written with a sign.
        on_request: Whether it is computed only on request, because it is slow.
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
        """Keys of the two ends of its 95 % bootstrap interval; None without an interval."""
        if self.draws is None and not self.ends:
            return None
        low, high = self.ends or (f"{self.key}_low", f"{self.key}_high")
        return low, high


@dataclass(frozen=True, eq=False)
class Measured:
    """Numbers of one row of the report.

    Attributes:
        numbers: Numbers as in report.json, NaN where they cannot be computed.
        draws: Bootstrap draws by the key of their number (with the prefix ``unseen.`` for unseen
            queries), for intervals over seeds.
        sweep: The router's outcomes; None for references.
    """

    numbers: Numbers
    draws: dict[str, Floats] = field(default_factory=dict)
    sweep: Sweep | None = None

    def put(self, metric: Metric, value: Any, drawn: Floats | None) -> None:
        """Add a metric's value, and its interval if it has one."""
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
        subject: The subject to measure.
        metrics: Rows of the table of metrics.
        asked: Keys of requested metrics among those with ``on_request``.
        unseen: Add the metrics of `HEADLINE` on the queries without a near-duplicate in training.
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
"""Metrics that are also computed on the queries without a near-duplicate in training."""


def headline_draws(subject: Subject) -> Floats:
    """Return draws of the two metrics of `HEADLINE`, shape (draws, 2), paired."""
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
    """Return a statistic in each of `CURVE_DRAWS` draws; see `Bootstrap.statistic`."""
    return subject.comparison.bootstrap.statistic(of, CURVE_DRAWS)


def compare_quality(
    routers: dict[str, Numbers], drawn: dict[str, Floats], metric: Metric
) -> str | None:
    """Add the difference to the highest quality, with its interval, to each router's numbers.

    All routers have the same draws of queries, so differences are paired. The highest quality is
    selected on the evaluated split, so a router whose interval contains 0 may be the better one.

    Args:
        routers: Numbers with ``quality``, by name.
        drawn: Bootstrap draws of each router's quality.
        metric: Metric of the difference.

    Returns:
        The name of the router with the highest quality; None without routers.
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
