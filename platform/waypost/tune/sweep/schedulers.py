"""Ray Tune's schedulers, set up for a router's epochs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from waypost.tune.space import Dimension, Range, TuneConfig

REDUCTION = 3
GRACE = 9
"""A trial is judged first after a ninth of the most epochs."""

PERTURBATIONS = 4
RESAMPLED = 0.25
DEFAULT_EPOCHS = 100


def most_epochs(config: TuneConfig, defaults: Mapping[str, Any]) -> int:
    """Return the most epochs of any trial, by the parameter of that name."""
    if "epochs" in config.space:
        return max(int(value) for value in config.space["epochs"].extremes)
    found = {**defaults, **config.fixed}.get("epochs", DEFAULT_EPOCHS)
    return int(found)


def make_scheduler(config: TuneConfig, epochs: int, changeable: Sequence[str]) -> Any:
    """Build the scheduler.

    Args:
        config: The sweep; its scheduler is not fifo.
        epochs: Most of any trial.
        changeable: Parameters that may change in training.
    """
    from ray.tune import schedulers

    common = {"time_attr": "epoch", "metric": "score", "mode": config.mode}
    if config.scheduler == "asha":
        grace = max(1, round(epochs / GRACE))
        return schedulers.ASHAScheduler(
            **common, max_t=epochs + 1, grace_period=grace, reduction_factor=REDUCTION
        )
    if config.scheduler == "hyperband":
        return schedulers.HyperBandScheduler(**common, max_t=epochs + 1, reduction_factor=REDUCTION)
    space = {name: one for name, one in config.space.items() if name in changeable}
    draw = np.random.default_rng(config.seed)

    def explore(trial: dict[str, Any]) -> dict[str, Any]:
        now = trial["trial"]["changed"].items()
        changed = {key: _near(space[key], value, draw) for key, value in now}
        return {"trial": {**trial["trial"], "changed": changed}}

    return schedulers.PopulationBasedTraining(
        **common,
        perturbation_interval=max(1, epochs // PERTURBATIONS),
        custom_explore_fn=explore,
        log_config=False,
    )


def _near(dimension: Dimension, value: Any, draw: np.random.Generator) -> Any:
    """Return a value near another one, inside the space; sometimes any."""
    if not isinstance(dimension, Range):
        values = dimension.values
        if draw.random() < RESAMPLED:
            return values[int(draw.integers(len(values)))]
        place = values.index(value) + int(draw.choice((-1, 1)))
        return values[min(max(place, 0), len(values) - 1)]
    low, high = dimension.extremes
    if draw.random() < RESAMPLED:
        value = low + draw.random() * (high - low)
        if dimension.type == "loguniform":
            value = low * (high / low) ** draw.random()
    else:
        value *= float(draw.choice((0.8, 1.2)))
    value = min(max(value, low), high)
    return round(value) if dimension.type == "randint" else value
