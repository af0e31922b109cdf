"""Learn what difficulty is from routing data.

    python -m waypost_routers._difficulty.making DATA WEIGHTS_FILE

A question's difficulty is 1 minus the mean score of all LLMs, within its task: whole tasks that are
hard for the LLMs of the data say little of other LLMs.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from waypost.contracts.routing_data import RoutingData, read_routing_data
from waypost_routers._difficulty.model import DifficultyModel, features_encoder, quantiles_of
from waypost_routers._linear.ridge import PENALTIES, fit_ridge, folds_of


def make(data: RoutingData) -> DifficultyModel:
    """Learn the model by ridge regression, its penalty chosen by cross-validation.

    Args:
        data: Routing data; unmeasured cells are left out.
    """
    target = 1.0 - np.nanmean(data.quality, axis=1)
    features = features_encoder().encode(data.queries)
    ridge, outside = fit_ridge(features, target[:, None], folds_of(data), PENALTIES)
    fit = float(np.corrcoef(outside[:, 0], target)[0, 1])
    told = {"questions": len(data), "llms": list(data.names), "correlation": round(fit, 3)}
    offset = float(ridge.intercept[0])
    return DifficultyModel(ridge.weights[:, 0], quantiles_of(outside[:, 0] - offset), told)


if __name__ == "__main__":
    make(read_routing_data(sys.argv[1])).write(Path(sys.argv[2]))
