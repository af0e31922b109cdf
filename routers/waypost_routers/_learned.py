"""Base classes of learned score routers: held-out calibration, confidence, and predicted cost.

A subclass learns raw scores, of any scale. They are calibrated on questions that were not trained
on. By default a fifth is held out to choose hyperparameters and to calibrate scores; the router is
then trained on all questions (by epochs: see `_neural.epochs`). Answer lengths and recorded dollars
are predicted from the same embeddings.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from waypost.contracts.router import Prediction, QueryBatch, ScoreRouter
from waypost.contracts.routing_data import RoutingData
from waypost.contracts.splits import hold_out
from waypost.contracts.types import Floats
from waypost_routers._calibration import (
    Calibration,
    Link,
    Sureness,
    calibrated,
    fit_slope,
    fit_sureness,
)
from waypost_routers._linear.lengths import Lengths, fit_dollars, fit_tokens

HELD_OUT = 0.2
"""Share of the questions held out to choose hyperparameters and to calibrate."""

FEWEST_HELD_OUT = 12
"""With fewer, nothing is held out: hyperparameters keep defaults, the calibration slope is 1."""


class CalibratedRouter(ScoreRouter):
    """A score router of raw scores, with calibration, confidence and cost prediction.

    A subclass implements `_raw` and `_fit`, which calls `_calibrate` and `_learn_lengths` at its
    end, and sets the scale of its scores in `link`.

    Learned by ``fit``, besides what every router learns:
        calibration_: Map from raw scores to quality.
        sureness_: Map from quality to confidence.
        tokens_: Model of output tokens; None if none were recorded.
        dollars_: Model of recorded dollars; None if none were recorded.
    """

    link: ClassVar[Link] = "logit"
    """``identity`` if raw scores are in units of quality, else ``logit``."""

    own_slopes: ClassVar[bool] = False
    """Whether the scale of raw scores differs between LLMs; see `fit_slope`."""

    state_parts: ClassVar = {
        **ScoreRouter.state_parts,
        "calibration_": Calibration,
        "sureness_": Sureness,
        "tokens_": Lengths,
        "dollars_": Lengths,
    }

    calibration_: Calibration
    sureness_: Sureness
    tokens_: Lengths | None
    dollars_: Lengths | None

    @abstractmethod
    def _raw(self, batch: QueryBatch) -> Floats:
        """Return raw scores (n_queries, n_llms), finite; a row depends on its own query only."""

    def _level_scores(
        self, data: RoutingData, rows: NDArray[np.intp], outside: Floats
    ) -> tuple[NDArray[np.intp], Floats]:
        """Return the rows that set the LLMs' levels, and their final raw scores: all rows."""
        return np.arange(len(data)), self._raw(data.batch())

    def _calibrate(self, data: RoutingData, rows: NDArray[np.intp], outside: Floats) -> None:
        """Fit calibration and confidence.

        Args:
            data: Training data; every question has at least one score.
            rows: Held-out rows of ``data``; empty if nothing was held out.
            outside: (n_rows, n_llms), their raw scores by a router not trained on them.
        """
        every, inside = self._level_scores(data, rows, outside)
        quality = data.quality[rows]
        groups = data.groups[rows]
        weight = 1.0 / np.bincount(groups)[groups] if len(rows) else np.ones(0)
        slope = fit_slope(outside, quality, self.link, weight, each=self.own_slopes)
        self.calibration_ = calibrated(
            slope, inside, data.quality[every], self.mean_quality_, self.link
        )
        self.sureness_ = fit_sureness(self.calibration_.apply(outside), quality)

    def _learn_lengths(self, data: RoutingData) -> None:
        self.tokens_ = fit_tokens(data)
        self.dollars_ = fit_dollars(data)

    def _predict(self, batch: QueryBatch) -> Prediction:
        quality = self.calibration_.apply(self._raw(batch))
        dollars = self.dollars_ if self.cost_model_.asks_recorded else None
        return Prediction(
            quality=quality,
            output_tokens=None if self.tokens_ is None else self.tokens_.predict(batch),
            recorded_usd=None if dollars is None else dollars.predict(batch),
            confidence=self.sureness_.apply(quality),
        )


class LearnedRouter(CalibratedRouter):
    """A calibrated router that is fitted in one call.

    A subclass implements `_learn_out_of_sample` and `_raw`. Most extend `HeldOutRouter`.
    """

    @abstractmethod
    def _learn_out_of_sample(self, data: RoutingData) -> tuple[NDArray[np.intp], Floats]:
        """Learn from all of ``data``, and return out-of-sample scores.

        Args:
            data: Every question has at least one score.

        Returns:
            Rows of ``data``, and their raw scores (n_rows, n_llms) by a router not trained on
            them; no row if there are too few.
        """

    def _fit(self, data: RoutingData) -> None:
        data = measured(data)
        rows, outside = self._learn_out_of_sample(data)
        self._calibrate(data, rows, outside)
        self._learn_lengths(data)


class HeldOutRouter(LearnedRouter):
    """A router that is fitted twice: without a fifth of the questions, then with all of them.

    A subclass implements `_learn` and `_raw`.
    """

    @abstractmethod
    def _learn(self, data: RoutingData, held_out: RoutingData | None) -> None:
        """Learn raw scores from ``data``.

        The first call has ``held_out`` questions. On them it chooses the hyperparameters that the
        parameters leave open, and keeps them as learned attributes. The second call has all
        questions and None, and uses the chosen values. With too few questions to hold any out,
        only the second call is made, with default values.
        """

    def _learn_out_of_sample(self, data: RoutingData) -> tuple[NDArray[np.intp], Floats]:
        rows, training, held_out = split_off(data, getattr(self, "seed", 0))
        if held_out is None:
            self._learn(data, None)
            return rows, np.empty((0, len(data.llms)))
        self._learn(training, held_out)
        outside = self._raw(held_out.batch())
        self._learn(data, None)
        return rows, outside


def split_off(
    data: RoutingData, seed: int
) -> tuple[NDArray[np.intp], RoutingData, RoutingData | None]:
    """Hold out a fifth of the questions.

    Returns:
        Rows held out; data of the other rows; data of the held-out rows. If these are too few, or
        an LLM would have no score left to train on: no row, all data, None.
    """
    held = hold_out(data.queries, HELD_OUT, seed, data.groups)
    rows = np.flatnonzero(held)
    training = data.select(~held)
    if len(rows) < FEWEST_HELD_OUT or np.isnan(training.quality).all(axis=0).any():
        return rows[:0], data, None
    return rows, training, data.select(rows)


def measured(data: RoutingData) -> RoutingData:
    """Return the questions with at least one score.

    The data itself is returned if that is all of them, so that its cached groups are reused.
    """
    has_score = np.asarray((~np.isnan(data.quality)).any(axis=1))
    return data if has_score.all() else data.select(np.flatnonzero(has_score))


def earned(quality: Floats, scores: Floats) -> Floats:
    """Return the score of the measured LLM with the highest prediction, for each question, (n,).

    Tied LLMs give their mean score, so that the order of the LLMs has no effect.

    Args:
        quality: (n, n_llms) predicted.
        scores: (n, n_llms), NaN where not measured; every row has a score.
    """
    predicted = np.where(np.isnan(scores), -np.inf, quality)
    chosen = predicted >= predicted.max(axis=1, keepdims=True) - 1e-6
    return np.asarray(np.where(chosen, scores, 0.0).sum(axis=1) / chosen.sum(axis=1))


def filled(data: RoutingData, mean: Floats) -> Floats:
    """Return the scores with unmeasured cells set to each LLM's mean."""
    return np.where(np.isnan(data.quality), mean, data.quality)


def embeddings_of(data: RoutingData) -> NDArray[Any]:
    """Return the embeddings (n, d) of data; `fit` has checked that it has them."""
    assert data.embeddings is not None
    return data.embeddings
