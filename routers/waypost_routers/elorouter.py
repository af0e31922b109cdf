"""Rate the LLMs by pairwise battles on the training questions (Bradley-Terry).

A tie is half a win for each. ``plain`` weighting gives one ranking for all queries. ``similarity``
weighting (RouteLLM, arXiv 2406.18665) rates the LLMs anew for each query, by similar questions.
"""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from waypost.contracts.errors import ConfigError, Fault, SchemaError, names
from waypost.contracts.parameters import Integer, OneOf, Real
from waypost.contracts.router import QueryBatch
from waypost.contracts.routing_data import RoutingData
from waypost.contracts.splits import fold_of
from waypost.contracts.types import Floats
from waypost_routers._learned import HeldOutRouter, embeddings_of
from waypost_routers._neighbors.memory import Neighbours, nearest, neighbour_mean, neighbours
from waypost_routers._shared import contrast_error

PRIOR_SIGMA = 2 * np.log(10)
"""Standard deviation of the Gaussian prior on strengths: 800 points of an Elo rating."""

_TIE = 1e-6
_STEPS = 12
NEAR = 6
"""Newton steps of a fit that starts near its solution; four leave an error of 1e-7."""

_LONGEST = 2.0


def wins(scores: NDArray[np.floating]) -> NDArray[np.float32]:
    """Return the wins of each question, (..., n_llms, n_llms).

    An entry is 1 if the row's LLM scored more than the column's, 0.5 if their scores are equal, 0
    if it scored less or one was not measured.

    Args:
        scores: (..., n_llms), NaN where not measured.
    """
    ahead = scores[..., :, None] - scores[..., None, :]
    won = (ahead > _TIE).astype(np.float32)
    won += np.float32(0.5) * (np.abs(ahead) <= _TIE)
    won[..., np.arange(scores.shape[-1]), np.arange(scores.shape[-1])] = 0
    return won


def fit_strengths(won: Floats, start: Floats, steps: int = _STEPS) -> Floats:
    """Return the maximum a posteriori strengths t for P(i beats j) = sigmoid(t_i - t_j).

    The prior is Gaussian around 0 (`PRIOR_SIGMA`), so that an LLM without a win or without a
    loss has a finite strength. Newton's method makes a fixed number of steps, so that a result
    does not depend on the other fits of the batch.

    Args:
        won: (..., n_llms, n_llms) weight of the battles that the row's LLM won.
        start: (n_llms,) or (..., n_llms) initial strengths.
        steps: Number of Newton steps.

    Returns:
        (..., n_llms).
    """
    fought = won + np.swapaxes(won, -1, -2)
    strength = np.broadcast_to(start, won.shape[:-1]).astype(np.float64)
    diagonal = np.arange(won.shape[-1])
    for _ in range(steps):
        p = win_chance(strength)
        gradient = (won - fought * p).sum(axis=-1) - strength / PRIOR_SIGMA**2
        curvature = -fought * p * (1 - p)
        curvature[..., diagonal, diagonal] = -curvature.sum(axis=-1) + PRIOR_SIGMA**-2
        step = np.linalg.solve(curvature, gradient[..., None])[..., 0]
        longest = np.abs(step).max(axis=-1, keepdims=True)
        strength = strength + step * np.minimum(1.0, _LONGEST / np.maximum(longest, _LONGEST))
    return strength


def win_chance(strength: Floats) -> Floats:
    """Return the chance that the row's LLM beats the column's, (..., n_llms, n_llms)."""
    lead = strength[..., :, None] - strength[..., None, :]
    # the diagonal needs no mask: there `fought` of `fit_strengths` is 0
    return np.asarray(1.0 / (1.0 + np.exp(-np.clip(lead, -30, 30))))


def beats_average(strength: Floats) -> Floats:
    """Return each LLM's mean chance to beat the others, (..., n_llms); 0.5 for a single LLM."""
    others = strength.shape[-1] - 1
    if others == 0:
        return np.full(strength.shape, 0.5)
    return np.asarray((win_chance(strength).sum(axis=-1) - 0.5) / others)


POINTS = 400 / np.log(10)
"""Points of an Elo rating for each unit of strength; 1000 is the average LLM."""

K_GRID = (20, 40, 80, 160, 320)
DRAWS = 200
_BUCKETS = 1000
_USUAL_K = 80
_CELLS = 4e6


class EloRouter(HeldOutRouter):
    """Bradley-Terry strengths with a Gaussian prior, fitted by Newton's method.

    For scores of 0 and 1, an LLM's mean chance to beat the others (ties as half) is 1/2 plus half
    the difference between its expected score and theirs. The implied difference to the mean of all
    LLMs is added to their mean score on the same weighted questions. The spread between LLMs is
    then scaled to that of their training means, which keeps the order of the ratings.

    With ``weighting: similarity`` a battle has weight gamma ** (1 + S) as in RouteLLM, where S is
    its question's cosine to the query over the largest such cosine. Only the ``k`` most similar
    questions count. The average question's battles are added with weight ``kappa``; the most
    similar question has weight 1. Each decision solves a fit that starts from the global ratings.

    Exploration is left to the policy, which records exact propensities. Thompson sampling from the
    ratings' posterior has no exact propensity, so it is not offered.

    When to take it:
        ``plain`` for a ranking of the LLMs with intervals; ``similarity`` when outcomes compare
        LLMs rather than measure them. Each decision solves a small fit, so it is among the slower
        routers.

    Args:
        weighting: ``similarity`` or ``plain``.
        gamma: Base of the similarity weights; 1 weights the ``k`` questions equally.
        k: Number of most similar questions; None chooses it at fit (20 to 320), by the error of
            differences between LLMs on held-out questions.
        kappa: Weight of the average question, counted in questions.
        seed: Seed of the bootstrap and the held-out questions.

    Learned by ``fit`` (n_rows training questions with at least one score, n_llms candidates):
        ratings_: (n_llms,) Elo ratings over all questions; `update` changes them.
        rating_low_, rating_high_: (n_llms,) bounds of the 95 % bootstrap interval of the ratings;
            near-duplicate questions are drawn together.
        fitted_ratings_: (n_llms,) ratings at fit.
        average_: (n_llms, n_llms), mean battles of a question.
        memory_: float32 (n_rows, d), embeddings; no row with ``plain``.
        scores_: float32 (n_rows, n_llms), NaN where not measured.
        k_: The k in use.
    """

    name = "elorouter"
    new_model_support = "few-shot"
    link = "identity"
    row_count_parameters = ("k", "kappa")
    parameter_constraints: ClassVar = {
        "weighting": OneOf(("similarity", "plain")),
        "gamma": Real(1),
        "k": Integer(1, optional=True),
        "kappa": Real(0),
        "seed": Integer(0),
    }

    ratings_: Floats
    rating_low_: Floats
    rating_high_: Floats
    fitted_ratings_: Floats
    average_: Floats
    memory_: NDArray[np.float32]
    scores_: NDArray[np.float32]
    k_: int

    def __init__(
        self,
        weighting: str = "similarity",
        gamma: float = 10.0,
        k: int | None = None,
        kappa: float = 5.0,
        seed: int = 0,
    ) -> None:
        self.weighting = weighting
        self.gamma = gamma
        self.k = k
        self.kappa = kappa
        self.seed = seed

    def update(self, winner: str, loser: str, k_factor: float = 16.0, *, tie: bool = False) -> None:
        """Update the ratings by one more battle, as Elo does; intervals stay those of the fit.

        Args:
            winner: Name of an LLM.
            loser: Name of another LLM.
            k_factor: Largest change of a rating in Elo points, above 0; 4 to 32 are usual.
            tie: Whether the battle was a tie.

        Raises:
            NotFittedError: before `fit`.
            SchemaError: a name is not among the router's LLMs, or both names are the same.
            ConfigError: the factor is not above 0.
        """
        if unknown := [name for name in (winner, loser) if name not in self.model_names]:
            raise SchemaError(f"update: the router has no LLM {names(unknown)}")
        if winner == loser:
            raise SchemaError(f"update: {winner} against itself; expected two LLMs")
        if not (np.isfinite(k_factor) and k_factor > 0):
            raise ConfigError([Fault("k_factor", f"is {k_factor!r}; expected a number above 0")])
        i, j = self.model_names.index(winner), self.model_names.index(loser)
        expected = 1 / (1 + 10 ** ((self.ratings_[j] - self.ratings_[i]) / 400))
        moved = k_factor * ((0.5 if tie else 1.0) - expected)
        self.ratings_ = self.ratings_.copy()
        self.ratings_[[i, j]] += (moved, -moved)

    # -- fit ----------------------------------------------------------------------------------

    def _fit(self, data: RoutingData) -> None:
        self.k_ = self.k or 0
        super()._fit(data)
        curve, mean = self.calibration_, self.mean_quality_
        spread = _spread(curve.centre, mean)
        level = mean.mean() + spread * (curve.centre - curve.centre.mean())
        slope = np.full(len(level), spread) if self.weighting == "plain" else curve.slope
        self.calibration_ = replace(curve, level=level, slope=slope)
        low, high = np.percentile(self._bootstrap(data), [2.5, 97.5], axis=0)
        self.rating_low_, self.rating_high_ = low, high

    def _learn(self, data: RoutingData, held_out: RoutingData | None) -> None:
        self.average_ = _total(data.quality) / len(data)
        strengths = fit_strengths(self.average_ * len(data), np.zeros(len(data.llms)))
        self.ratings_ = self.fitted_ratings_ = 1000 + POINTS * strengths
        kept = slice(0 if self.weighting == "plain" else None)
        self.memory_ = np.ascontiguousarray(embeddings_of(data)[kept], np.float32)
        self.scores_ = data.quality[kept].astype(np.float32)
        if self.k_ == 0 and held_out is not None and self.weighting == "similarity":
            found = nearest(self.memory_, embeddings_of(held_out), K_GRID[-1])
            grid = [k for k in K_GRID if k < len(data)] or [len(data)]
            errors = {k: contrast_error(self._local(found.take(k)), held_out.quality) for k in grid}
            self.k_ = min(errors, key=lambda k: errors[k])
        self.k_ = min(self.k_ or _USUAL_K, len(data))

    def _level_scores(
        self, data: RoutingData, rows: NDArray[np.intp], outside: Floats
    ) -> tuple[NDArray[np.intp], Floats]:
        # each training question would be its own nearest neighbour
        return (rows, outside) if len(rows) else super()._level_scores(data, rows, outside)

    def _bootstrap(self, data: RoutingData) -> Floats:
        """Return ratings of `DRAWS` samples of the questions, (DRAWS, n_llms)."""
        bucket = fold_of(data.queries, _BUCKETS, self.seed, data.groups)
        used = np.unique(bucket)
        battles = np.stack([_total(data.quality[bucket == b]) for b in used])
        draw = np.random.default_rng(self.seed)
        counts = draw.multinomial(len(used), np.full(len(used), 1 / len(used)), size=DRAWS)
        sampled = np.tensordot(counts.astype(np.float64), battles, axes=1)
        start = (self.fitted_ratings_ - 1000) / POINTS
        return np.asarray(1000 + POINTS * fit_strengths(sampled, start))

    # -- predict ------------------------------------------------------------------------------

    def _raw(self, batch: QueryBatch) -> Floats:
        if self.weighting == "plain":
            strength = (self.ratings_ - 1000) / POINTS
            return np.tile(_quality(strength, self.mean_quality_.mean()), (len(batch), 1))
        return self._local(neighbours(batch, self.memory_, self.k_))

    def _local(self, found: Neighbours) -> Floats:
        largest = np.maximum(found.nearest_similarity[:, None], 1e-6)
        # relative to gamma ** 2, the weight of the most similar question (S = 1)
        weights = found.share * self.gamma ** (found.similarity / largest - 1.0)
        n_llms = self.scores_.shape[1]
        size = max(1, int(_CELLS / (weights.shape[1] * n_llms**2)))
        blocks = [
            self._solved(found.index[i : i + size], weights[i : i + size])
            for i in range(0, len(weights), size)
        ]
        return np.concatenate(blocks)

    def _solved(self, index: NDArray[np.intp], weights: Floats) -> Floats:
        scores = self.scores_[index]
        won = wins(scores)
        flat = won.reshape(*won.shape[:2], -1).astype(np.float64)
        local = (weights[:, None, :] @ flat)[:, 0].reshape(-1, *won.shape[2:])
        local += max(self.kappa, 1e-3) * self.average_
        strength = fit_strengths(local, (self.fitted_ratings_ - 1000) / POINTS, NEAR)
        strength = strength + (self.ratings_ - self.fitted_ratings_) / POINTS
        level = neighbour_mean(scores, weights, self.mean_quality_, self.kappa).mean(axis=1)
        return _quality(strength, level[:, None])


def _total(quality: Floats) -> Floats:
    """Return the sum of the questions' battles, (n_llms, n_llms)."""
    total = np.zeros((quality.shape[1], quality.shape[1]))
    size = max(1, int(_CELLS / quality.shape[1] ** 2))
    for start in range(0, len(quality), size):
        total += wins(quality[start : start + size]).sum(axis=0, dtype=np.float64)
    return total


def _quality(strength: Floats, level: Floats | float) -> Floats:
    """Return expected scores from strengths and the LLMs' mean score, (..., n_llms)."""
    n_llms = strength.shape[-1]
    above = beats_average(strength) - 0.5
    above -= above.mean(axis=-1, keepdims=True)
    return np.asarray(level + 2 * above * (n_llms - 1) / n_llms)


def _spread(found: Floats, mean: Floats) -> float:
    """Return the factor that scales differences in ``found`` to those of ``mean``, (n_llms,)."""
    apart = found - found.mean()
    return max(float(apart @ mean) / max(float(apart @ apart), 1e-12), 0.0)
