"""Text to decision, embedding included, in this process: what routing itself costs."""

from __future__ import annotations

import gc
import time
from itertools import islice
from pathlib import Path

import numpy as np

from waypost.bench.gateway.prompts import prompts
from waypost.loading import load_router

WARM_UP = 50


def decision_ms(artifact: Path, count: int, seed: int) -> list[float]:
    """Decide texts that are all different, one at a time; return the milliseconds of each.

    Raises:
        ArtifactError, WeightsError: the router or its encoder cannot be had.
    """
    router = load_router(artifact)
    texts = list(islice(prompts(seed), WARM_UP + count))
    for text in texts[:WARM_UP]:
        router.route_single(text)
    gc.collect()
    times = []
    for text in texts[WARM_UP:]:
        begin = time.perf_counter()
        router.route_single(text)
        times.append(1e3 * (time.perf_counter() - begin))
    return times


def rounds_of(artifact: Path, rounds: int, count: int, seed: int) -> list[list[float]]:
    """Return `decision_ms` of several rounds, each with texts of its own."""
    found = decision_ms(artifact, rounds * count, seed)
    return [part.tolist() for part in np.array_split(np.array(found), rounds)]
