"""The report as data: what report.json holds, NaN where a number cannot be computed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from waypost.pipelines.evaluation.ground import CURVE_DRAWS, MOST_UNKNOWN, Ground
from waypost.pipelines.evaluation.headline import Card, task_rows
from waypost.pipelines.evaluation.probes import REWRITTEN, TIMED
from waypost.pipelines.evaluation.two_models import LEAST_ERRORS, pair
from waypost.pipelines.evaluation.versus import add_versus


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
