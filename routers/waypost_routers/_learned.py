"""What learned score routers share: held-out calibration, confidence, and predicted cost.

A subclass learns raw scores, of any scale. They are calibrated on questions that they were not
learned from: by default a fifth is held out, knobs are chosen and scores calibrated on it, and then
all questions are learned from with those knobs (by epochs: see `_epochs`). Lengths of answers and
recorded dollars are predicted from the same embeddings.
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
"""Share of the questions that knobs and calibration are judged on."""

FEWEST_HELD_OUT = 12
"""With fewer, nothing is held out: knobs keep their defaults, scores are taken as they are."""


class CalibratedRouter(ScoreRouter):
    """A score router that learns raw scores; calibration, confidence and cost are done here.

    A subclass writes `_raw`, learns in `_fit`, calls `_calibrate` and `_learn_lengths` at its end,
    and names the scale of its scores in `link`.

    Learned by ``fit``, besides what every router learns:
        calibration_: Maps raw scores to quality.
        sureness_: Maps quality to confidence.
        tokens_: Predicts generated tokens; None where none was recorded.
        dollars_: Predicts recorded dollars; None likewise.
    """

    link: ClassVar[Link] = "logit"
    """``identity`` where raw scores are in units of quality already, else ``logit``."""

    own_slopes: ClassVar[bool] = False
    """Whether raw scores are of another scale for each LLM; see `fit_slope`."""

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
        """Return the rows, and their final raw scores, that the LLMs' levels are set on: all."""
        return np.arange(len(data)), self._raw(data.batch())

    def _calibrate(self, data: RoutingData, rows: NDArray[np.intp], outside: Floats) -> None:
        """Learn what raw scores mean, and how sure they are.

        Args:
            data: Learned from; every question has at least one score.
            rows: Of ``data``; no row where nothing was held out.
            outside: (n_rows, n_llms), their raw scores by a router that had not seen them.
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
    """Learns in one go.

    A subclass writes `_learn_out_of_sample` and `_raw`. Most are a `HeldOutRouter`.
    """

    @abstractmethod
    def _learn_out_of_sample(self, data: RoutingData) -> tuple[NDArray[np.intp], Floats]:
        """Learn from all of ``data``, and say how scores look on questions not learned from.

        Args:
            data: Every question has at least one score.

        Returns:
            Rows of ``data``, and their raw scores (n_rows, n_llms) by a router that had not seen
            them; no row where there are too few.
        """

    def _fit(self, data: RoutingData) -> None:
        data = measured(data)
        rows, outside = self._learn_out_of_sample(data)
        self._calibrate(data, rows, outside)
        self._learn_lengths(data)


class HeldOutRouter(LearnedRouter):
    """Learns twice: without a fifth of the questions, then with all of them.

    A subclass writes `_learn` and `_raw`.
    """

    @abstractmethod
    def _learn(self, data: RoutingData, held_out: RoutingData | None) -> None:
        """Learn raw scores from ``data``.

        Called first with questions held out of ``data``, on which knobs that the parameters leave
        open are chosen and kept as learned attributes (epochs, say); then with None and all
        questions, with the knobs as they were chosen. Where there are too few questions to hold
        any out only the second call is made, and the knobs take their defaults.
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
        Rows held out; the data of the others; that of the rows. Where they would be too few, or
        an LLM would be left without a score: no row, all data, None.
    """
    held = hold_out(data.queries, HELD_OUT, seed, data.groups)
    rows = np.flatnonzero(held)
    training = data.select(~held)
    if len(rows) < FEWEST_HELD_OUT or np.isnan(training.quality).all(axis=0).any():
        return rows[:0], data, None
    return rows, training, data.select(rows)


def measured(data: RoutingData) -> RoutingData:
    """Return the questions with at least one score; the data itself where that is all of them.

    What the data keeps once it was computed, its groups, is then not computed again.
    """
    has_score = np.asarray((~np.isnan(data.quality)).any(axis=1))
    return data if has_score.all() else data.select(np.flatnonzero(has_score))


def earned(quality: Floats, scores: Floats) -> Floats:
    """Return what the best predicted of the measured LLMs scored on each question, (n,).

    Where several are predicted alike it is their mean, whatever the order of the LLMs.

    Args:
        quality: (n, n_llms) predicted.
        scores: (n, n_llms) measured, NaN where not; every row has one.
    """
    predicted = np.where(np.isnan(scores), -np.inf, quality)
    chosen = predicted >= predicted.max(axis=1, keepdims=True) - 1e-6
    return np.asarray(np.where(chosen, scores, 0.0).sum(axis=1) / chosen.sum(axis=1))


def filled(data: RoutingData, mean: Floats) -> Floats:
    """Return the scores with unmeasured cells at each LLM's mean, where a method needs them all."""
    return np.where(np.isnan(data.quality), mean, data.quality)


def embeddings_of(data: RoutingData) -> NDArray[Any]:
    """Return the embeddings (n, d) of data that `fit` has checked to have them."""
    assert data.embeddings is not None
    return data.embeddings
