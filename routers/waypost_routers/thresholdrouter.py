"""Estimate a query's difficulty, and each LLM's expected score at that difficulty.

With two LLMs it is the threshold router of RouteLLM (arXiv 2406.18665) and Hybrid LLM (arXiv
2404.14618): queries below a threshold go to the weak LLM, the others to the strong one. Here
difficulty is a predicted number, and each LLM has a curve of expected score over it. Thresholds
are where curves cross, so one fit serves any number of LLMs and every lambda.
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
"""Candidate shares of the slopes' differences from their mean. Fit keeps the largest share that
loses at most one standard error, out of sample, to always choosing the best single LLM. So curves
do not cross where the data does not support it."""

PRIOR_ROWS = 20.0
"""Precision of the prior on a curve's slope, in questions."""


class ThresholdRouter(LearnedRouter):
    """One difficulty per query, and one monotone curve of expected score over it per LLM.

    The difficulty of a training question is 1 minus the mean score of all LLMs; an unmeasured cell
    is taken as its LLM's mean plus the mean deviation of the measured cells from theirs. Ridge
    regression predicts difficulty from the embedding. An LLM's expected score at difficulty d is
    sigmoid(level - slope * d), fitted to out-of-sample predictions of d. Slopes are shrunk towards
    their mean (see `OWN_SHARES`); an LLM with a negative slope does better where others fail.
    Levels make each curve's mean over the training questions the LLM's mean score. Two curves
    cross at most once.

    When to take it:
        When some LLMs are simply stronger and more expensive than others. One difficulty cannot
        express that LLMs are strong on different tasks.

    Args:
        penalty: Ridge penalty as in linearrouter; None chooses it at fit by cross-validation.

    Learned by ``fit``:
        ridge_: Map from embedding to difficulty.
        level_, slope_: (n_llms,), the curves' parameters before calibration.
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
        """Return whether choices lose at most a standard error to the best single LLM."""
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
        """Return the difficulty at which two LLMs have the same expected score.

        None if their curves are parallel: then one LLM is better at every difficulty.

        Raises:
            NotFittedError: before `fit`.
            SchemaError: a name is not among the router's LLMs.
        """
        if unknown := [name for name in (one, other) if name not in self.model_names]:
            raise SchemaError(f"threshold: the router has no LLM {names(unknown)}")
        pair = [self.model_names.index(one), self.model_names.index(other)]
        curve = self.calibration_
        level = (curve.level + curve.slope * (self.level_ - curve.centre))[pair]
        slope = (curve.slope * self.slope_)[pair]
        if abs(slope[0] - slope[1]) < 1e-9:
            return None
        return float((level[0] - level[1]) / (slope[0] - slope[1]))


def _difficulty(quality: Floats, mean: Floats) -> Floats:
    """Return 1 minus each question's mean score, (n,), with unmeasured cells imputed."""
    known = ~np.isnan(quality)
    above = np.where(known, quality - mean, 0.0).sum(axis=1) / known.sum(axis=1)
    return np.asarray(1.0 - mean.mean() - above)


def _curves(difficulty: Floats, quality: Floats, weight: Floats) -> tuple[Floats, Floats]:
    """Fit each LLM's level and slope, first alone and then with slopes shrunk to their mean."""
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
