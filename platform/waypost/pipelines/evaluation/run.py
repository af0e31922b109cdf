"""Compare routers on routing data: fit or load each, replay its choices, measure them."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field, field_validator

from waypost.config import StrictModel
from waypost.contracts.errors import SchemaError
from waypost.contracts.router import TrainableRouter
from waypost.contracts.routing_data import read_routing_data
from waypost.contracts.step_router import StepRouter
from waypost.encoders import EncoderSpec, make_encoder
from waypost.metrics.comparison import COST_ALONE, CURVE_DRAWS, MOST_UNKNOWN, Comparison, Sweep
from waypost.metrics.intervals import holm
from waypost.metrics.latency_and_flips import REWRITTEN, TIMED, Live
from waypost.metrics.measure import Measured, Numbers, Subject, compare_quality, measure
from waypost.metrics.subject_metrics import LEAST_ERRORS
from waypost.metrics.table import BY_KEY, METRICS
from waypost.pipelines.data.embeddings import Progress
from waypost.pipelines.evaluation import baselines
from waypost.pipelines.evaluation.inputs import (
    Contender,
    Ready,
    Vectors,
    prepare,
    read_contenders,
    reason,
)
from waypost.pipelines.evaluation.kept_calls import KeptCalls
from waypost.pipelines.evaluation.lambda_curve import sweep
from waypost.pipelines.evaluation.live import LiveCalls, LiveSources, sweep_episodes
from waypost.pipelines.evaluation.questions import Questions
from waypost.report.tables import Report

logger = logging.getLogger(__name__)

Told = Callable[[int, int], None]
"""Called with (done, total) routers."""


class EvaluateConfig(StrictModel):
    """One comparison.

    Attributes:
        routers: Artifacts and registry names; see `read_contenders`.
        split: Split to evaluate on.
        encoder: Query encoder of the routers that are fitted here.
        seed: Seed of routers, draws and perturbations.
        resplit: Seeds of splits; see `waypost.pipelines.evaluation.resplit`. None uses the
            folder's splits.
        lambdas: Cost weights; None uses a scale that reaches the cheapest LLM.
        metrics: Keys of slow metrics to compute in addition to the others.
        weak, strong: The two LLMs of RouteLLM's metrics. Null: strong is the best single LLM, weak
            the cheapest, else the smallest, else the one with the lowest training mean.
        pool: Serve file, or file of a data run, whose LLMs answer the calls of routers in steps
            that the data does not have; None makes no call.
        allow_plugin_code: Run plug-in code packed in artifacts.
    """

    routers: tuple[str, ...] = Field(min_length=1)
    split: Literal["test", "validation"] = "test"
    encoder: str | EncoderSpec = "static"
    seed: int = Field(default=0, ge=0)
    resplit: tuple[int, ...] | None = Field(default=None, min_length=1)
    lambdas: tuple[float, ...] | None = None
    metrics: tuple[str, ...] = ()
    weak: str | None = None
    strong: str | None = None
    pool: str | None = None
    allow_plugin_code: bool = False

    @field_validator("resplit")
    @classmethod
    def _different(cls, seeds: tuple[int, ...] | None) -> tuple[int, ...] | None:
        if seeds is not None and (min(seeds) < 0 or len(set(seeds)) < len(seeds)):
            raise ValueError("expected different whole numbers of at least 0")
        return seeds

    @field_validator("metrics")
    @classmethod
    def _of_the_table(cls, metrics: tuple[str, ...]) -> tuple[str, ...]:
        if unknown := [key for key in metrics if key not in BY_KEY]:
            raise ValueError(
                f"{unknown[0]!r} is not a metric; `docs/reference/metrics.md` lists them"
            )
        return metrics

    @field_validator("lambdas")
    @classmethod
    def _from_zero(cls, lambdas: tuple[float, ...] | None) -> tuple[float, ...] | None:
        if lambdas is None:
            return None
        if not all(lam >= 0 for lam in lambdas):
            raise ValueError("expected numbers of at least 0")
        return tuple(sorted({0.0, *(min(lam, COST_ALONE) for lam in lambdas)}))


@dataclass(frozen=True, eq=False)
class Evaluation:
    """One comparison's result.

    Attributes:
        report: Content of report.json; NaN where a number cannot be computed.
        reference: Numbers of the reference policies, by key.
        routers: Numbers of the measured routers, by label.
        comparison: Splits, costs and draws of the comparison.
    """

    report: Report
    reference: dict[str, Measured] = field(repr=False)
    routers: dict[str, Measured] = field(repr=False)
    comparison: Comparison = field(repr=False)


def evaluate(
    config: EvaluateConfig,
    data_folder: str | Path,
    progress: Progress | None = None,
    told: Told | None = None,
    kept: KeptCalls | None = None,
    routers: Sequence[str | TrainableRouter] | None = None,
) -> Evaluation:
    """Compare routers on a routing-data folder.

    Args:
        config: What to compare.
        data_folder: Routing data; routers named in the config are fitted on its training split.
        progress: Called with (done, total) embedded texts.
        told: Called with (done, total) routers.
        kept: Live calls; None compares on the data only, of a router with `decides_alone` the
            single-round choice.
        routers: Routers in place of those of the config; fitted ones may be among them.

    Raises:
        ConfigError: A router is unknown, or a parameter is invalid.
        SchemaError, WeightsError: Data or encoder cannot be loaded. The failure of one router is
            part of the report and does not end the comparison.
    """
    contenders = read_contenders(routers or config.routers, config.seed)
    folder = Path(data_folder)
    train = read_routing_data(folder, "train", responses=True)
    test = read_routing_data(folder, config.split, responses=True)
    vectors = Vectors(make_encoder(config.encoder), folder, progress)
    comparison = Comparison.of(
        train, test, config.seed, config.lambdas, weak=config.weak, strong=config.strong
    )
    live = None if kept is None else LiveSources(Questions(folder, (config.split,)), kept)
    return compare(config, contenders, comparison, vectors, told, live)


def compare(
    config: EvaluateConfig,
    contenders: Sequence[Contender],
    comparison: Comparison,
    vectors: Vectors,
    told: Told | None = None,
    live: LiveSources | None = None,
) -> Evaluation:
    """Compare routers on given splits.

    Args:
        config: What to compare.
        contenders: The routers.
        comparison: Splits, costs and draws.
        vectors: Embeddings of the queries.
        told: Called with (done, total) routers.
        live: Sources of the calls of routers in steps; None is the data only.
    """
    made: dict[str, Numbers] = {}
    routers: dict[str, Measured] = {}
    failed: dict[str, str] = {}
    for done, one in enumerate(contenders):
        if told is not None:
            told(done, len(contenders))
        try:
            ready = prepare(
                one, comparison.train, vectors, allow_plugin_code=config.allow_plugin_code
            )
            swept, calls = _sweep(config, ready.router, comparison, vectors, live)
            if calls is not None:
                made[one.label] = asdict(calls)
            routers[one.label] = _measure(config, ready, comparison, vectors, swept, calls)
        # Routers can be third-party code; one that fails must not end the others.
        except Exception as error:
            logger.debug("%s failed", one.label, exc_info=True)
            failed[one.label] = reason(error).removeprefix(f"{one.router}: ")
    _correct(routers)
    reference = baselines.all_of(comparison)
    report = assemble(comparison, config, reference, routers, failed, made)
    return Evaluation(report, reference, routers, comparison)


def _measure(
    config: EvaluateConfig,
    ready: Ready,
    comparison: Comparison,
    vectors: Vectors,
    swept: Sweep,
    calls: LiveCalls | None,
) -> Measured:
    router, again = ready.router, ready.refit
    live = Live(
        router.route_single,
        partial(vectors.choose, router),
        config.seed,
        ready.fit_s,
        None if again is None else lambda: partial(vectors.choose, again()),
    )
    subject = Subject(comparison, swept, live)
    if np.isnan(subject.first.quality).all():
        raise SchemaError(_why_unmeasured(calls, len(comparison.test)))
    found = measure(subject, METRICS, config.metrics)
    found.numbers.update(trained_on=ready.trained_on, router=router.name, version=router.version)
    return found


def _sweep(
    config: EvaluateConfig,
    router: TrainableRouter,
    comparison: Comparison,
    vectors: Vectors,
    sources: LiveSources | None,
) -> tuple[Sweep, LiveCalls | None]:
    data = vectors.for_router(router, comparison.test)
    if sources is None or not isinstance(router, StepRouter):
        return sweep(router, data, comparison.lambdas), None
    given = config.lambdas is not None
    return sweep_episodes(router, data, comparison.lambdas, sources, given=given)


def _why_unmeasured(calls: LiveCalls | None, n: int) -> str:
    if calls is None:
        return "none of its choices was measured in the data"
    if calls.left:
        return f"the budget ran out: {calls.unanswered} of {n} questions have no answer"
    if calls.not_scored:
        return (
            f"{calls.not_scored} answers cannot be scored: the data lacks the columns metric and "
            "ground_truth of their questions, or a scorer failed"
        )
    return f"{calls.failed} of {calls.calls} live calls failed, and no question has an answer"


def _correct(routers: Mapping[str, Measured]) -> None:
    tested = {name: c.numbers["mcnemar_p"] for name, c in routers.items()}
    corrected = holm({name: p for name, p in tested.items() if not math.isnan(p)})
    for name, one in routers.items():
        one.numbers["mcnemar_p_holm"] = corrected.get(name)


def assemble(
    comparison: Comparison,
    config: EvaluateConfig,
    reference: Mapping[str, Measured],
    routers: Mapping[str, Measured],
    failed: Mapping[str, str],
    live: Mapping[str, Numbers],
) -> Report:
    """Return the content of report.json.

    All dollars are per 1,000 queries, also in curves. ``cost_ref_usd_per_1k`` is the mean cost of
    the most expensive LLM of the training split: C_ref of quality - lambda * cost / C_ref.
    """
    test = comparison.test
    seen = [q for q, new in zip(test.query_ids, comparison.unseen, strict=True) if not new]
    return {
        "data_digest": comparison.digest,
        "train_digest": comparison.train.digest,
        "split": config.split,
        "n_queries": len(test),
        "n_train": len(comparison.train),
        "seed": config.seed,
        "cost_basis": comparison.basis,
        "cost_ref_usd_per_1k": 1000 * comparison.cost_ref,
        "leaks": {"count": len(seen), "query_ids": seen},
        "llms": _llms(comparison),
        "tasks": {task: len(rows) for task, rows in comparison.task_rows.items()},
        "two_models": comparison.two_models,
        "top": compare_quality(
            {name: one.numbers for name, one in routers.items()},
            {name: one.draws["quality"] for name, one in routers.items()},
            BY_KEY["delta_top"],
        ),
        "reference": {name: one.numbers for name, one in reference.items()},
        "routers": {name: one.numbers for name, one in routers.items()},
        "failed": dict(failed),
        "live": dict(live),
        "how": {
            "bootstrap_draws": comparison.bootstrap.draws,
            "curve_draws": CURVE_DRAWS,
            "most_unknown_cost": MOST_UNKNOWN,
            "least_gap_errors": LEAST_ERRORS,
            "timed": min(TIMED, len(test)),
            "rewritten": min(REWRITTEN, len(test)),
        },
    }


def _llms(comparison: Comparison) -> dict[str, dict[str, Any]]:
    rows = zip(
        comparison.test.names,
        comparison.singles.quality[0],
        comparison.singles.cost[0],
        comparison.prices,
        strict=True,
    )
    return {
        name: {"quality": float(q), "cost_usd_per_1k": 1000 * float(c), "list_price": float(p)}
        for name, q, c, p in rows
    }
