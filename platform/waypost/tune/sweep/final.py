"""After the choice: the winner is fitted on the whole training split, and tested once."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from waypost.contracts.tables import split_path
from waypost.metrics.intervals import interval
from waypost.pipelines.evaluate import EvaluateConfig, evaluate
from waypost.pipelines.evaluation.headline import Card
from waypost.pipelines.train import TrainConfig, train
from waypost.tune.space import TuneConfig
from waypost.tune.sweep.measuring import fit

BEST = "best"


def refit(
    config: TuneConfig,
    parameters: Mapping[str, Any],
    tuning: Mapping[str, Any],
    data: Path,
    target: Path,
    schedule: list[Any] | None = None,
) -> None:
    """Train a setting as ``waypost train`` does and write its artifact.

    Args:
        config: The sweep.
        parameters: Of the router.
        tuning: What the manifest's metrics say of the sweep; JSON-able.
        data: Routing data.
        target: The artifact.
        schedule: Changes of parameters while it is trained; see `measuring.fit`.

    Raises:
        WaypostError: as `train`.
    """
    wanted = TrainConfig(
        router=config.router,
        parameters=dict(parameters),
        encoder=config.encoder,
        seed=config.seed,
        folds=0,
    )
    by = partial(fit, schedule=schedule or [])
    train(wanted, data, target, further={"tuning": dict(tuning)}, fit=by)


def on_test(
    config: TuneConfig, data: Path, tuned: Path, default: Path | None, trials: int
) -> dict[str, Any] | None:
    """Measure the tuned router and, where it is another one, the default on the test split.

    Args:
        config: The sweep.
        data: Routing data.
        tuned: Artifact of the winner.
        default: Artifact of the default; None where the default won.
        trials: How many were tried.

    Returns:
        Numbers by router, and tuned less default with paired 95 % intervals; None where the
        folder holds no test split.
    """
    if not split_path(data, "test").is_file():
        return None
    artifacts = (tuned, default) if default is not None else (tuned,)
    asked = EvaluateConfig(
        routers=tuple(str(path.absolute()) for path in artifacts),
        encoder=config.encoder,
        seed=config.seed,
    )
    done = evaluate(asked, data)
    labels = ("tuned", "default")
    cards: dict[str, Card] = dict(zip(labels, done.cards.values(), strict=False))
    if done.report["failed"] or len(cards) < len(artifacts):
        return {"queries": len(done.ground.test), "trials": trials, "failed": done.report["failed"]}
    found: dict[str, Any] = {"queries": len(done.ground.test), "trials": trials}
    shown = {name: card.numbers for name, card in cards.items()}
    single = done.reference["best_single"].numbers
    for key in ("quality", "aiq", "cost_usd_per_1k"):
        found[key] = {name: numbers.get(key) for name, numbers in shown.items()}
        found[key]["best single LLM"] = single.get(key)
    if default is not None:
        for key, prefix in (("quality", ""), ("aiq", "aiq_")):
            found |= _difference(cards["tuned"], cards["default"], key, prefix)
    return found


def _difference(tuned: Card, default: Card, key: str, prefix: str) -> dict[str, float | None]:
    """Return tuned less default; draws are of the same questions, so they are paired."""
    found: dict[str, float | None] = {
        f"{prefix}difference": tuned.numbers[key] - default.numbers[key],
        f"{prefix}low": None,
        f"{prefix}high": None,
    }
    if key in tuned.draws and key in default.draws:
        low, high = interval(np.asarray(tuned.draws[key]) - np.asarray(default.draws[key]))
        found |= {f"{prefix}low": low, f"{prefix}high": high}
    return found
