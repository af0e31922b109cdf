"""scikit-learn's own neighbours and ridge on the same data: they predict quality and no more."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from waypost.cli.bench_routers.timing import Timing, best_rate, seconds, singles
from waypost.contracts.errors import MissingExtraError
from waypost.contracts.prediction import QueryBatch
from waypost.contracts.routing_data import RoutingData

NEIGHBOURS = "scikit-learn KNeighborsRegressor"
RIDGE = "scikit-learn Ridge"


def time_references(
    data: RoutingData, batch: QueryBatch, k: int, repeats: int, alone: int
) -> Iterator[tuple[str, Timing]]:
    """Time each; scores that were not measured are 0 to it, which changes no time.

    Args:
        data: To fit, with embeddings.
        batch: To predict, likewise.
        k: Neighbours.
        repeats: How often the batch is predicted.
        alone: How many queries are predicted alone.

    Yields:
        Names and times. Neighbours are searched by brute force, on unit vectors by Euclidean
        distance, for which scikit-learn has faster code, and by cosine.

    Raises:
        MissingExtraError: scikit-learn is not installed.
    """
    try:
        from sklearn.linear_model import Ridge
        from sklearn.neighbors import KNeighborsRegressor
    except ImportError:
        raise MissingExtraError("sklearn", "train") from None
    k = min(k, len(data))
    models: dict[str, Any] = {
        f"{NEIGHBOURS}, {metric}": KNeighborsRegressor(k, algorithm="brute", metric=metric)
        for metric in ("euclidean", "cosine")
    }
    models[RIDGE] = Ridge()
    rows = np.asarray(batch.embeddings)
    targets = np.nan_to_num(data.quality)
    for name, model in models.items():
        fit_s = seconds(lambda m=model: m.fit(data.embeddings, targets))  # type: ignore[misc]
        p50, p99 = singles(lambda i, m=model: m.predict(rows[i : i + 1]), min(alone, len(rows)))  # type: ignore[misc]
        per_s = best_rate(lambda m=model: m.predict(rows), len(rows), repeats)  # type: ignore[misc]
        yield name, Timing(fit_s, per_s, p50, p99, None)
