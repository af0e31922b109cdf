"""How good a router's predictions are: scores, order, confidence, dollars."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from waypost.contracts.types import Floats
from waypost.metrics import predictions as coverage
from waypost.metrics.behaviour import (
    collapse_index,
    cost_rises,
    delta_ibc,
    escalation,
    picks_best,
    solver_recall,
    usage_entropy,
    usage_shares,
)
from waypost.metrics.costs import Costs, cost_error
from waypost.metrics.curves import arena_score, best_within, cheapest_reaching, hull, hypervolume
from waypost.metrics.intervals import interval, is_binary, mcnemar
from waypost.metrics.predictions import (
    Coverage,
    auroc,
    brier,
    calibration_error,
    kendall_tau,
    log_loss,
    ndcg,
    reliability,
)
from waypost.pipelines.evaluation.baselines import single_columns
from waypost.pipelines.evaluation.comparison import CURVE_DRAWS, Ground, mean, mean_usd
from waypost.pipelines.evaluation.headline import (
    INTERVALS,
    Card,
    Curve,
    Draws,
    Numbers,
    area,
    by_task,
    headline,
    unseen,
    usage,
)
from waypost.pipelines.evaluation.lambda_curve import Sweep

Metric = Callable[[Floats, Floats], float]

COVERAGES = tuple(k / 20 for k in range(21))
"""Where curves over coverage are given."""


def predictions(ground: Ground, sweep: Sweep, draws: Draws) -> Numbers:
    """Measure what a router predicted, section 8 of the design's metrics; adds draws.

    Everything is NaN for a router that predicts no scores.
    """
    predicted, measured = sweep.predicted, ground.test.quality
    if predicted is None:
        return _unknown()
    bins = reliability(predicted, measured)
    by_llm = _by_llm(ground, predicted)
    error, low = _dollars(ground, sweep)
    return {
        **_unknown(),
        "brier": brier(predicted, measured),
        "log_loss": log_loss(predicted, measured),
        "ece": calibration_error(bins),
        "reliability": bins,
        "auroc": mean([one["auroc"] for one in by_llm.values()]),
        "by_llm": by_llm,
        **_order(ground, predicted, draws),
        **_selective(ground, sweep, predicted, draws),
        "cost_error": error,
        "cost_too_low": low,
    }


def _unknown() -> Numbers:
    numbers = (
        "brier", "log_loss", "ece", "auroc", "kendall_tau", *INTERVALS["kendall_tau"], "ndcg",
        "selective_area", "selective_gain", *INTERVALS["selective_gain"], "margin_area",
        "margin_gain", *INTERVALS["margin_gain"], "cost_error", "cost_too_low",
    )  # fmt: skip
    curves: Numbers = {key: [] for key in ("reliability", "selective_curve", "margin_curve")}
    return {**dict.fromkeys(numbers, np.nan), **curves, "by_llm": {}}


def _by_llm(ground: Ground, predicted: Floats) -> dict[str, dict[str, float]]:
    metrics: dict[str, Metric] = {
        "brier": brier,
        "log_loss": log_loss,
        "ece": lambda p, s: calibration_error(reliability(p, s)),
        "auroc": auroc,
    }
    columns = zip(ground.test.names, predicted.T, ground.test.quality.T, strict=True)
    return {name: {key: of(p, s) for key, of in metrics.items()} for name, p, s in columns}


def _order(ground: Ground, predicted: Floats, draws: Draws) -> Numbers:
    tau = kendall_tau(predicted, ground.test.quality)
    draws["kendall_tau"] = drawn = ground.bootstrap.means(tau, CURVE_DRAWS)[:, 0]
    return {
        "kendall_tau": mean(tau),
        **dict(zip(INTERVALS["kendall_tau"], interval(drawn), strict=True)),
        "ndcg": mean(ndcg(predicted, ground.test.quality)),
    }


def _selective(ground: Ground, sweep: Sweep, predicted: Floats, draws: Draws) -> Numbers:
    """Let some queries fall back to the best single LLM of training, by two orders.

    ``selective``: those of low confidence, of routers that have one. ``margin``: those for which
    the choice is predicted to gain little over the best single LLM. A router may well be sure
    where every LLM is right, which is no reason to choose.
    """
    model = sweep.outcomes[0].model
    scores = np.where(model >= 0, predicted[np.arange(len(model)), model], np.nan)
    orders = {"selective": sweep.confidence, "margin": scores - predicted[:, ground.best]}
    found: Numbers = {}
    for prefix, value in orders.items():
        if value is not None and not np.isnan(value).all():
            found |= _fall_back(ground, sweep, value, prefix, draws)
    return found


def _fall_back(ground: Ground, sweep: Sweep, value: Floats, prefix: str, draws: Draws) -> Numbers:
    default = ground.best_outcomes.quality
    order = Coverage.of(sweep.outcomes[0].quality - default, value)
    if not len(order.rows):
        return {}

    def over_random(weights: Floats | None = None) -> Floats:
        area, whole = order.means(weights)
        return area - whole / 2

    gain = f"{prefix}_gain"
    draws[gain] = drawn = ground.bootstrap.statistic(over_random, CURVE_DRAWS)
    fallback = float(default[order.rows].mean())
    points = zip(COVERAGES, coverage.at(order, COVERAGES), strict=True)
    return {
        f"{prefix}_area": fallback + float(order.means()[0][0]),
        gain: float(over_random()[0]),
        **dict(zip(INTERVALS[gain], interval(drawn), strict=True)),
        f"{prefix}_curve": [[share, fallback + float(more)] for share, more in points],
    }


def _dollars(ground: Ground, sweep: Sweep) -> tuple[float, float]:
    usd = ground.test.cost_usd
    # The whole call is predicted, which cannot be compared with the cost of a part of it.
    if sweep.predicted_usd is None or not Costs(ground.basis, usd).whole:
        return np.nan, np.nan
    return cost_error(sweep.predicted_usd, usd)


SHARES = (10, 25, 50, 75, 100)
"""Per cent of the best single LLM's cost at which the best quality is told."""


def matched(ground: Ground, curve: Curve) -> Numbers:
    """Return the numbers at the best single LLM's quality and cost, and at each list price."""
    best, best_usd = (
        mean(ground.best_outcomes.quality),
        mean_usd(ground.best_outcomes.cost_usd),
    )
    spent = {
        key: cheapest_reaching(curve.cost_usd, curve.quality, share * best)
        for key, share in (
            ("cost_save", 1.0),
            ("cost_save_99", 0.99),
            ("cost_save_95", 0.95),
            ("cost_save_90", 0.9),
        )
    }
    highest = float(np.nanmax(curve.quality, initial=-np.inf))
    usd, quality = float(curve.cost_usd[0]), float(curve.quality[0])
    at_random = mean(np.array([mean(row) for row in ground.test.quality]))
    dearest = float(np.nanmax(ground.singles.cost, initial=-np.inf))
    return {
        **{key: 1 - ratio(usd, best_usd) for key, usd in spent.items()},
        "perf_gain": ratio(highest - best, best),
        "gain_best": ratio(quality, best) - 1,
        "gain_random": ratio(quality, at_random) - 1,
        "beats_singles": _beats(ground, curve),
        "quality_at_cost": at_costs(curve.points(1000 * curve.cost_usd), 1000 * best_usd),
        "quality_at_price": _at_prices(ground, curve),
        "hypervolume": hypervolume(curve.cost_usd, curve.quality, dearest, at_random),
        "arena_score": arena_score(quality, 1000 * usd),
    }


def at_costs(points: Sequence[Sequence[float]], usd: float) -> dict[str, float]:
    """Return the best quality of a setting within each of `SHARES` of a cost.

    Args:
        points: ``[lambda, quality, cost]`` of each setting.
        usd: The whole cost, in the points' unit.
    """
    _, quality, cost = np.array(points, np.float64).T
    return {str(share): best_within(cost, quality, usd * share / 100) for share in SHARES}


def _beats(ground: Ground, curve: Curve) -> int | None:
    if np.isnan(curve.cost_usd).all() or np.isnan(ground.singles.cost).any():
        return None
    own = hull(curve.cost_usd, curve.quality)
    points = zip(ground.singles.cost[0], ground.singles.quality[0], strict=True)
    return sum(bool(own.at(c)[0] > q) for c, q in points)


def _at_prices(ground: Ground, curve: Curve) -> list[list[float]]:
    """Return ``[price, quality of a setting within it, quality by mixing two settings]``."""
    mixed = hull(curve.price, curve.quality)
    prices = np.unique(ground.prices[~np.isnan(ground.prices)])
    return [
        [float(p), best_within(curve.price, curve.quality, p), float(mixed.at(p * (1 + 1e-9))[0])]
        for p in prices
    ]


def ratio(part: float, whole: float) -> float:
    """Divide; NaN where the whole is not above 0."""
    return part / whole if whole > 0 else np.nan


CALLS = (50, 80, 95)
"""Parts of the gap, in per cent, that the call-performance threshold is stated for."""

LEAST_ERRORS = 2.0
"""Standard errors of the gap that it must have; of a smaller one no part can be told."""


def pair(ground: Ground) -> dict[str, str] | None:
    """Name the two: the cheapest LLM and the best single one, by training; None if one LLM is both.

    Nothing is chosen by the evaluated split.
    """
    columns = single_columns(ground)
    weak, strong = columns.get("cheapest"), columns["best_single"]
    if weak is None or weak == strong:
        return None
    return {"weak": ground.test.names[weak], "strong": ground.test.names[strong]}


def two_models(ground: Ground, sweep: Sweep, draws: Draws) -> Numbers:
    """Send queries to the strong LLM in the order of what it is predicted to gain; adds draws.

    PGR at a share of strong calls is the part of the gap between the two LLMs that is closed (0
    weak, 1 strong, may exceed 1). APGR is its mean over all shares, exactly and not at ten of
    them: about .5 at random. CPT(x) is the least share at which PGR is x.
    """
    found: Numbers = {
        **dict.fromkeys(("apgr", *INTERVALS["apgr"]), np.nan),
        **{f"cpt_{part}": np.nan for part in CALLS},
    }
    names = pair(ground)
    if names is None or sweep.predicted is None:
        return found
    ends = [ground.test.names.index(names[end]) for end in ("weak", "strong")]
    expected, scores = sweep.predicted[:, ends], ground.test.quality[:, ends]
    if np.isnan(expected).all(axis=0).any():  # one that the router does not know
        return found
    order = Coverage.of(scores[:, 1] - scores[:, 0], expected[:, 1] - expected[:, 0])
    area, gap = (float(one[0]) for one in order.means())
    n = len(order.rows)
    if n < 2 or not gap > LEAST_ERRORS * float(order.gain.std(ddof=1)) / n**0.5:
        return found
    with np.errstate(divide="ignore", invalid="ignore"):  # a draw may hold no gap
        drawn = ground.bootstrap.statistic(lambda w: np.divide(*order.means(w)), CURVE_DRAWS)
    draws["apgr"] = drawn
    return {
        "apgr": area / gap,
        **dict(zip(INTERVALS["apgr"], interval(drawn), strict=True)),
        **{f"cpt_{part}": order.first_reaching(part / 100 * gap) for part in CALLS},
    }


MARGIN = 0.02
"""Loss of quality that still counts as the same (non-inferiority), fixed beforehand."""


def card(ground: Ground, sweep: Sweep) -> Card:
    """Measure a router's sweep."""
    first, curve = sweep.outcomes[0], Curve.of(ground, sweep)
    numbers: Numbers = {}
    draws: Draws = {}
    headline(ground, first.quality, numbers, draws)
    numbers["cost_usd_per_1k"] = 1000 * float(curve.cost_usd[0])
    numbers |= _paired(ground, first.quality, numbers["delta_low"])
    numbers |= area(ground, sweep, curve, draws)
    numbers |= matched(ground, curve)
    numbers |= _gaps(ground, numbers)
    numbers |= _slope(ground, curve)
    numbers |= _behaviour(ground, sweep)
    numbers["episodes"] = _episodes(ground, sweep)
    numbers |= predictions(ground, sweep, draws)
    numbers |= two_models(ground, sweep, draws)
    numbers["tasks"] = by_task(ground, first.quality)
    numbers["macro_quality"] = mean(list(numbers["tasks"].values()))
    numbers["not_measured"] = int(np.isnan(first.quality).sum())
    numbers["cost_unknown"] = int(np.isnan(first.cost_usd).sum())
    numbers["list_price"] = float(curve.price[0])
    numbers["unseen"] = unseen(ground, first.quality, numbers, draws)
    numbers["curve"] = curve.points(1000 * curve.cost_usd)
    numbers["curve_price"] = curve.points(curve.price)
    numbers["usage_curve"] = [list(usage(ground, one.model).values()) for one in sweep.outcomes]
    return Card(numbers, draws, sweep)


def non_inferior(delta_low: float) -> bool | None:
    """Say whether quality is at most `MARGIN` below the best single LLM's; None if unknown."""
    return None if np.isnan(delta_low) else bool(delta_low > -MARGIN)


def _paired(ground: Ground, quality: Floats, delta_low: float) -> Numbers:
    best = ground.best_outcomes.quality
    difference = quality - best
    binary = is_binary(quality, best) and not np.isnan(difference).all()
    return {
        "non_inferior": non_inferior(delta_low),
        "wins": int((difference > 0).sum()),
        "ties": int((difference == 0).sum()),
        "losses": int((difference < 0).sum()),
        "mcnemar_p": mcnemar(quality, best) if binary else np.nan,
    }


def _gaps(ground: Ground, numbers: Numbers) -> Numbers:
    reachable = mean(ground.oracle.outcomes[0].quality)
    headroom = reachable - mean(ground.best_outcomes.quality)
    return {
        "gap_oracle": 1 - ratio(numbers["quality"], reachable),
        "recovered_headroom": ratio(numbers["delta_best_single"], headroom),
    }


def _slope(ground: Ground, curve: Curve) -> Numbers:
    """Return delta IBC at lambda 0: against the line from the cheapest to the best single LLM."""
    if np.isnan(ground.mean_usd).any() or np.isnan(curve.cost_usd[0]):
        return {"delta_ibc": np.nan, "dominates_cheapest": None}
    ends = [ground.always(j) for j in (int(np.argmin(ground.mean_usd)), ground.best)]
    small, large = ((mean(one.quality), mean_usd(one.cost_usd)) for one in ends)
    found = delta_ibc(float(curve.quality[0]), float(curve.cost_usd[0]), small, large)
    return {
        "delta_ibc": np.nan if isinstance(found, str) else found,
        "dominates_cheapest": found == "dominates",
    }


def _episodes(ground: Ground, sweep: Sweep) -> list[dict[str, float]]:
    """Return what each setting's episodes were like; nothing for routers of one call."""
    return [
        {
            "lambda": lam,
            "calls": float(one.calls.mean()),
            **escalation(ground.test.quality, one.first, one.model),
        }
        for lam, one in zip(sweep.lambdas, sweep.outcomes, strict=True)
        if one.calls is not None and one.first is not None
    ]


def _behaviour(ground: Ground, sweep: Sweep) -> Numbers:
    model, m = sweep.outcomes[0].model, len(ground.test.llms)
    shares = usage_shares(model, m)
    oracle_shares = usage_shares(ground.oracle.outcomes[0].model, m)
    expected = sweep.expected_usd
    return {
        "usage": usage(ground, model),
        "usage_entropy": usage_entropy(shares),
        "collapse_index": collapse_index(shares, oracle_shares),
        "cost_rises": None
        if expected is None or np.isnan(expected).any()
        else cost_rises(expected),
        "solver_recall": solver_recall(ground.test.quality, model),
        "picks_best": picks_best(ground.test.quality, model),
    }
