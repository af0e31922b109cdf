"""The basis of a comparison of routers: measured outcomes, choices at each lambda, shared draws."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from waypost.contracts import policy
from waypost.contracts.cost import column_mean
from waypost.contracts.errors import ConfigError, Fault, SchemaError, names
from waypost.contracts.routing_data import RoutingData
from waypost.contracts.splits import leaks
from waypost.contracts.types import Floats
from waypost.metrics.costs import costs_of, list_prices
from waypost.metrics.curves import Singles
from waypost.metrics.intervals import Bootstrap

DRAWS = 10_000
CURVE_DRAWS = 1_000
MOST_CELLS = 200_000_000
"""Maximum draws times queries for `DRAWS` draws; larger splits have fewer draws, at least
`CURVE_DRAWS`."""

COST_ALONE = 1e9
"""Lambda at which cost decides and quality only breaks ties; infinity is not valid in JSON."""

POINTS = 60
_LOW = 5e-3

MOST_UNKNOWN = 0.05
"""Maximum share of choices without a known cost for which a mean cost is given."""


@dataclass(frozen=True, eq=False)
class Outcomes:
    """Outcomes of one setting of a router on n queries; each vector has shape (n,).

    Attributes:
        quality: Score of the answer; NaN if the choice was not measured.
        cost_usd: Dollars of the calls; NaN if not recorded.
        model: Column of the LLM whose answer counts; -1 if the data lacks it, or if the answer is
            not an LLM's own to the query.
        calls: Number of calls, verdicts included; None if each query is one call.
        first: Column of the LLM called first for an answer, -1 if the data lacks it; None if each
            query is one call.
        seconds: Seconds until the answer, NaN where not recorded; with several calls the sum over
            the steps of the slowest call of each. None if unknown.
    """

    quality: Floats
    cost_usd: Floats
    model: NDArray[np.intp]
    calls: NDArray[np.intp] | None = None
    first: NDArray[np.intp] | None = None
    seconds: Floats | None = None


def look_up(data: RoutingData, columns: NDArray[np.intp]) -> Outcomes:
    """Return the outcomes of the LLMs in these columns, shape (n,); -1 is not measured."""
    columns = np.asarray(columns, np.intp)
    return Outcomes(
        _cells(data.quality, columns),
        _cells(data.cost_usd, columns),
        columns,
        seconds=_cells(data.latency_s, columns),
    )


def look_up_names(data: RoutingData, chosen: Sequence[str]) -> Outcomes:
    """Return the outcomes of the LLMs with these names; a name the data lacks is not measured."""
    place = {name: j for j, name in enumerate(data.names)}
    return look_up(data, np.array([place.get(name, -1) for name in chosen], np.intp))


def _cells(matrix: Floats, columns: NDArray[np.intp]) -> Floats:
    # index -1 selects the additional column of NaN
    padded = np.column_stack([matrix, np.full(len(matrix), np.nan)])
    return padded[np.arange(len(matrix)), columns]


@dataclass(frozen=True, eq=False)
class Sweep:
    """Outcomes of a router on n queries at each of its cost weights.

    Attributes:
        lambdas: The cost weights, ascending; the first is 0.
        outcomes: Outcomes at each weight.
        predicted: Predicted scores (n, m), columns as in the data, NaN for LLMs that the router
            lacks; None for routers that do not predict scores.
        expected_usd: Mean predicted dollars of the choices at each weight, (n_lambdas,), or None.
        predicted_usd: Predicted dollars of a call, (n, m) like ``predicted``, or None.
        confidence: The router's confidence in its choices at the first weight, shape (n,); NaN for
            a query unlike the training data; None for routers without a confidence.
        spans: Whether the weights reach from quality alone to cost alone, or were given. Otherwise
            there is no curve.
    """

    lambdas: tuple[float, ...]
    outcomes: tuple[Outcomes, ...]
    predicted: Floats | None = None
    expected_usd: Floats | None = None
    predicted_usd: Floats | None = None
    confidence: Floats | None = None
    spans: bool = True


def lambda_grid(mean_usd: Floats) -> tuple[float, ...]:
    """Return 0, weights on a log scale, and `COST_ALONE`.

    At the highest weight of the scale, the cost of the step from the cheapest LLM to the next
    outweighs a full point of quality.

    Args:
        mean_usd: Mean dollars of each LLM on training data, shape (n_llms,), NaN where unknown.
    """
    known = np.unique(mean_usd[~np.isnan(mean_usd)])
    top = 10.0
    if len(known) > 1:
        top = min(max(top, 2 * known[-1] / (known[1] - known[0])), 1e5)
    scale = [float(f"{lam:.4g}") for lam in np.geomspace(_LOW, top, POINTS)]
    return (0.0, *scale, COST_ALONE)


@dataclass(frozen=True, eq=False)
class Comparison:
    """Test outcomes, training means, and the draws that all intervals share.

    All vectors over LLMs have shape (m,), in the order of ``test``.

    Attributes:
        train: Training split.
        test: The evaluated split; `basis` describes its ``cost_usd``.
        digest: Digest of the evaluated split as it was read.
        basis: Description of the source of costs.
        mean_quality: Training means; NaN for an LLM that training lacks.
        mean_usd: Training mean dollars of a call; NaN where unknown.
        prices: Blended list prices, USD per million tokens.
        unseen: True for a query without a near-duplicate in training, shape (n,).
        lambdas: Cost weights of every sweep.
        bootstrap: Draws of the queries.
        weak, strong: The two LLMs of RouteLLM's metrics; None lets `two_models` choose.
    """

    train: RoutingData
    test: RoutingData
    digest: str
    basis: str
    mean_quality: Floats
    mean_usd: Floats
    prices: Floats
    unseen: NDArray[np.bool_]
    lambdas: tuple[float, ...]
    bootstrap: Bootstrap
    weak: str | None = None
    strong: str | None = None

    @classmethod
    def of(
        cls,
        train: RoutingData,
        test: RoutingData,
        seed: int,
        lambdas: tuple[float, ...] | None = None,
        unseen: NDArray[np.bool_] | None = None,
        bootstrap: Bootstrap | None = None,
        weak: str | None = None,
        strong: str | None = None,
    ) -> Comparison:
        """Build a comparison from two splits.

        Args:
            train: Training split.
            test: The split to evaluate.
            seed: Seed of the draws.
            lambdas: Cost weights; None is `lambda_grid`.
            unseen: True for a test query without a near-duplicate in training; None computes it.
            bootstrap: Draws of the test queries; None draws them.
            weak: Name of the weak LLM of RouteLLM's metrics; None lets `two_models` choose.
            strong: Name of their strong LLM, likewise.

        Raises:
            ConfigError: A name is no LLM of the data.
            SchemaError: The splits have no LLM in common.
        """
        for key, name in (("weak", weak), ("strong", strong)):
            if name is not None and name not in test.names:
                problem = f"{name!r} is no LLM of the data; expected one of {names(test.names)}"
                raise ConfigError([Fault(key, problem)])
        costs = costs_of(test)
        place = [train.names.index(n) if n in train.names else -1 for n in test.names]
        if max(place) < 0:
            raise SchemaError(
                f"the evaluated split has scores of {names(test.names)} only; the training split "
                "has none of these"
            )
        quality = np.append(column_mean(train.quality), np.nan)[place]
        usd = np.append(column_mean(costs_of(train).usd), np.nan)[place]
        return cls(
            train=train,
            test=replace(test, cost_usd=costs.usd),
            digest=test.digest,
            basis=costs.basis,
            mean_quality=quality,
            mean_usd=usd,
            prices=list_prices(test),
            unseen=~leaks(train.queries, test.queries) if unseen is None else unseen,
            lambdas=lambdas or lambda_grid(usd),
            bootstrap=bootstrap or Bootstrap.of_groups(test.groups, draws_for(len(test)), seed),
            weak=weak,
            strong=strong,
        )

    @property
    def best(self) -> int:
        """Column of the best single LLM, by training mean."""
        return int(np.nanargmax(self.mean_quality))

    @cached_property
    def single_columns(self) -> dict[str, int]:
        """Columns of the best single, the cheapest, the smallest and the largest LLM.

        Best and cheapest are chosen by training means (cheapest by list price if no cost is
        known), never by the evaluated split. A role without known values is left out.
        """
        sizes = np.array([np.nan if m.size_b is None else m.size_b for m in self.test.llms])
        price = self.mean_usd if self.has_costs else self.prices
        columns = {"best_single": self.best}
        for name, values in (("cheapest", price), ("smallest", sizes), ("largest", -sizes)):
            # of one known size it is not known whether it is large
            if np.count_nonzero(~np.isnan(values)) >= (1 if name == "cheapest" else 2):
                # ties are broken by price, then by name, as in the policy
                order = np.lexsort((np.array(self.test.names), price, values))
                columns[name] = int(order[0])
        return columns

    @cached_property
    def two_models(self) -> dict[str, str] | None:
        """The weak and the strong LLM of RouteLLM's metrics, and ``by``, what chose the weak one.

        Strong is the best single LLM. Weak is the cheapest one by training cost or list price;
        where no price is known the smallest, if the strong one's size is known; else the one with
        the lowest training mean. None where there are no two.
        """
        names, columns = self.test.names, self.single_columns
        strong = self.best if self.strong is None else names.index(self.strong)
        if self.weak is not None:
            weak, by = names.index(self.weak), "option"
        elif "cheapest" in columns:
            weak, by = columns["cheapest"], "price"
        elif "smallest" in columns and self.test.llms[strong].size_b is not None:
            weak, by = columns["smallest"], "size"
        else:
            weak, by = int(np.nanargmin(self.mean_quality)), "training mean"
        if weak == strong:
            return None
        return {"weak": names[weak], "strong": names[strong], "by": by}

    @cached_property
    def task_rows(self) -> dict[str, NDArray[np.intp]]:
        """Rows of each task, by name; rows without a task are one group."""
        names = np.array([name or "(no task)" for name in self.test.task_names])
        return {str(task): np.flatnonzero(names == task) for task in np.unique(names)}

    @property
    def has_costs(self) -> bool:
        """Whether any call has a cost."""
        return not bool(np.isnan(self.test.cost_usd).all())

    @property
    def cost_ref(self) -> float:
        """Training mean dollars of the most expensive LLM; NaN if no cost is known."""
        known = self.mean_usd[~np.isnan(self.mean_usd)]
        return float(known.max()) if len(known) else np.nan

    @cached_property
    def best_outcomes(self) -> Outcomes:
        """Outcomes of the best single LLM."""
        return self.always(self.best)

    def always(self, column: int) -> Outcomes:
        """Return the outcomes of one LLM on every query."""
        return look_up(self.test, np.full(len(self.test), column, np.intp))

    def sweep_by(self, quality: Floats, cost: Floats, allowed: NDArray[np.bool_]) -> Sweep:
        """Return the policy's choices at every weight, by matrices (n, m)."""
        found = []
        for lam in self.lambdas:
            order = policy.rank(
                quality,
                cost,
                self.test.names,
                lam=lam,
                cost_ref=self.cost_ref,
                allowed=allowed,
            )
            found.append(look_up(self.test, order[:, 0]))
        return Sweep(self.lambdas, tuple(found))

    @cached_property
    def oracle(self) -> Sweep:
        """Choices by the measured scores: at lambda 0 the cheapest of the best LLMs."""
        measured = ~np.isnan(self.test.quality)
        # a row without scores needs some allowed LLM, although its choice is not measured
        allowed = measured | ~measured.any(axis=1, keepdims=True)
        return self.sweep_by(np.nan_to_num(self.test.quality), self.test.cost_usd, allowed)

    @cached_property
    def singles(self) -> Singles:
        """The single LLMs' mean cost and quality on the evaluated split, one curve."""
        usd = [mean_usd(column) for column in self.test.cost_usd.T]
        return Singles(np.array([usd]), column_mean(self.test.quality)[None, :])

    @cached_property
    def singles_drawn(self) -> Singles:
        """The single LLMs' means in each of `CURVE_DRAWS` draws."""
        usd = self.bootstrap.means(with_known_mean(self.test.cost_usd), CURVE_DRAWS)
        return Singles(usd, self.bootstrap.means(self.test.quality, CURVE_DRAWS))

    @cached_property
    def zero_aiq_drawn(self) -> Floats:
        """AIQ of mixing single LLMs, in each draw."""
        drawn = self.singles_drawn
        return drawn.aiq(drawn.cost, drawn.quality)

    @cached_property
    def unseen_bootstrap(self) -> Bootstrap:
        """The draws of `bootstrap`, reduced to the unseen queries."""
        drawn = self.bootstrap
        rows = np.arange(drawn.n) if drawn.rows is None else drawn.rows
        return Bootstrap(drawn.n, drawn.draws, drawn.seed, rows[self.unseen])


def draws_for(n: int) -> int:
    """Return the number of bootstrap draws for n queries or groups of them."""
    return max(CURVE_DRAWS, min(DRAWS, MOST_CELLS // max(n, 1)))


def mean_usd(values: Floats) -> float:
    """Return the mean of known values; NaN if more than `MOST_UNKNOWN` of them are unknown."""
    known = mostly_known(values)
    return float(known.mean()) if len(known) else np.nan


def mostly_known(values: Floats) -> Floats:
    """Return the known values; none if more than `MOST_UNKNOWN` of them are unknown."""
    known = ~np.isnan(values)
    return values[known] if known.any() and 1 - known.mean() <= MOST_UNKNOWN else values[:0]


def with_known_mean(columns: Floats) -> Floats:
    """Return the columns, with all NaN in those whose `mean_usd` is NaN."""
    stated = np.array([not np.isnan(mean_usd(column)) for column in columns.T], bool)
    return np.where(stated, columns, np.nan)


def mean(values: Any) -> float:
    """Return the mean of known values; NaN if there are none."""
    array = np.asarray(values, np.float64)
    known = array[~np.isnan(array)]
    return float(known.mean()) if len(known) else np.nan
