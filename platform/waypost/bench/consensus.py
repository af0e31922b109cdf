"""Measure routing that compares answers beside agreement rules and routing by the query alone.

On recorded answers, with the data split again for each seed. Everything is chosen on the training
part: the rule by its training quality among those within the best single LLM's cost, the cost
weights by the dollars of out-of-sample predictions. A second table leaves some tasks out of
training and asks only them.

Example: waypost bench consensus --data ../shared/data/mmlu_pro --seeds 1
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import DirectoryPath, Field

from waypost.bench import harness
from waypost.bench.harness import Aim, Result, Table, Tell, at_least, at_most
from waypost.contracts.errors import SchemaError
from waypost.contracts.routing_data import RoutingData, read_routing_data
from waypost.contracts.splits import pool, stratified_split
from waypost.contracts.types import Floats
from waypost.encoders import make_encoder
from waypost.metrics.comparison import look_up
from waypost.metrics.intervals import Bootstrap, interval, nested
from waypost.pipelines.evaluation import replay
from waypost.pipelines.evaluation.lambda_curve import sweep
from waypost.pipelines.evaluation.resplit import SHARE
from waypost.registry import make_router
from waypost.tune.consensus.grouping import groups_of
from waypost.tune.consensus.router import ConsensusRouter
from waypost.tune.consensus.rules import follow_rule, measure_rules

SINGLE, RULE = "best single LLM", "best agreement rule at its cost"
QUERY, OURS = "the query alone, at its cost", "consensusrouter, at its cost"
HALF, HALF_RULE = "consensusrouter, at half of it", "best agreement rule at half of it"
FREE, FREE_QUERY = "consensusrouter, lambda 0", "the query alone, lambda 0"
DRAWS = 2000
_WEIGHTS = tuple(float(f"{lam:.3g}") for lam in np.geomspace(0.005, 2, 40))


class Options(harness.Options):
    """Options of ``waypost bench consensus``."""

    data: DirectoryPath = Field(description="Routing data with answers: train and test.")
    seeds: int = Field(5, ge=1, le=20, description="Number of splits, from seed 0 on.")
    left_out: int = Field(4, ge=0, description="Tasks left out of training in the second table.")
    base: str = Field("svmrouter", description="Base router, which is also the query-only one.")
    encoder: str = Field("static", description="Query encoder.")
    least: int = Field(200, ge=8, description="Least questions of a training part.")


QUICK = {"seeds": 1, "left_out": 1, "base": "taskrouter", "encoder": "hashing", "least": 8}


@dataclass(frozen=True, eq=False)
class Played:
    """Outcomes of one policy on the test questions, (n,) each."""

    quality: Floats
    usd: Floats
    calls: Floats
    seconds: Floats | None = None


@dataclass(frozen=True, eq=False)
class Seed:
    """One split: its test rows of the pool, and the policies on them."""

    rows: NDArray[np.intp]
    played: Mapping[str, Played]


def run(options: Options, tell: Tell) -> Result:
    """Split, fit and replay for each seed, on all tasks and on tasks left out of training.

    Raises:
        SchemaError: The data has no answers, or too few questions or tasks.
    """
    halves = (read_routing_data(options.data, split, responses=True) for split in ("train", "test"))
    data = pool(*halves)
    encoder = make_encoder(options.encoder)
    tell("embeddings")
    data = data.with_embeddings(encoder.encode(data.queries), encoder.id)
    seen, unseen = [], []
    for seed in range(options.seeds):
        tell(f"seed {seed}: all tasks")
        train, test = stratified_split(data, SHARE, seed)
        seen.append(play(options, data, train, test, seed))
        if options.left_out:
            tell(f"seed {seed}: tasks left out")
            train, test = without_tasks(data, options.left_out, seed)
            unseen.append(play(options, data, train, test, seed))
    return _result(options, data, seen, unseen)


def without_tasks(
    data: RoutingData, count: int, seed: int
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return the rows of training and test; the test asks ``count`` tasks that training lacks.

    Raises:
        SchemaError: the data has too few tasks.
    """
    tasks = sorted(set(data.task_names))
    if len(tasks) <= count:
        raise SchemaError(f"left_out: {count} of {len(tasks)} tasks cannot be left out")
    chosen = np.random.default_rng(seed).permutation(len(tasks))[:count]
    out = np.isin(np.array(data.task_names), np.array(tasks)[chosen])
    shared = np.isin(data.groups, data.groups[out]) & ~out  # no near-duplicate in both
    return np.flatnonzero(~out & ~shared), np.flatnonzero(out)


def play(
    options: Options,
    data: RoutingData,
    train: NDArray[np.intp],
    test: NDArray[np.intp],
    seed: int,
) -> Seed:
    """Fit on the training rows and return every policy's outcomes on the test rows."""
    if len(train) < options.least:
        raise SchemaError(
            f"{options.data}: {len(train)} training questions; {options.least} needed"
        )
    training, asked = data.select(train), data.select(test)
    router = make_router("consensusrouter", {"base": options.base, "seed": seed})
    assert isinstance(router, ConsensusRouter)
    router.encoder = make_encoder(options.encoder)
    router.fit(training)
    best = int(np.argmax(router.mean_quality_))
    budget = float(np.nanmean(training.cost_usd[:, best]))
    played = {SINGLE: _of(look_up(asked, np.full(len(asked), best, np.intp)))}
    rules = measure_rules(groups_of(training, "bench"), training.quality)
    mean_usd = np.nanmean(training.cost_usd, axis=0)
    groups, cost = groups_of(asked, "bench"), np.nan_to_num(asked.cost_usd)
    for name, limit in ((RULE, budget), (HALF_RULE, budget / 2)):
        within = rules.usd(mean_usd) <= limit * (1 + 1e-9)
        rule = rules.llms[int(np.argmax(np.where(within, rules.quality, -np.inf)))]
        quality, usd = follow_rule(rule, groups, asked.quality, cost)
        calls = np.where(usd > cost[:, rule[0]] + cost[:, rule[1]] + 1e-15, 3.0, 2.0)
        played[name] = Played(quality, usd, calls if rule[0] != rule[1] else calls * 0 + 1)
    for name, limit in ((OURS, budget), (HALF, budget / 2)):
        lam = weight_for(router.report_["by_lambda"], 1000 * limit)
        played[name] = _of(replay.outcomes(router, asked, lam))
    played[FREE] = _of(replay.outcomes(router, asked, 0.0))
    alone = sweep(router.base_, training, _WEIGHTS)
    spent = [float(np.nanmean(one.cost_usd)) for one in alone.outcomes]
    lam = weight_for(
        [{"lambda": x, "usd_per_1k": 1000 * y} for x, y in zip(_WEIGHTS, spent, strict=True)],
        1000 * budget,
    )
    free, limited = sweep(router.base_, asked, (0.0, lam)).outcomes
    return Seed(test, {**played, QUERY: _of(limited), FREE_QUERY: _of(free)})


def weight_for(curve: Sequence[Mapping[str, Any]], usd: float) -> float:
    """Return the cost weight at which a curve of dollars that fall with it reaches ``usd``."""
    lam = [row["lambda"] for row in curve]
    spent = np.minimum.accumulate([row["usd_per_1k"] for row in curve])
    if spent[0] <= usd:
        return float(lam[0])
    return float(np.interp(-usd, -spent, lam))


def _of(found: Any) -> Played:
    calls = np.ones(len(found.quality)) if found.calls is None else found.calls.astype(np.float64)
    return Played(np.nan_to_num(found.quality), found.cost_usd, calls, found.seconds)


# -- figures --------------------------------------------------------------------------------------


def _result(
    options: Options, data: RoutingData, seen: Sequence[Seed], unseen: Sequence[Seed]
) -> Result:
    figures: dict[str, Any] = {"all_tasks": _figures(data, seen)}
    tables = [_table("All tasks in training", figures["all_tasks"])]
    if unseen:
        figures["tasks_left_out"] = _figures(data, unseen)
        title = f"{options.left_out} tasks left out of training, only these asked"
        tables.append(_table(title, figures["tasks_left_out"]))
    facts = (
        f"{len(data)} questions of {options.data}, {options.seeds} splits (a fifth asked); base "
        f"router {options.base}, encoder {options.encoder}. A cost weight is the one at which "
        "out-of-sample training questions cost as much as the best single LLM, or half of it; the "
        "rule is the best of training within that cost. USD per 1,000 questions. Intervals draw "
        "near-duplicates together, and the splits."
    )
    return Result(tables, facts, _aims(figures), figures)


def _figures(data: RoutingData, seeds: Sequence[Seed]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name in seeds[0].played:
        row = {
            key: float(np.mean([np.nanmean(getattr(one.played[name], key)) for one in seeds]))
            for key in ("quality", "calls")
        }
        usd = [np.nanmean(one.played[name].usd) for one in seeds]
        base = [np.nanmean(one.played[SINGLE].usd) for one in seeds]
        row["usd_per_1k"] = 1000 * float(np.mean(usd))
        row["cost_share"] = float(np.mean(usd) / np.mean(base))
        found[name] = {**row, "over_single": _gain(data, seeds, name, SINGLE)}
    for one, other in (
        (OURS, RULE),
        (HALF, HALF_RULE),
        (HALF, SINGLE),
        (OURS, QUERY),
        (FREE, FREE_QUERY),
    ):
        found[one][f"over {other}"] = _gain(data, seeds, one, other)
    return found


def _gain(data: RoutingData, seeds: Sequence[Seed], one: str, other: str) -> dict[str, float]:
    apart = [s.played[one].quality - s.played[other].quality for s in seeds]
    drawn = [
        Bootstrap.of_groups(data.groups, DRAWS, rows=s.rows).means(values)[:, 0]
        for s, values in zip(seeds, apart, strict=True)
    ]
    low, high = interval(nested(drawn))
    return {"mean": float(np.mean([values.mean() for values in apart])), "low": low, "high": high}


def _table(title: str, figures: Mapping[str, Any]) -> Table:
    heads = ("policy", "quality", "over best single", "USD per 1k", "cost share", "calls")
    rows = [
        [
            name,
            f"{row['quality']:.3f}",
            _signed(row["over_single"]),
            f"{row['usd_per_1k']:.3f}",
            f"{row['cost_share']:.2f}",
            f"{row['calls']:.2f}",
        ]
        for name, row in figures.items()
    ]
    return Table(title, heads, rows)


def _signed(gain: Mapping[str, float]) -> str:
    return f"{gain['mean']:+.4f} [{gain['low']:+.4f}, {gain['high']:+.4f}]"


def _aims(figures: Mapping[str, Any]) -> list[Aim]:
    seen = figures["all_tasks"]
    over = seen[OURS][f"over {RULE}"]
    aims = [
        at_least("at the best single's cost: quality over the best rule", over["mean"], 0.01),
        at_least("the same, lower end of its interval", over["low"], 0.0),
        at_most("at the best single's cost: share of its dollars", seen[OURS]["cost_share"], 1.02),
        at_least(
            "at half its cost: quality over best single", seen[HALF]["over_single"]["mean"], 0.0
        ),
        at_least(
            "upper end of quality over the query alone, at its cost",
            seen[OURS][f"over {QUERY}"]["high"],
            0.0,
        ),
        at_least(
            "upper end of quality over the query alone, lambda 0",
            seen[FREE][f"over {FREE_QUERY}"]["high"],
            0.0,
        ),
    ]
    if "tasks_left_out" in figures:
        gain = figures["tasks_left_out"][OURS]["over_single"]
        aims.append(
            at_least("tasks left out: quality over best single at its cost", gain["mean"], 0.02)
        )
    return aims
