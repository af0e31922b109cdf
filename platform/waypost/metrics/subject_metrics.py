"""Metrics of one subject: the functions of the table of metrics."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from waypost.contracts.types import Floats
from waypost.metrics import predictions
from waypost.metrics.behaviour import (
    collapse_index,
    cost_rises,
    delta_ibc,
    escalation,
    usage_shares,
)
from waypost.metrics.comparison import (
    CURVE_DRAWS,
    mean,
    mean_usd,
    with_known_mean,
)
from waypost.metrics.costs import Costs, cost_error
from waypost.metrics.curves import best_within, cheapest_reaching, hull, hypervolume
from waypost.metrics.intervals import is_binary, mcnemar
from waypost.metrics.measure import Subject, curve_draws
from waypost.metrics.predictions import Coverage

By = Callable[[Subject], Coverage | None]
"""Returns the order in which queries are given to the router; None without an order."""

SHARES = (10, 25, 50, 75, 100)
"""Percentages of the best single LLM's cost for which the best quality is reported."""

COVERAGES = tuple(k / 20 for k in range(21))
"""Points of curves over coverage."""

LEAST_ERRORS = 2.0
"""Minimum gap of two LLMs in standard errors; shares of a smaller gap are not meaningful."""

MARGIN = 0.02
"""Margin of non-inferiority: maximum loss of quality, fixed in advance."""


def ratio(part: float, whole: float) -> float:
    """Return part / whole; NaN unless the whole is above 0."""
    return part / whole if whole > 0 else np.nan


def non_inferior(delta_low: float) -> bool | None:
    """Return whether quality is at most `MARGIN` below the best single LLM's; None if unknown."""
    return None if np.isnan(delta_low) else bool(delta_low > -MARGIN)


def mcnemar_p(s: Subject) -> float:
    """Return McNemar's p against the best single LLM; NaN unless all scores are 0 or 1."""
    own, best = s.first.quality, s.comparison.best_outcomes.quality
    binary = is_binary(own, best) and not np.isnan(s.difference).all()
    return mcnemar(own, best) if binary else np.nan


def best_usd(s: Subject) -> float:
    """Return the mean dollars of the best single LLM."""
    return mean_usd(s.comparison.best_outcomes.cost_usd)


def best_quality(s: Subject) -> float:
    """Return the mean score of the best single LLM."""
    return mean(s.comparison.best_outcomes.quality)


def oracle_quality(s: Subject) -> float:
    """Return the mean score of the oracle at lambda 0."""
    return mean(s.comparison.oracle.outcomes[0].quality)


def highest(s: Subject) -> float:
    """Return the highest mean score of a setting."""
    return float(np.nanmax(s.curve.quality, initial=-np.inf))


def gain(s: Subject, base: Callable[[Subject], float]) -> float:
    """Return the ratio of quality to that of a baseline, minus 1."""
    return ratio(float(s.curve.quality[0]), base(s)) - 1


def count(s: Subject, sign: int) -> int:
    """Count the queries whose difference to the best single LLM has this sign."""
    return int((np.sign(s.difference) == sign).sum())


def random_quality(s: Subject) -> float:
    """Return the mean score of a uniform draw among the measured LLMs."""
    return mean([mean(row) for row in s.scores])


def aiq(s: Subject, *, log: bool = False) -> float:
    """Return the area below the hull of (cost, quality); NaN without costs."""
    return float(s.comparison.singles.aiq(s.curve.cost_usd, s.curve.quality, log=log)[0])


def zero_aiq(s: Subject) -> float:
    """Return the `aiq` of mixing single LLMs."""
    single = s.comparison.singles
    return float(single.aiq(single.cost, single.quality)[0])


def aiq_draws(s: Subject) -> Floats | None:
    """Return draws of `aiq`; None without costs."""
    if np.isnan(aiq(s)):
        return None
    done, draws = s.sweep.outcomes, s.comparison.bootstrap
    cost = draws.means(with_known_mean(np.column_stack([o.cost_usd for o in done])), CURVE_DRAWS)
    quality = draws.means(np.column_stack([one.quality for one in done]), CURVE_DRAWS)
    return s.comparison.singles_drawn.aiq(cost, quality)


def delta_aiq_draws(s: Subject) -> Floats | None:
    """Return draws of `aiq` less that of the zero router; None without costs."""
    drawn = s.once(aiq_draws)
    return None if drawn is None else drawn - s.comparison.zero_aiq_drawn


def cost_save(s: Subject, share: float) -> float:
    """Return the share of the best single LLM's cost saved at this share of its quality."""
    spent = cheapest_reaching(s.curve.cost_usd, s.curve.quality, share * best_quality(s))
    return 1 - ratio(spent, best_usd(s))


def at_costs(points: Sequence[Sequence[float]], usd: float) -> dict[str, float]:
    """Return the best quality of a setting within each of `SHARES` of a cost.

    Args:
        points: ``[lambda, quality, cost]`` of each setting.
        usd: The full cost, in the points' unit.
    """
    _, quality, cost = np.array(points, np.float64).T
    return {str(share): best_within(cost, quality, usd * share / 100) for share in SHARES}


def at_prices(s: Subject) -> list[list[float]]:
    """Return ``[price, best quality within it, best quality with mixing]`` of each list price."""
    price, quality, known = s.curve.price, s.curve.quality, s.comparison.prices
    mixed = hull(price, quality)
    return [
        [float(p), best_within(price, quality, p), float(mixed.at(p * (1 + 1e-9))[0])]
        for p in np.unique(known[~np.isnan(known)])
    ]


def beats_singles(s: Subject) -> int | None:
    """Count the single LLMs that the hull beats at their own cost."""
    single = s.comparison.singles
    if np.isnan(s.curve.cost_usd).all() or np.isnan(single.cost).any():
        return None
    own = hull(s.curve.cost_usd, s.curve.quality)
    points = zip(single.cost[0], single.quality[0], strict=True)
    return sum(bool(own.at(c)[0] > q) for c, q in points)


def dominated(s: Subject) -> float:
    """Return the `hypervolume` of the settings above random quality."""
    dearest = float(np.nanmax(s.comparison.singles.cost, initial=-np.inf))
    return hypervolume(s.curve.cost_usd, s.curve.quality, dearest, random_quality(s))


def _ibc(s: Subject) -> float | str:
    """Delta IBC at lambda 0, against the line from the cheapest to the best single LLM."""
    ground, usd = s.comparison, float(s.curve.cost_usd[0])
    if np.isnan(ground.mean_usd).any() or np.isnan(usd):
        return "unknown"
    ends = [ground.always(j) for j in (int(np.argmin(ground.mean_usd)), ground.best)]
    small, large = ((mean(one.quality), mean_usd(one.cost_usd)) for one in ends)
    return delta_ibc(float(s.curve.quality[0]), usd, small, large)


def delta_ibc_of(s: Subject) -> float:
    """Return delta IBC in percent; NaN if it is not a number."""
    found = s.once(_ibc)
    return np.nan if isinstance(found, str) else found


def dominates_cheapest(s: Subject) -> bool | None:
    """Return whether the router costs no more than the cheapest LLM and is not worse."""
    found = s.once(_ibc)
    return None if found == "unknown" else found == "dominates"


def _gap(s: Subject) -> tuple[Coverage, float, float] | None:
    """Order the queries by the predicted gain of the strong LLM.

    Returns the order, the area below its curve, and the gap between the two LLMs; None without
    predictions or with a gap below `LEAST_ERRORS`.
    """
    names, test = s.comparison.two_models, s.comparison.test
    if names is None:
        return None
    ends = [test.names.index(names[end]) for end in ("weak", "strong")]
    expected, scores = s.predicted[:, ends], s.scores[:, ends]
    if np.isnan(expected).all(axis=0).any():  # the router has no predictions for one of them
        return None
    order = Coverage.of(scores[:, 1] - scores[:, 0], expected[:, 1] - expected[:, 0])
    area, gap = (float(one[0]) for one in order.means())
    n = len(order.rows)
    if n < 2 or not gap > LEAST_ERRORS * float(order.gain.std(ddof=1)) / n**0.5:
        return None
    return order, area, gap


def apgr(s: Subject) -> float:
    """Return the mean share of the gap between the two LLMs that is closed."""
    found = s.once(_gap)
    return np.nan if found is None else found[1] / found[2]


def apgr_draws(s: Subject) -> Floats | None:
    """Return draws of `apgr`."""
    found = s.once(_gap)
    if found is None:
        return None
    with np.errstate(divide="ignore", invalid="ignore"):  # the gap of a draw may be 0
        return curve_draws(s, lambda weights: np.divide(*found[0].means(weights)))


def cpt(s: Subject, part: float) -> float:
    """Return the smallest share of strong calls that closes this part of the gap."""
    found = s.once(_gap)
    return np.nan if found is None else found[0].first_reaching(part * found[2])


def bins(s: Subject) -> list[list[float]]:
    """Return bins of equal mass of all measured cells."""
    return predictions.reliability(s.predicted, s.scores)


def _ece(predicted: Floats, scores: Floats) -> float:
    return predictions.calibration_error(predictions.reliability(predicted, scores))


_OF_AN_LLM = {
    "brier": predictions.brier,
    "log_loss": predictions.log_loss,
    "ece": _ece,
    "auroc": predictions.auroc,
}


def by_llm(s: Subject) -> dict[str, dict[str, float]]:
    """Return Brier score, log loss, ECE and AUROC of each LLM."""
    columns = zip(s.comparison.test.names, s.predicted.T, s.scores.T, strict=True)
    return {name: {key: of(p, m) for key, of in _OF_AN_LLM.items()} for name, p, m in columns}


def kendall(s: Subject) -> Floats:
    """Return Kendall's tau-b of each query, shape (n,)."""
    return predictions.kendall_tau(s.predicted, s.scores)


def dollars(s: Subject) -> tuple[float, float]:
    """Return the median error of predicted dollars, and the share that is too low."""
    usd = s.comparison.test.cost_usd
    # predictions are of the full cost of a call, which is not comparable with a part of it
    if s.sweep.predicted_usd is None or not Costs(s.comparison.basis, usd).whole:
        return np.nan, np.nan
    return cost_error(s.sweep.predicted_usd, usd)


def _order(s: Subject, value: Floats | None) -> Coverage | None:
    if value is None or np.isnan(value).all():
        return None
    order = Coverage.of(s.difference, value)
    return order if len(order.rows) else None


def by_confidence(s: Subject) -> Coverage | None:
    """Order queries by the router's confidence."""
    return _order(s, s.sweep.confidence)


def by_margin(s: Subject) -> Coverage | None:
    """Order queries by the predicted gain of the choice over the best single LLM."""
    model = s.first.model
    chosen = np.where(model >= 0, s.predicted[np.arange(len(model)), model], np.nan)
    return _order(s, chosen - s.predicted[:, s.comparison.best])


def _over_random(order: Coverage, weights: Floats | None = None) -> Floats:
    area, whole = order.means(weights)
    return area - whole / 2


def _fallback(s: Subject, order: Coverage) -> float:
    """Return the mean score of the best single LLM on the queries of an order."""
    return float(s.comparison.best_outcomes.quality[order.rows].mean())


def selective_area(s: Subject, by: By) -> float:
    """Return the mean quality over coverage; queries not covered go to the best single LLM."""
    order = s.once(by)
    return np.nan if order is None else _fallback(s, order) + float(order.means()[0][0])


def selective_gain(s: Subject, by: By) -> float:
    """Return `selective_area` less that of a random order."""
    order = s.once(by)
    return np.nan if order is None else float(_over_random(order)[0])


def selective_draws(s: Subject, by: By) -> Floats | None:
    """Return draws of `selective_gain`."""
    order = s.once(by)
    return None if order is None else curve_draws(s, lambda w: _over_random(order, w))


def selective_curve(s: Subject, by: By) -> list[list[float]]:
    """Return ``[coverage, quality]`` at `COVERAGES`."""
    order = s.once(by)
    if order is None:
        return []
    low, gains = _fallback(s, order), order.at(COVERAGES)
    return [[x, low + float(more)] for x, more in zip(COVERAGES, gains, strict=True)]


def shares(s: Subject) -> Floats:
    """Return the share of queries that each LLM answers at lambda 0."""
    return usage_shares(s.first.model, len(s.comparison.test.llms))


def usage(s: Subject) -> dict[str, float]:
    """Return `shares` by LLM."""
    return dict(zip(s.comparison.test.names, map(float, s.once(shares)), strict=True))


def usage_curve(s: Subject) -> list[list[float]]:
    """Return the share of queries that each LLM answers at each lambda."""
    m = len(s.comparison.test.llms)
    return [usage_shares(one.model, m).tolist() for one in s.sweep.outcomes]


def collapse(s: Subject) -> float:
    """Return the largest share less the oracle's largest."""
    oracle = s.comparison.oracle.outcomes[0].model
    return collapse_index(s.once(shares), usage_shares(oracle, len(s.comparison.test.llms)))


def rises(s: Subject) -> int | None:
    """Count the steps of a rising lambda at which the expected cost rises; None if unknown."""
    expected = s.sweep.expected_usd
    return None if expected is None or np.isnan(expected).any() else cost_rises(expected)


def tasks(s: Subject) -> dict[str, float]:
    """Return the mean score of each task."""
    return {t: mean(s.first.quality[rows]) for t, rows in s.comparison.task_rows.items()}


def episodes(s: Subject) -> list[dict[str, float]]:
    """Return calls and escalations at each setting; empty for routers of one call."""
    return [
        {
            "lambda": lam,
            "calls": float(one.calls.mean()),
            **escalation(s.scores, one.first, one.model),
        }
        for lam, one in zip(s.sweep.lambdas, s.sweep.outcomes, strict=True)
        if one.calls is not None and one.first is not None
    ]
