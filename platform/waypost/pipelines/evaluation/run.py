"""The report as data: what report.json holds, NaN where a number cannot be computed."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from pydantic import Field, field_validator

from waypost.config import StrictModel
from waypost.contracts.errors import SchemaError
from waypost.contracts.routing_data import read_routing_data
from waypost.encoders import EncoderSpec, make_encoder
from waypost.metrics.intervals import holm
from waypost.pipelines.data.embeddings import Progress
from waypost.pipelines.evaluation import baselines
from waypost.pipelines.evaluation.comparison import CURVE_DRAWS, MOST_UNKNOWN, Ground
from waypost.pipelines.evaluation.headline import Card, add_versus, task_rows
from waypost.pipelines.evaluation.inputs import (
    Contender,
    Ready,
    Vectors,
    prepare,
    read_contenders,
    reason,
)
from waypost.pipelines.evaluation.lambda_curve import COST_ALONE, sweep
from waypost.pipelines.evaluation.latency_and_flips import (
    REWRITTEN,
    TIMED,
    decision_ms,
    flip_rate,
    sample,
)
from waypost.pipelines.evaluation.router_metrics import LEAST_ERRORS, card, pair


class _Config(Protocol):
    @property
    def split(self) -> str: ...

    @property
    def seed(self) -> int: ...


def assemble(
    ground: Ground,
    config: _Config,
    reference: Mapping[str, Card],
    cards: Mapping[str, Card],
    failed: Mapping[str, str],
) -> dict[str, Any]:
    """Put a comparison's numbers into the form of report.json.

    Dollars are those of 1,000 queries, in curves, too. ``cost_ref_usd_per_1k`` is the mean cost of
    the training split's dearest LLM, C_ref of the utility quality - lambda * cost / C_ref.
    """
    test = ground.test
    seen = [q for q, new in zip(test.query_ids, ground.unseen, strict=True) if not new]
    return {
        "data_digest": ground.digest,
        "train_digest": ground.train.digest,
        "split": config.split,
        "n_queries": len(test),
        "n_train": len(ground.train),
        "seed": config.seed,
        "cost_basis": ground.basis,
        "cost_ref_usd_per_1k": 1000 * ground.cost_ref,
        "leaks": {"count": len(seen), "query_ids": seen},
        "llms": _llms(ground),
        "tasks": {task: len(rows) for task, rows in task_rows(ground).items()},
        "two_models": pair(ground),
        "top": add_versus(
            {name: one.numbers for name, one in cards.items()},
            {name: one.draws["quality"] for name, one in cards.items()},
        ),
        "reference": {name: one.numbers for name, one in reference.items()},
        "routers": {name: one.numbers for name, one in cards.items()},
        "failed": dict(failed),
        "how": {
            "bootstrap_draws": ground.bootstrap.draws,
            "curve_draws": CURVE_DRAWS,
            "most_unknown_cost": MOST_UNKNOWN,
            "least_gap_errors": LEAST_ERRORS,
            "timed": min(TIMED, len(test)),
            "rewritten": min(REWRITTEN, len(test)),
        },
    }


def _llms(ground: Ground) -> dict[str, dict[str, Any]]:
    rows = zip(
        ground.test.names,
        ground.singles.quality[0],
        ground.singles.cost[0],
        ground.prices,
        strict=True,
    )
    return {
        name: {"quality": float(q), "cost_usd_per_1k": 1000 * float(c), "list_price": float(p)}
        for name, q, c, p in rows
    }


logger = logging.getLogger(__name__)

Told = Callable[[int, int], None]
"""Told (done, total) routers."""


class EvaluateConfig(StrictModel):
    """One comparison.

    Attributes:
        routers: Artifacts and registry names; see `read_contenders`.
        split: Which rows are decided.
        encoder: Query encoder of the routers that are fitted here.
        seed: Of routers, draws and perturbations.
        resplit: Seeds of splits; see `waypost.pipelines.evaluation.resplit`. None takes the
            folder's splits.
        lambdas: Cost weights; None takes a scale that reaches the cheapest LLM.
        allow_plugin_code: Run plug-in code packed in artifacts.
    """

    routers: tuple[str, ...] = Field(min_length=1)
    split: Literal["test", "validation"] = "test"
    encoder: str | EncoderSpec = "static"
    seed: int = Field(default=0, ge=0)
    resplit: tuple[int, ...] | None = Field(default=None, min_length=1)
    lambdas: tuple[float, ...] | None = None
    allow_plugin_code: bool = False

    @field_validator("resplit")
    @classmethod
    def _different(cls, seeds: tuple[int, ...] | None) -> tuple[int, ...] | None:
        if seeds is not None and (min(seeds) < 0 or len(set(seeds)) < len(seeds)):
            raise ValueError("expected different whole numbers of at least 0")
        return seeds

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
        report: What report.json holds; NaN where a number cannot be computed.
        reference: Of the reference policies, by key.
        cards: Of the routers that were measured, by label.
        ground: What they were measured against.
    """

    report: dict[str, Any]
    reference: dict[str, Card] = field(repr=False)
    cards: dict[str, Card] = field(repr=False)
    ground: Ground = field(repr=False)


def evaluate(
    config: EvaluateConfig,
    data_folder: str | Path,
    progress: Progress | None = None,
    told: Told | None = None,
) -> Evaluation:
    """Compare routers on a routing-data folder.

    Args:
        config: What to compare.
        data_folder: Routing data; routers that are fitted here learn from its training split.
        progress: Told (done, total) embedded texts.
        told: Told (done, total) routers.

    Raises:
        ConfigError: an argument names no router, or a parameter is wrong.
        SchemaError, WeightsError: data or encoder cannot be had. What goes wrong with one router
            does not end the comparison and stands in the report.
    """
    contenders = read_contenders(config.routers, config.seed)
    folder = Path(data_folder)
    train = read_routing_data(folder, "train")
    test = read_routing_data(folder, config.split)
    vectors = Vectors(make_encoder(config.encoder), folder, progress)
    ground = Ground.of(train, test, config.seed, config.lambdas)
    return compare(config, contenders, ground, vectors, told)


def compare(
    config: EvaluateConfig,
    contenders: Sequence[Contender],
    ground: Ground,
    vectors: Vectors,
    told: Told | None = None,
) -> Evaluation:
    """Compare routers on splits at hand.

    Args:
        config: What to compare.
        contenders: The routers.
        ground: Splits, costs and draws.
        vectors: Embeds the queries.
        told: Told (done, total) routers.
    """
    cards: dict[str, Card] = {}
    failed: dict[str, str] = {}
    for done, one in enumerate(contenders):
        if told is not None:
            told(done, len(contenders))
        try:
            ready = prepare(one, ground.train, vectors, allow_plugin_code=config.allow_plugin_code)
            cards[one.label] = _measure(config, ready, ground, vectors)
        # A router may be anybody's code, and one that fails must not end the others.
        except Exception as error:
            logger.debug("%s failed", one.label, exc_info=True)
            failed[one.label] = reason(error).removeprefix(f"{one.router}: ")
    _correct(cards)
    reference = baselines.all_of(ground)
    report = assemble(ground, config, reference, cards, failed)
    return Evaluation(report, reference, cards, ground)


def _measure(config: EvaluateConfig, ready: Ready, ground: Ground, vectors: Vectors) -> Card:
    data = vectors.for_router(ready.router, ground.test)
    swept = sweep(ready.router, data, ground.lambdas)
    found = card(ground, swept)
    if found.numbers["not_measured"] == len(ground.test):
        raise SchemaError("none of its choices was measured in the data")
    queries = ground.test.queries
    p50, p99 = decision_ms(ready.router, sample(queries, TIMED, config.seed))
    rewritten = sample(queries, REWRITTEN, config.seed)
    flips = flip_rate(ready.router, rewritten, vectors, config.seed)
    found.numbers.update(
        decision_ms_p50=p50,
        decision_ms_p99=p99,
        flip_rate=sum(flips.values()) / len(flips),
        flips=flips,
        fit_s=ready.fit_s,
        trained_on=ready.trained_on,
        router=ready.router.name,
        version=ready.router.version,
    )
    return found


def _correct(cards: Mapping[str, Card]) -> None:
    tested = {name: c.numbers["mcnemar_p"] for name, c in cards.items()}
    corrected = holm({name: p for name, p in tested.items() if not math.isnan(p)})
    for name, one in cards.items():
        one.numbers["mcnemar_p_holm"] = corrected.get(name)
