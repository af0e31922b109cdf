"""Recognise a query's task, and average each LLM's training scores on that task.

Routing data names the task of each training question; a request does not. An LLM's scores differ
far more between tasks than within one. So the estimate has two levels: the tasks' means, weighted
by task probability, and a linear correction within tasks whose shrinkage is cross-validated.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from waypost.contracts.parameters import OneOf, Real
from waypost.contracts.router import QueryBatch
from waypost.contracts.routing_data import RoutingData
from waypost.contracts.types import Floats
from waypost_routers._learned import LearnedRouter
from waypost_routers._linear.ridge import PENALTIES, Ridge, fit_ridge, folds_of
from waypost_routers._linear.text import text_features, word_features

SHARPNESS = (1.0, 2.0, 4.0, 8.0)
WITHIN = (*PENALTIES, 100.0, 1000.0)
"""Candidate penalties of the correction within tasks; the last reduces it to almost nothing."""

_LEAST = 1e-3


class TaskRouter(LearnedRouter):
    """Each LLM's mean score on the recognised task, plus a linear correction within tasks.

    Tasks are recognised by ridge regression of their indicators on embedding and words. With fewer
    than two tasks in the data, the estimate is the overall mean plus the correction.

    When to take it:
        When the routing data names tasks, and requests belong to these tasks.

    Args:
        within: ``linear``, or ``none`` for the tasks' means alone.
        kappa: Weight of an LLM's overall mean in its mean on a task, counted in questions.
        sharpness: Exponent of the task scores before they are normalized to weights; None chooses
            it at fit by cross-validation.

    Learned by ``fit``:
        recogniser_: Map from embedding and words to task scores; None with fewer than two tasks.
        task_quality_: (n_tasks, n_llms) means, shrunk towards the overall means.
        within_: Linear map of the correction; None with ``within: none``.
        sharpness_: The sharpness in use.
    """

    name = "taskrouter"
    new_model_support = "few-shot"
    link = "identity"
    state_parts: ClassVar = {
        **LearnedRouter.state_parts,
        "recogniser_": Ridge,
        "within_": Ridge,
    }
    row_count_parameters = ("kappa",)
    parameter_constraints: ClassVar = {
        "within": OneOf(("linear", "none")),
        "kappa": Real(0),
        "sharpness": Real(0, open_low=True, optional=True),
    }

    recogniser_: Ridge | None
    task_quality_: Floats
    within_: Ridge | None
    sharpness_: float

    def __init__(
        self, within: str = "linear", kappa: float = 10.0, sharpness: float | None = None
    ) -> None:
        self.within = within
        self.kappa = kappa
        self.sharpness = sharpness

    def _learn_out_of_sample(self, data: RoutingData) -> tuple[NDArray[np.intp], Floats]:
        fold = folds_of(data)
        names = sorted(set(data.task_names))
        place = {name: i for i, name in enumerate(names)}
        task = np.array([place[name] for name in data.task_names])
        member = np.eye(len(names))[task]
        if len(names) > 1:
            self.recogniser_, scores = fit_ridge(_features(data.batch()), member, fold)
        else:
            self.recogniser_, scores = None, member
        self.task_quality_ = self._means(member, data.quality)
        without = {
            f: self._means(member[fold != f], data.quality[fold != f]) for f in np.unique(fold)
        }
        self.sharpness_, outside = self._sharpen(scores, without, fold, data.quality)
        self.within_ = None
        if self.within == "linear":
            self.within_, correction = fit_ridge(
                np.asarray(data.embeddings), data.quality - outside, fold, WITHIN, contrasts=True
            )
            outside = outside + correction
        return np.arange(len(data)), outside

    def _sharpen(
        self,
        scores: Floats,
        means: dict[int, Floats],
        fold: NDArray[np.intp],
        quality: Floats,
    ) -> tuple[float, Floats]:
        """Return the sharpness with the least out-of-sample error, and its estimates."""
        tried = SHARPNESS if self.sharpness is None else (self.sharpness,)
        found = []
        for sharpness in tried:
            weights = _weights(scores, sharpness)
            outside = np.empty(quality.shape)
            for one, table in means.items():
                outside[fold == one] = weights[fold == one] @ table
            found.append((float(np.nanmean((outside - quality) ** 2)), sharpness, outside))
        _, sharpness, outside = min(found, key=lambda item: item[:2])
        return sharpness, outside

    def _means(self, member: Floats, quality: Floats) -> Floats:
        known = ~np.isnan(quality)
        total = member.T @ np.where(known, quality, 0.0) + self.kappa * self.mean_quality_
        count = member.T @ known.astype(np.float64) + self.kappa
        return np.where(count > 0, total / np.maximum(count, 1e-12), self.mean_quality_)

    def _raw(self, batch: QueryBatch) -> Floats:
        quality = np.repeat(self.task_quality_[:1], len(batch), axis=0)
        if self.recogniser_ is not None:
            scores = self.recogniser_.predict(_features(batch))
            quality = _weights(scores, self.sharpness_) @ self.task_quality_
        if self.within_ is not None:
            quality = quality + self.within_.predict(np.asarray(batch.embeddings))
        return quality


def _features(batch: QueryBatch) -> NDArray[Any]:
    words = text_features(batch, word_features)
    return np.concatenate([np.asarray(batch.embeddings), words], axis=1)


def _weights(scores: Floats, sharpness: float) -> Floats:
    """Turn regressed indicators into weights that sum to 1, (n, n_tasks)."""
    sharp = np.clip(scores, _LEAST, None) ** sharpness
    return np.asarray(sharp / sharp.sum(axis=1, keepdims=True))
