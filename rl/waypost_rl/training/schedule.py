"""What a step draws: its questions, their weights of cost, and its seeds. Pure.

All of it is a function of the run's seed and the step, so that a continued run draws what an
unbroken one draws.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

_QUESTIONS, _ALPHAS, _STEP = range(3)


def questions_of(step: int, batch: int, count: int, seed: int) -> list[int]:
    """Return the places of a step's questions.

    Every question is drawn once before one is drawn again; each pass has an order of its own.

    Args:
        step: Step, from 0.
        batch: Questions of a step.
        count: Number of all questions, at least 1.
        seed: Of the run.
    """
    orders: dict[int, list[int]] = {}
    chosen = []
    for at in range(step * batch, (step + 1) * batch):
        epoch, place = divmod(at, count)
        if epoch not in orders:
            random = np.random.default_rng([seed, _QUESTIONS, epoch])
            orders[epoch] = random.permutation(count).tolist()
        chosen.append(orders[epoch][place])
    return chosen


def alphas_of(step: int, batch: int, alphas: Sequence[float], seed: int) -> list[float]:
    """Return the weight of cost of each episode of a step, drawn uniformly from ``alphas``."""
    random = np.random.default_rng([seed, _ALPHAS, step])
    return [float(alphas[at]) for at in random.integers(len(alphas), size=batch)]


def seed_of(step: int, seed: int, worker: int = 0) -> int:
    """Return the seed of a worker's step, below 2**31."""
    return int(np.random.default_rng([seed, _STEP, step, worker]).integers(2**31))
