"""Estimates how difficult a query is, and gives each LLM its range of difficulty.

With two LLMs it is the threshold router of RouteLLM (arXiv 2406.18665) and Hybrid LLM (arXiv
2404.14618): easy queries to the weak one, from a threshold on to the strong one. Here difficulty
is learned as a number, and each LLM has a curve of expected score over it; thresholds are where
curves cross, so that any number of LLMs and every lambda are served by one fit.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from waypost.contracts.errors import SchemaError, names
from waypost.contracts.parameters import Real
from waypost.contracts.router import QueryBatch
from waypost.contracts.routing_data import RoutingData
from waypost.contracts.types import Floats
from waypost_routers._calibration import calibrated, fit_slope
from waypost_routers._learned import LearnedRouter, earned, embeddings_of
from waypost_routers._linear.logistic import fit_logistic, logit
from waypost_routers._linear.ridge import PENALTIES, Ridge, fit_ridge, folds_of

OWN_SHARES = (1.0, 0.75, 0.5, 0.25, 0.0)
"""How much of the slopes' own differences is kept: as much as does not lose, out of sample and by
more than a standard error, to always choosing the best single LLM. Crossings that the form of the
curves suggests and the data does not bear out are moved away."""

PRIOR_ROWS = 20.0
"""Precision of the prior on a curve's slope, counted in questions."""


class ThresholdRouter(LearnedRouter):
    """One difficulty for each query, and a monotone curve over it for each LLM.

    The difficulty of a training question is 1 less the mean score of its LLMs; an unmeasured
    cell counts as being as far from its LLM's mean as the measured ones are from theirs. Ridge
    regression predicts it from the embedding. An LLM's expected score at difficulty d is
    sigmoid(level - slope * d), fitted to difficulties that were predicted without the question.
    Slopes are drawn towards the LLMs' mean slope (see `OWN_SHARES`); one below 0 is of an LLM that
    does better where others fail. Levels are such that the mean over the training questions is the
    LLM's mean score. Two such curves cross at most once.

    When to take it:
        Where some LLMs are simply stronger and dearer than others. Where LLMs are strong on
        different tasks, one difficulty cannot say so.

    Args:
        penalty: Of the ridge, as in linearrouter; None chooses it at fit by cross-validation.

    Learned by ``fit``:
        ridge_: Predicts the difficulty.
        level_, slope_: (n_llms,) of the curves, before the calibration that all routers share.
    """

    name = "thresholdrouter"
    new_model_support = "few-shot"
    link = "logit"
    state_parts: ClassVar = {**LearnedRouter.state_parts, "ridge_": Ridge}
    parameter_constraints: ClassVar = {"penalty": Real(0, open_low=True, optional=True)}

    ridge_: Ridge
    level_: Floats
    slope_: Floats

    def __init__(self, penalty: float | None = None) -> None:
        self.penalty = penalty

    def _learn_out_of_sample(self, data: RoutingData) -> tuple[NDArray[np.intp], Floats]:
        penalties = PENALTIES if self.penalty is None else (self.penalty,)
        target = _difficulty(data.quality, self.mean_quality_)[:, None]
        self.ridge_, outside = fit_ridge(embeddings_of(data), target, folds_of(data), penalties)
        weight = 1.0 / np.bincount(data.groups)[data.groups]
        self.level_, self.slope_ = _curves(outside[:, 0], data.quality, weight)
        own = self.slope_
        for share in OWN_SHARES:
            self.slope_ = own.mean() + share * (own - own.mean())
            if self._holds(outside, data.quality, weight):
                break
        return np.arange(len(data)), self._at(outside)

    def _holds(self, outside: Floats, quality: Floats, weight: Floats) -> bool:
        """Say whether choices by these curves do not lose to the best single LLM out of sample."""
        raw = self._at(outside)
        slope = fit_slope(raw, quality, self.link, weight)
        curve = calibrated(slope, raw, quality, self.mean_quality_, self.link)
        single = quality[:, int(np.argmax(self.mean_quality_))]
        gain = (earned(curve.apply(raw), quality) - single)[~np.isnan(single)]
        return bool(gain.mean() >= -gain.std() / np.sqrt(max(len(gain), 1)))

    def _raw(self, batch: QueryBatch) -> Floats:
        embeddings: NDArray[Any] = np.asarray(batch.embeddings)
        return self._at(self.ridge_.predict(embeddings))

    def _at(self, difficulty: Floats) -> Floats:
        return np.asarray(self.level_ - self.slope_ * difficulty)

    def threshold(self, one: str, other: str) -> float | None:
        """Return the difficulty at which two LLMs are expected to score alike.

        None where their curves are parallel, so that one is the better at every difficulty.

        Raises:
            NotFittedError: before `fit`.
            SchemaError: a name the router does not know.
        """
        if unknown := [name for name in (one, other) if name not in self.model_names]:
            raise SchemaError(f"threshold: the router does not know {names(unknown)}")
        pair = [self.model_names.index(one), self.model_names.index(other)]
        curve = self.calibration_
        level = (curve.level + curve.slope * (self.level_ - curve.centre))[pair]
        slope = (curve.slope * self.slope_)[pair]
        if abs(slope[0] - slope[1]) < 1e-9:
            return None
        return float((level[0] - level[1]) / (slope[0] - slope[1]))


def _difficulty(quality: Floats, mean: Floats) -> Floats:
    """Return one minus each question's mean score, (n,), as if all LLMs had been measured."""
    known = ~np.isnan(quality)
    above = np.where(known, quality - mean, 0.0).sum(axis=1) / known.sum(axis=1)
    return np.asarray(1.0 - mean.mean() - above)


def _curves(difficulty: Floats, quality: Floats, weight: Floats) -> tuple[Floats, Floats]:
    """Fit each LLM's level and slope, first alone and then with slopes drawn to their mean."""
    centre, scale = difficulty.mean(), max(float(difficulty.std()), 1e-6)
    features = np.column_stack([np.ones(len(quality)), (difficulty - centre) / scale])
    found = np.zeros((quality.shape[1], 2))
    for precision in (1.0, PRIOR_ROWS):
        mean_slope = found[:, 1].mean()
        for j, scores in enumerate(quality.T):
            known = ~np.isnan(scores)
            prior = np.array([float(logit(scores[known].mean(), 0.01)), mean_slope])
            found[j] = fit_logistic(
                features[known], scores[known], prior, np.array([0.1, precision]), weight[known]
            )
    slope = -found[:, 1] / scale
    return found[:, 0] + slope * centre, slope
