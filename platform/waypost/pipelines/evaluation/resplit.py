"""A comparison on several splits of one pool: means over seeds, nested intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np

from waypost.contracts.cost import column_mean
from waypost.contracts.errors import ConfigError, Fault
from waypost.contracts.routing_data import read_routing_data
from waypost.contracts.splits import pool, stratified_split
from waypost.encoders import make_encoder
from waypost.metrics.comparison import Comparison, draws_for, lambda_grid
from waypost.metrics.costs import costs_of
from waypost.metrics.curves import hull
from waypost.metrics.intervals import Bootstrap, interval, nested
from waypost.metrics.measure import Measured, compare_quality
from waypost.metrics.predictions import merged
from waypost.metrics.subject_metrics import at_costs, non_inferior
from waypost.metrics.table import BY_KEY, METRICS
from waypost.pipelines.data.embeddings import Progress
from waypost.pipelines.evaluation.inputs import Vectors, read_contenders
from waypost.pipelines.evaluation.kept_calls import KeptCalls
from waypost.pipelines.evaluation.live import LiveSources
from waypost.pipelines.evaluation.questions import Questions
from waypost.pipelines.evaluation.run import EvaluateConfig, Evaluation, Told, compare
from waypost.report.tables import Report

SHARE = 0.2
"""Share of the pool that each split holds out for evaluation."""

SPREAD = ("quality", "delta_best_single", "aiq", "delta_aiq", "cost_save", "cost_usd_per_1k")
"""Numbers whose value for each seed and standard deviation are part of a mean report."""


def evaluate_resplit(
    config: EvaluateConfig,
    data_folder: str | Path,
    progress: Progress | None = None,
    told: Told | None = None,
    kept: KeptCalls | None = None,
) -> tuple[Report, dict[int, Evaluation]]:
    """Split the pool of train and unseen test queries for each seed, fit, compare.

    Args:
        config: What to compare.
        data_folder: Routing data.
        progress: Called with (done, total) embedded texts.
        told: Called with (done, total) routers of all seeds.
        kept: Live calls, those of all seeds together; None compares on the data only.

    Returns:
        The mean report, and each seed's comparison.

    Raises:
        ConfigError: A router is an artifact, which is already fitted on another split.
        SchemaError, WeightsError: See `waypost.pipelines.evaluation.run.evaluate`.
    """
    seeds = config.resplit or ()
    contenders = {seed: read_contenders(config.routers, seed) for seed in seeds}
    if fitted := [one.label for one in contenders[seeds[0]] if one.artifact is not None]:
        raise ConfigError(
            [Fault(name, "is an artifact; --resplit fits, so name routers") for name in fitted]
        )
    folder = Path(data_folder)
    halves = (read_routing_data(folder, split, responses=True) for split in ("train", "test"))
    pooled = pool(*halves)
    vectors = Vectors(make_encoder(config.encoder), folder, progress)
    lambdas = config.lambdas or lambda_grid(column_mean(costs_of(pooled).usd))
    live = None if kept is None else LiveSources(Questions(folder, ("train", "test")), kept)
    total = len(seeds) * len(config.routers)
    found: dict[int, Evaluation] = {}
    for place, seed in enumerate(seeds):

        def told_all(done: int, count: int, before: int = place) -> None:
            if told is not None:
                told(before * count + done, total)

        train, test = stratified_split(pooled, SHARE, seed)
        comparison = Comparison.of(
            pooled.select(train),
            pooled.select(test),
            seed,
            lambdas,
            unseen=~np.isin(pooled.groups[test], pooled.groups[train]),
            bootstrap=Bootstrap.of_groups(pooled.groups, draws_for(len(pooled)), rows=test),
            weak=config.weak,
            strong=config.strong,
        )
        one = config.model_copy(update={"seed": seed})
        found[seed] = compare(one, contenders[seed], comparison, vectors, told_all, live)
    report = cast(Report, mean_report([one.report for one in found.values()]))
    for name, numbers in report["reference"].items():
        _over_seeds(numbers, [one.reference[name] for one in found.values()])
    for name, numbers in report["routers"].items():
        _over_seeds(numbers, [one.routers[name] for one in found.values()])
    _compare_means(report, list(found.values()))
    report["reference"]["zero_router"]["hull"] = _hull(report["llms"])
    report["data_digest"], report["train_digest"] = pooled.digest, None
    report["seed"] = list(seeds)
    report["live"] = _live_of([one.report for one in found.values()])
    report["failed"] = {
        name: f"seed {seed}: {why}"
        for seed, one in reversed(found.items())
        for name, why in one.report["failed"].items()
    }
    return report, found


def _live_of(reports: Sequence[Report]) -> dict[str, dict[str, float]]:
    """Return the sums over the seeds; a call of several splits counts in each."""
    found: dict[str, dict[str, float]] = {}
    for one in reports:
        for name, numbers in one["live"].items():
            row = found.setdefault(name, dict.fromkeys(numbers, 0))
            found[name] = {key: row[key] + numbers[key] for key in row}
    return found


def _hull(llms: Mapping[str, Mapping[str, float]]) -> list[list[float]]:
    """Return ``[quality, dollars]`` of the corners of the hull of the LLMs' means."""
    points = [(one["quality"], one["cost_usd_per_1k"]) for one in llms.values()]
    corners = hull([[cost for _, cost in points]], [[quality for quality, _ in points]])
    found = zip(corners.quality[0], corners.cost[0], strict=True)
    return [[float(q), float(c)] for q, c in dict.fromkeys(found)]


def _compare_means(report: Report, done: Sequence[Evaluation]) -> None:
    """Replace numbers that compare means by the same numbers of the means over the seeds."""
    routers = report["routers"]
    drawn = {name: nested([one.routers[name].draws["quality"] for one in done]) for name in routers}
    report["top"] = compare_quality(routers, drawn, BY_KEY["delta_top"])
    usd = report["reference"]["best_single"]["cost_usd_per_1k"]
    for row in routers.values():
        if not np.isnan(list(row["quality_at_cost"].values())).all():
            row["quality_at_cost"] = at_costs(row["curve"], usd)


def _over_seeds(numbers: dict[str, Any], measured: Sequence[Measured]) -> None:
    """Replace the intervals by nested ones; add each seed's headline and standard deviation."""
    for row in METRICS:
        for prefix, target in (("", numbers), ("unseen.", numbers.get("unseen"))):
            key = f"{prefix}{row.key}"
            if row.interval and target is not None and all(key in one.draws for one in measured):
                ends = interval(nested([one.draws[key] for one in measured]))
                target.update(zip(row.interval, ends, strict=True))
    if "non_inferior" in numbers:
        numbers["non_inferior"] = non_inferior(numbers["delta_low"])
        numbers["mcnemar_p"] = numbers["mcnemar_p_holm"] = None
    by_seed = {key: [one.numbers[key] for one in measured] for key in SPREAD if key in numbers}
    numbers["seeds"] = by_seed
    numbers["sd"] = {
        key: float(np.std(values, ddof=1)) if len(values) > 1 else np.nan
        for key, values in by_seed.items()
    }


def mean_report(reports: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Average reports of the same structure, number by number.

    A number that is None in one report is None. Keys that some reports lack (a router that failed
    on one seed) are left out, except tasks, which are averaged over the seeds that have them.
    Different texts are joined.
    """
    mean: dict[str, Any] = _mean(reports)
    return mean


def _mean(values: Sequence[Any], key: str = "") -> Any:
    first = values[0]
    if key == "reliability":
        return merged(list(values))
    if any(value is None for value in values):
        return None
    if isinstance(first, Mapping):
        keys = dict.fromkeys(name for value in values for name in value)
        some = key == "tasks"
        return {
            name: _mean([value[name] for value in values if name in value], name)
            for name in keys
            if some or all(name in value for value in values)
        }
    if isinstance(first, list):
        alike = all(len(value) == len(first) for value in values)
        return [_mean(items) for items in zip(*values, strict=True)] if alike else None
    if isinstance(first, bool):
        return first if all(value == first for value in values) else None
    if isinstance(first, str):
        return ", ".join(dict.fromkeys(values))
    mean = float(np.mean(values))
    return int(mean) if isinstance(first, int) and mean.is_integer() else mean
