"""What routers share that fine-tune a pretrained model, which is dear: once, on a sample."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from waypost.contracts.epochs import Arrays, EpochRouter, EpochTraining
from waypost.contracts.records import LLMInfo
from waypost.contracts.routing_data import RoutingData
from waypost.contracts.types import Floats
from waypost_routers._base_models import LOCK
from waypost_routers._calibration import calibrated, fit_slope
from waypost_routers._epochs import Learner
from waypost_routers._learned import CalibratedRouter, batch_of, split_off
from waypost_routers._sample import sample


class Weights:
    """Trained arrays by name, and the model built with them, which is not part of the state.

    Attributes:
        arrays: The trained parameters.
        model: What was built with them; None before its first use.
    """

    def __init__(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        self.arrays = dict(arrays)
        self.model: Any = None

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Return the state as named arrays."""
        return dict(self.arrays)

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Weights:
        """Rebuild it from `to_arrays`."""
        return cls(arrays)

    def __getstate__(self) -> dict[str, Any]:
        return {"arrays": self.arrays, "model": None}


class Tuner(Learner):
    """Fine-tunes a model; its epochs are the parts between two looks at held-out questions.

    Attributes:
        epochs: How many there are.
    """

    epochs: int


class FineTunedRouter(EpochRouter, CalibratedRouter):
    """A router that fine-tunes a model on four fifths of a sample; the rest calibrates it.

    A subclass writes `_tuner`, `_take`, `_build` and `_raw`, and has the parameters
    ``max_queries`` and ``seed``. It reads the texts itself.

    Learned by ``fit``, besides what every `CalibratedRouter` learns:
        weights_: The trained parameters.
        base_: The pretrained model: its ``name`` and ``digest``, and what else decides how it is
            used.
    """

    needs_embeddings = False
    own_slopes = True
    link = "logit"
    state_parts: ClassVar = {**CalibratedRouter.state_parts, "weights_": Weights}

    weights_: Weights
    base_: dict[str, Any]
    max_queries: int | None
    seed: int

    @abstractmethod
    def _tuner(self, data: RoutingData, held_out: RoutingData | None) -> Tuner:
        """Return what learns raw scores from ``data``; what is left open it finds on held-out."""

    @abstractmethod
    def _take(self, tuner: Any) -> None:
        """Set what the router learns, from a tuner as it is now; it may go on."""

    @abstractmethod
    def _build(self) -> Any:
        """Return the model of ``base_`` and ``weights_``, ready to predict."""

    def _training(self, data: RoutingData) -> TuningTraining:
        return TuningTraining(self, data)

    def _sample(self, data: RoutingData) -> RoutingData:
        data = data.select(np.flatnonzero(~np.isnan(data.quality).all(axis=1)))
        one_each = sample(data, self.max_queries, self.seed)
        return replace(one_each, embeddings=None, encoder_id=None)

    def _level_scores(
        self, data: RoutingData, rows: NDArray[np.intp], outside: Floats
    ) -> tuple[NDArray[np.intp], Floats]:
        # The model is not tuned again, so what it was not tuned on shows its scores best.
        return (rows, outside) if len(rows) else super()._level_scores(data, rows, outside)

    def set_state(
        self, llms: Sequence[LLMInfo], arrays: Mapping[str, NDArray[Any]], values: Mapping[str, Any]
    ) -> None:
        """Take over a state, and build its model: what is missing is said now, not when asked.

        Raises:
            WeightsError: the pretrained model cannot be had.
            EncoderMismatchError: it is not the one of the training.
            MissingExtraError: a library is not installed.
        """
        super().set_state(llms, arrays, values)
        self._model()

    def _model(self) -> Any:
        if self.weights_.model is None:
            with LOCK:
                if self.weights_.model is None:
                    self.weights_.model = self._build()
        return self.weights_.model


class TuningTraining(EpochTraining):
    """Fine-tuning on four fifths of a sample; the rest calibrates."""

    router: FineTunedRouter

    def __init__(self, router: FineTunedRouter, data: RoutingData) -> None:
        self._sample = router._sample(data)
        self._rows, training, self._held_out = split_off(self._sample, router.seed)
        self._tuner = router._tuner(training, self._held_out)
        super().__init__(router, data, self._tuner.epochs)

    def _advance(self) -> bool:
        self._tuner.change(self.settings(self.done))
        self._tuner.epoch()
        return True

    def _settle(self) -> None:
        router, outside = self.router, np.empty((0, len(self.data.llms)))
        router._take(self._tuner)
        if self._held_out is not None:
            outside = router._raw(batch_of(self._held_out))
        router._calibrate(self._sample, self._rows, outside)
        router._learn_lengths(self._sample)

    def _arrays(self) -> Arrays:
        return self._tuner.state()

    def _restore(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        self._tuner.change(self.settings(max(self.done - 1, 0)))
        self._tuner.restore(arrays)


def calibrated_loss(raw: Floats, quality: Floats) -> float:
    """Return the log loss of raw scores once they are calibrated: lower is better.

    Args:
        raw: (n, n_llms) scores of questions that were not learned from.
        quality: (n, n_llms), NaN where not measured.
    """
    known = ~np.isnan(quality)
    mean = np.where(known, quality, 0.0).sum(axis=0) / np.maximum(known.sum(axis=0), 1)
    slope = fit_slope(raw, quality, "logit", each=True)
    expected = calibrated(slope, raw, quality, mean, "logit").apply(raw)[known]
    target = quality[known]
    inside = np.clip(expected, 1e-6, 1 - 1e-6)
    return float(-(target * np.log(inside) + (1 - target) * np.log1p(-inside)).mean())
