"""Recorded answers and verdicts from which a cascade can be learned."""

from __future__ import annotations

import numpy as np

from waypost.contracts.records import LLMInfo
from waypost.contracts.routing_data import RoutingData
from waypost.contracts.verdicts import MAX_VERDICTS

PRICES = {"small": 1.0, "middle": 4.0, "large": 40.0}


def recorded(
    n: int = 200,
    *,
    informed: bool = True,
    llms: tuple[str, ...] = ("small", "large"),
    seed: int = 0,
) -> RoutingData:
    """Return n questions; small is right on half of them, and informed verdicts are mostly true."""
    draw = np.random.default_rng(seed)
    right = {"small": 0.5, "middle": 0.7, "large": 0.9}
    quality = np.column_stack([draw.random(n) < right[name] for name in llms]).astype(float)
    sure = np.where(quality == 1, 0.9, 0.1) if informed else np.full(quality.shape, 0.5)
    verdicts = np.full((n, len(llms), MAX_VERDICTS), np.nan, np.float32)
    verdicts[:, :, :4] = draw.random((n, len(llms), 4)) < sure[:, :, None]
    tokens = np.full(quality.shape, 100.0)
    price = np.array([PRICES[name] for name in llms])
    return RoutingData(
        query_ids=tuple(f"q{i}" for i in range(n)),
        queries=tuple(f"question number {i} about the topic {i * 7919}" for i in range(n)),
        task_names=("sums",) * n,
        llms=tuple(
            LLMInfo(name=name, input_price=PRICES[name], output_price=PRICES[name]) for name in llms
        ),
        quality=quality,
        input_tokens=tokens,
        output_tokens=tokens,
        cost_usd=200 * price / 1e6 * np.ones(quality.shape),
        latency_s=np.full(quality.shape, np.nan),
        verdicts=verdicts,
        verify_input_tokens=4 * tokens,
        verify_output_tokens=np.full(quality.shape, 4.0),
    )
