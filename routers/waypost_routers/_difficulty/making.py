"""Learn what difficulty is from routing data.

    python -m waypost_routers._difficulty.making DATA WEIGHTS_FILE

A question's difficulty is 1 minus the mean score of all LLMs, within its task: whole tasks that are
hard for the LLMs of the data say little of other LLMs. The signs of the weights are given and only
their sizes are learned, from equal weights on (`PRIOR`): a few hundred examination questions would
else say that a greeting is harder than a proof.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from sklearn.linear_model import LinearRegression

from waypost.contracts.routing_data import RoutingData, read_routing_data
from waypost.contracts.types import Floats
from waypost_routers._difficulty.model import DifficultyModel, features_of, quantiles_of

PRIOR, STRENGTH = 0.03, 30.0
"""Weight of each feature before any data, and the number of questions that it is worth."""


def make(data: RoutingData) -> DifficultyModel:
    """Learn the model by least squares with weights of at least 0, shrunk to equal ones.

    Args:
        data: Routing data; unmeasured cells are left out.
    """
    hard = within_tasks(1.0 - np.nanmean(data.quality, axis=1), data.task_names)
    features = features_of(data.queries)
    own, pull = features - features.mean(axis=0), np.sqrt(STRENGTH) * np.eye(features.shape[1])
    prior = PRIOR * np.sqrt(STRENGTH) * np.ones(features.shape[1])
    rows, wanted = np.vstack([own, pull]), np.concatenate([hard, prior])
    weights = LinearRegression(fit_intercept=False, positive=True).fit(rows, wanted).coef_
    scores = features @ weights
    told = {
        "questions": len(data),
        "llms": list(data.names),
        "correlation": round(float(np.corrcoef(scores, hard)[0, 1]), 3),
    }
    return DifficultyModel(np.round(weights, 6), quantiles_of(scores), told)


def within_tasks(values: Floats, tasks: Sequence[str]) -> Floats:
    """Return values less the mean of their task."""
    _, task = np.unique(tasks, return_inverse=True)
    means = np.bincount(task, values) / np.bincount(task)
    return np.asarray(values - means[task])


if __name__ == "__main__":
    make(read_routing_data(sys.argv[1])).write(Path(sys.argv[2]))
