"""scikit-learn's own neighbours and ridge on the same data: they predict quality and no more."""

from __future__ import annotations

from typing import Any

import numpy as np

from waypost.bench.routers.timing import Subject, seconds
from waypost.contracts.errors import MissingExtraError
from waypost.contracts.records import QueryBatch
from waypost.contracts.routing_data import RoutingData

NEIGHBOURS = "scikit-learn KNeighborsRegressor"
RIDGE = "scikit-learn Ridge"


def references(data: RoutingData, batch: QueryBatch, k: int) -> dict[str, Subject]:
    """Fit each; scores that were not measured are 0 to it, which changes no time.

    Args:
        data: To fit, with embeddings.
        batch: To predict, likewise.
        k: Neighbours.

    Returns:
        What to time, by name. Neighbours are searched by brute force, on unit vectors by
        Euclidean distance, for which scikit-learn has faster code, and by cosine.

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
    return {name: _subject(model, data.embeddings, targets, rows) for name, model in models.items()}


def _subject(model: Any, embeddings: Any, targets: Any, rows: Any) -> Subject:
    fit_s = seconds(lambda: model.fit(embeddings, targets))
    return Subject(fit_s, lambda: model.predict(rows), lambda i: model.predict(rows[i : i + 1]))
