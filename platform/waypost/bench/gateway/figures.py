"""From samples to figures: percentiles of each round, and their median and range over rounds."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from waypost.bench.gateway.load import Pair, Sample, Slice

PERCENTILES = (50, 95, 99)

Spread = dict[str, float]
"""``median``, ``least`` and ``most`` over the rounds."""


def spread(values: Sequence[float]) -> Spread:
    """Return median and range.

    Raises:
        ValueError: there are no values.
    """
    found = np.asarray(values, float)
    return {
        "median": float(np.median(found)),
        "least": float(found.min()),
        "most": float(found.max()),
    }


def percentiles(rounds: Sequence[Sequence[float]]) -> dict[str, Spread]:
    """Return ``p50``, ``p95`` and ``p99`` of each round, spread over the rounds."""
    return {
        f"p{p}": spread([float(np.percentile(values, p)) for values in rounds]) for p in PERCENTILES
    }


def latency(rounds: Sequence[Sequence[Pair]], *, stream: bool) -> dict[str, Any]:
    """Return what rounds of pairs say.

    ``added_ms`` is through minus direct, pair by pair; ``through_ms`` and ``direct_ms`` are the
    two themselves. A stream has ``added_first_ms`` besides: the same to the first token.
    """
    found: dict[str, Any] = {
        "pairs": sum(map(len, rounds)),
        "added_ms": percentiles([[p.through_ms - p.direct_ms for p in pairs] for pairs in rounds]),
        "through_ms": percentiles([[p.through_ms for p in pairs] for pairs in rounds]),
        "direct_ms": percentiles([[p.direct_ms for p in pairs] for pairs in rounds]),
    }
    if stream:
        firsts = [[p.through_first_ms - p.direct_first_ms for p in pairs] for pairs in rounds]
        found["added_first_ms"] = percentiles(firsts)
    return found


def summary(samples: Sequence[Sample]) -> dict[str, list[dict[str, Any]]]:
    """Return ``latency`` and ``throughput`` of one target, an entry for each kind of slice.

    A kind without a single answer has ``errors`` and no figures.
    """
    by_slice: Mapping[Slice, list[Sample]] = defaultdict(list)
    for sample in samples:
        by_slice[sample.slice].append(sample)
    found: dict[str, list[dict[str, Any]]] = {"latency": [], "throughput": []}
    for part in sorted(by_slice, key=lambda part: (part.stream, part.concurrency)):
        rounds = by_slice[part]
        entry: dict[str, Any] = {
            "concurrency": part.concurrency,
            "stream": part.stream,
            "rounds": len(rounds),
            "errors": sum(sample.errors for sample in rounds),
            "client_busy": max(sample.client_busy for sample in rounds),
        }
        if part.kind == "pairs":
            with_pairs = [sample.pairs for sample in rounds if sample.pairs]
            if with_pairs:
                entry |= latency(with_pairs, stream=part.stream)
            found["latency"].append(entry)
        else:
            rates = [sample.answered / sample.seconds for sample in rounds]
            found["throughput"].append(entry | {"requests_per_s": spread(rates)})
    return found
