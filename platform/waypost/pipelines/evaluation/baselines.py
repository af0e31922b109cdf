"""Reference policies: what routing is compared with, and what it could reach."""

from __future__ import annotations

import numpy as np

from waypost.contracts.cost import column_mean
from waypost.metrics.costs import costs_of
from waypost.metrics.intervals import interval
from waypost.pipelines.evaluation.comparison import Ground, mean, mean_usd
from waypost.pipelines.evaluation.headline import (
    Card,
    Curve,
    Draws,
    Numbers,
    area,
    by_task,
    headline,
    list_price,
    unseen,
    usage,
)
from waypost.pipelines.evaluation.lambda_curve import Sweep
from waypost.pipelines.evaluation.replay import Outcomes


def task_oracle(ground: Ground) -> Sweep:
    """Choose the LLM that is best in training on the query's true task.

    A task that training lacks, and an LLM it did not measure on a task, count as the LLM's mean
    over all tasks.
    """
    train, test = ground.train, ground.test
    place = [train.names.index(n) if n in train.names else -1 for n in test.names]
    usd = costs_of(train).usd
    tasks = np.array(train.task_names)
    quality = np.tile(ground.mean_quality, (len(test), 1))
    cost = np.tile(ground.mean_usd, (len(test), 1))
    for task in set(test.task_names):
        rows = np.array([name == task for name in test.task_names])
        for target, source in ((quality, train.quality), (cost, usd)):
            means = np.append(column_mean(source[tasks == task]), np.nan)[place]
            target[rows] = np.where(np.isnan(means), target[rows], means)
    return ground.sweep_by(np.nan_to_num(quality), cost, ~np.isnan(quality))


def single_columns(ground: Ground) -> dict[str, int]:
    """Return the columns of the single LLMs of references: best, cheapest, smallest, largest.

    Best and cheapest by training means (cheapest by list price where no cost is known), never by
    the evaluated split; one that nothing is known for is left out.
    """
    sizes = np.array([np.nan if m.size_b is None else m.size_b for m in ground.test.llms])
    price = ground.mean_usd if ground.has_costs else ground.prices
    columns = {"best_single": ground.best}
    for name, values in (("cheapest", price), ("smallest", sizes), ("largest", -sizes)):
        if not np.isnan(values).all():
            # Of equal ones the cheaper, then the lower name: as the policy chooses.
            order = np.lexsort((np.array(ground.test.names), price, values))
            columns[name] = int(order[0])
    return columns


def singles(ground: Ground) -> dict[str, tuple[int, Outcomes]]:
    """Return `single_columns`, and what each of them earned."""
    return {name: (j, ground.always(j)) for name, j in single_columns(ground).items()}


def point(ground: Ground, outcomes: Outcomes) -> Card:
    """Measure a reference that needs no curve."""
    numbers: Numbers = {}
    draws: Draws = {}
    headline(ground, outcomes.quality, numbers, draws)
    numbers |= {
        "cost_usd_per_1k": 1000 * mean_usd(outcomes.cost_usd),
        "list_price": list_price(ground, outcomes.model),
        "usage": usage(ground, outcomes.model),
        "tasks": by_task(ground, outcomes.quality),
        "unseen": unseen(ground, outcomes.quality, numbers, draws),
    }
    return Card(numbers, draws)


def with_curve(ground: Ground, sweep: Sweep) -> Card:
    """Measure a reference that has one setting for each weight."""
    found = point(ground, sweep.outcomes[0])
    curve = Curve.of(ground, sweep)
    found.numbers.update(area(ground, sweep, curve, found.draws))
    found.numbers["curve"] = curve.points(1000 * curve.cost_usd)
    return found


def random(ground: Ground) -> Card:
    """Measure the expectation of a uniform draw among the LLMs that were measured."""
    quality = np.array([mean(row) for row in ground.test.quality])
    numbers: Numbers = {}
    draws: Draws = {}
    headline(ground, quality, numbers, draws)
    numbers |= {
        "cost_usd_per_1k": 1000 * float(np.mean(ground.singles.cost[0])),
        "list_price": float(np.mean(ground.prices)),
        "tasks": by_task(ground, quality),
        "unseen": unseen(ground, quality, numbers, draws),
    }
    return Card(numbers, draws)


def zero_router(ground: Ground) -> Card:
    """Measure what mixing two single LLMs without looking at the query gives.

    Its points are those of the evaluated split, so it is an upper bound of such a mix.
    """
    single = ground.singles
    corners = single.hull()
    low, high = interval(ground.zero_aiq_drawn)
    points = zip(corners.quality[0], corners.cost[0], strict=True)
    numbers: Numbers = {
        "quality": float(corners.quality[0, -1]),
        "cost_usd_per_1k": 1000 * float(corners.cost[0, -1]),
        "aiq": float(single.aiq(single.cost, single.quality)[0]),
        "aiq_low": low,
        "aiq_high": high,
        "aiq_log": float(single.aiq(single.cost, single.quality, log=True)[0]),
        "hull": [[float(q), 1000 * float(c)] for q, c in dict.fromkeys(points)],
    }
    if not ground.has_costs:
        numbers["quality"] = float(np.nanmax(single.quality))
    return Card(numbers, {"aiq": ground.zero_aiq_drawn})


def all_of(ground: Ground) -> dict[str, Card]:
    """Measure every reference policy, by its key in report.json."""
    found = {"random": random(ground)}
    named = singles(ground)
    for name, (column, outcomes) in named.items():
        found[name] = point(ground, outcomes)
        found[name].numbers["model_name"] = ground.test.names[column]
    if "cheapest" not in named:
        found["cheapest"] = Card({"quality": np.nan, "cost_usd_per_1k": np.nan})
    found["zero_router"] = zero_router(ground)
    found["task_oracle"] = with_curve(ground, task_oracle(ground))
    found["oracle"] = with_curve(ground, ground.oracle)
    return found
