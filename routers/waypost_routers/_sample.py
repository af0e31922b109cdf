"""Which questions a dear router learns from: each text once, in an order of its own."""

from __future__ import annotations

import hashlib
import warnings
from dataclasses import replace
from typing import Any

import numpy as np

from waypost.contracts.routing_data import RoutingData


def sample(data: RoutingData, limit: int | None, seed: int) -> RoutingData:
    """Return one row for each text, in an order drawn by text and seed.

    What is learned from them depends neither on the order of the rows nor on how often a text
    stands: its row holds the means of what was measured.

    Args:
        data: Routing data.
        limit: Most rows; None is no limit.
        seed: Another seed draws other rows.
    """
    rows: dict[str, list[int]] = {}
    for i, text in enumerate(data.queries):
        rows.setdefault(text, []).append(i)
    texts = sorted(rows, key=lambda text: draw(seed, text))[:limit]
    chosen = data.select([rows[text][0] for text in texts])
    if all(len(rows[text]) == 1 for text in texts):
        return chosen
    columns: dict[str, Any] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # the mean of nothing is NaN, as wanted
        for name in ("quality", "input_tokens", "output_tokens", "cost_usd", "latency_s"):
            values = getattr(data, name)
            columns[name] = np.array([np.nanmean(values[rows[text]], axis=0) for text in texts])
    return replace(chosen, **columns)


def draw(seed: int, text: str) -> tuple[bytes, str]:
    """Return a sort key that is random in the text, and different for another seed."""
    content = f"{seed}\x1f{text}".encode("utf-8", "surrogatepass")
    return hashlib.blake2b(content, digest_size=16).digest(), text
