"""Measure how well logged decisions tell the value of another router, which is known here.

The acting router and the one to evaluate are fitted on the training split; the questions and the
recorded scores are those of the test split. Users with subjects of interest, who rate generously or
not, ask; the acting router explores; each seed makes a new log. The estimators of `waypost evaluate
--decisions` then say what the other router would have earned.

Example: waypost bench ope --data ../shared/data/llmrouter_example --seeds 20
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from pydantic import DirectoryPath, Field

from waypost.bench import harness
from waypost.bench._logged_world import Log, World, draw_log, made_up_world, recorded_world
from waypost.bench.harness import Result, Table, Tell, at_least, at_most
from waypost.metrics.off_policy import ESTIMATORS, evaluate_policy
from waypost.metrics.reward_model import cross_fitted
from waypost.report.numbers import UNKNOWN

TITLES = {"dm": "direct", "ips": "IPS", "snips": "self-normalised", "dr": "doubly robust"}
BY_ROW = "doubly robust, users ignored"


class Options(harness.Options):
    """Options of ``waypost bench ope``.

    Attributes:
        exploration: Shares of exploration.
    """

    data: DirectoryPath | None = Field(
        None, description="Routing data with train and test; without it questions are made up."
    )
    acting: str = Field("best_single", description="Router that acted.")
    target: str = Field("knnrouter", description="Router to evaluate.")
    encoder: str = Field("static", description="Query encoder.")
    seeds: int = Field(100, ge=1, description="Number of logs.")
    rows: int = Field(2000, ge=100, description="Decisions of a log.")
    users: int = Field(100, ge=2, description="Users of a log.")
    draws: int = Field(400, ge=100, description="Bootstrap draws of a log.")
    exploration: tuple[float, ...] = (0.05, 0.2)


QUICK = {"seeds": 5, "rows": 300}


def run(options: Options, tell: Tell) -> Result:
    """Make logs and evaluate the target on each.

    Returns:
        Figures: ``rows`` (exploration -> estimator -> bias, rmse, coverage, width, and coverage of
        the logs that are trusted), ``trusted`` (exploration -> share of logs whose doubly robust
        value has no warning), ``value``, ``agreement``.

    Raises:
        WaypostError: See `recorded_world`.
    """
    if options.data is None:
        world = made_up_world()
    else:
        world = recorded_world(options.data, options.acting, options.target, options.encoder)
    found, trusted = {}, {}
    done = 0
    for exploration in options.exploration:
        each: dict[str, list[tuple[float, float, float]]] = {}
        good: list[bool] = []
        for seed in range(options.seeds):
            log = draw_log(
                world, rows=options.rows, users=options.users, exploration=exploration, seed=seed
            )
            values, warnings = estimates(log, options.draws)
            good.append(not warnings)
            for name, value in values.items():
                each.setdefault(name, []).append(value)
            done += 1
            tell.bar(done, options.seeds * len(options.exploration), "logs")
        found[f"{exploration:g}"] = {
            name: judged(values, world.value, good) for name, values in each.items()
        }
        trusted[f"{exploration:g}"] = float(np.mean(good))
    known = {"value": world.value, "agreement": world.agreement}
    figures = {"rows": found, "trusted": trusted, **known}
    return Result(tables(found, trusted), _facts(options, world), aims(found), figures)


def estimates(
    log: Log, draws: int
) -> tuple[dict[str, tuple[float, float, float]], tuple[str, ...]]:
    """Return each estimator's value with its interval, and the warnings.

    Doubly robust is also there with every row as its own user.
    """
    found = {}
    warnings: tuple[str, ...] = ()
    for name, one, wanted in (("", log, ESTIMATORS), (BY_ROW, log.by_row(), ("dr",))):
        logged = one.logged
        model = cross_fitted(one.features, logged.actions, logged.rewards[:, 0], logged.clusters)
        told = evaluate_policy(one.policy, logged, model[:, :, None], draws=draws)
        for estimator in wanted:
            (value,) = told.values[estimator]
            found[name or TITLES[estimator]] = (value.value, value.low, value.high)
        warnings = warnings or told.warnings
    return found, warnings


def judged(
    values: Sequence[tuple[float, float, float]], truth: float, trusted: Sequence[bool]
) -> dict[str, Any]:
    """Return ``bias``, ``rmse``, ``coverage`` of the intervals and their mean ``width``.

    ``trusted_coverage`` is that of the trusted logs, None where there is none.
    """
    value, low, high = np.array(values).T
    inside = (low <= truth) & (truth <= high)
    return {
        "bias": float(value.mean() - truth),
        "rmse": float(np.sqrt(((value - truth) ** 2).mean())),
        "coverage": float(inside.mean()),
        "trusted_coverage": float(inside[np.array(trusted)].mean()) if any(trusted) else None,
        "width": float((high - low).mean()),
    }


def tables(
    found: Mapping[str, Mapping[str, Mapping[str, Any]]], trusted: Mapping[str, float]
) -> list[Table]:
    """Return a table for each share of exploration."""
    heads = (
        "estimator", "bias", "RMSE", "interval's width", "true value in the 95 % interval",
        "in trusted logs",
    )  # fmt: skip
    return [
        Table(
            f"Exploration {float(share):.0%}; {trusted[share]:.0%} of the logs are trusted",
            heads,
            [
                [
                    name,
                    f"{one['bias']:+.4f}",
                    f"{one['rmse']:.4f}",
                    f"{one['width']:.3f}",
                    f"{one['coverage']:.1%}",
                    f"{one['trusted_coverage']:.1%}" if trusted[share] else UNKNOWN,
                ]
                for name, one in rows.items()
            ],
        )
        for share, rows in found.items()
    ]


def aims(found: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> list[harness.Aim]:
    """Return what the estimators should reach."""
    aims = []
    for share, rows in found.items():
        robust, plain = rows[TITLES["dr"]], rows[TITLES["ips"]]
        what = f"exploration {float(share):.0%}: "
        inside = robust["trusted_coverage"]
        aims.append(at_least(f"{what}coverage of doubly robust in trusted logs", inside, 0.9))
        ratio = robust["rmse"] / plain["rmse"]
        aims.append(at_most(f"{what}RMSE of doubly robust over that of IPS", ratio, 1.0))
    return aims


def _facts(options: Options, world: World) -> str:
    source = "made-up questions" if options.data is None else options.data.name
    routers = "" if options.data is None else f" {options.acting} acts, {options.target} is judged;"
    return (
        f"{source}:{routers} {len(world.quality)} questions, {world.quality.shape[1]} LLMs; "
        f"{options.seeds} logs of {options.rows:,} decisions by {options.users} users. The true "
        f"value is {world.value:.3f}; both choose the same LLM in {world.agreement:.0%} of the "
        "questions."
    )
