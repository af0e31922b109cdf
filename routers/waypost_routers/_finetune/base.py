"""Pretrained models that routers fine-tune: loaded once per process, identified by digest."""

from __future__ import annotations

import copy
import hashlib
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from threading import RLock
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from waypost import weights
from waypost.contracts.epochs import Arrays, EpochRouter, EpochTraining
from waypost.contracts.errors import (
    EncoderMismatchError,
    MissingExtraError,
    WeightsError,
    names,
)
from waypost.contracts.records import LLMInfo
from waypost.contracts.routing_data import RoutingData
from waypost.contracts.types import Floats
from waypost_routers._calibration import calibrated, fit_slope
from waypost_routers._learned import CalibratedRouter, split_off
from waypost_routers._neural.epochs import Learner
from waypost_routers._shared import sample

Kind = Literal["encoder", "causal"]

LOCK = RLock()
"""Lock held while a model is loaded or built, for concurrent first requests."""

_loaded: dict[tuple[str, str, str], Base] = {}


@dataclass(frozen=True, eq=False)
class Base:
    """A pretrained model in float32, never changed; training uses a `copy`.

    Attributes:
        name: Hub name or folder.
        folder: Folder of its files.
        model: The transformers model, in evaluation mode, with frozen parameters.
        device: Its torch device.
        digest: sha256 of its parameters and its tokenizer.
    """

    name: str
    folder: Path
    model: Any
    device: str
    digest: str

    def copy(self) -> Any:
        """Return a model with new modules that share the frozen parameters."""
        shared = {id(value): value for value in self.model.parameters()}
        return copy.deepcopy(self.model, shared)


def load_base(name: str, kind: Kind, device: str, digest: str | None = None) -> Base:
    """Load a pretrained model, or return the cached one.

    Args:
        name: Hub name or folder; see `waypost.weights.resolve`.
        kind: ``encoder`` (hidden states) or ``causal`` (next-token logits).
        device: ``cpu``, ``cuda``, or ``auto`` (cuda if available).
        digest: Expected digest: that of the model the router was trained on; None accepts any.

    Raises:
        MissingExtraError: torch or transformers is not installed.
        WeightsError: the model is not available, or its folder cannot be read.
        EncoderMismatchError: the model has another digest.
    """
    torch, transformers = _libraries()
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    folder = weights.resolve(name)
    with LOCK:
        key = (str(folder), kind, device)
        if key not in _loaded:
            auto = (
                transformers.AutoModel if kind == "encoder" else transformers.AutoModelForCausalLM
            )
            _loaded[key] = _read(name, folder, auto, device)
        base = _loaded[key]
    if digest is not None and base.digest != digest:
        raise EncoderMismatchError(
            f"{name}: {folder} holds other weights than the router was trained on (digest "
            f"{base.digest[:12]}, expected {digest[:12]}); get those weights, or train again"
        )
    return base


def _libraries() -> tuple[Any, Any]:
    for module in ("torch", "transformers"):
        try:
            __import__(module)
        except ImportError:
            raise MissingExtraError(module, "train") from None
    import torch
    import transformers

    return torch, transformers


def _read(name: str, folder: Path, auto: Any, device: str) -> Base:
    import torch

    try:
        model, info = auto.from_pretrained(folder, local_files_only=True, output_loading_info=True)
        model = model.to(device, torch.float32)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise WeightsError(f"{name}: {folder} does not load on {device}: {error}") from error
    model.eval().requires_grad_(False)
    missing = set(info["missing_keys"])  # initialized at random, such as an unused pooler
    if unread := sorted(key for key in missing if not key.startswith("pooler.")):
        raise WeightsError(f"{name}: {folder} lacks parameters of the model: {names(unread)}")
    sha = hashlib.sha256()
    for key, value in sorted(model.state_dict().items()):
        if key not in missing:
            sha.update(key.encode())
            sha.update(value.cpu().contiguous().numpy().data)
    for file in ("tokenizer.json", "tokenizer.model"):
        if (folder / file).is_file():
            sha.update((folder / file).read_bytes())
    return Base(name, folder, model, device, sha.hexdigest())


class Weights:
    """Trained arrays by name, and the model built with them, which is not part of the state.

    Attributes:
        arrays: The trained parameters.
        model: The model built with them; None before its first use.
    """

    def __init__(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        self.arrays = dict(arrays)
        self.model: Any = None

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Return the state as named arrays."""
        return dict(self.arrays)

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Weights:
        """Rebuild the weights from `to_arrays`."""
        return cls(arrays)

    def __getstate__(self) -> dict[str, Any]:
        return {"arrays": self.arrays, "model": None}


class Tuner(Learner):
    """A model in fine-tuning; an epoch ends with an evaluation on held-out questions.

    Attributes:
        epochs: Total number of epochs.
    """

    epochs: int


class FineTunedRouter(EpochRouter, CalibratedRouter):
    """A router that fine-tunes a model on four fifths of a sample; the rest calibrates it.

    A subclass implements `_tuner`, `_take`, `_build` and `_raw`, and has the parameters
    ``max_queries`` and ``seed``. It encodes the texts itself.

    Learned by ``fit``, besides what every `CalibratedRouter` learns:
        weights_: The trained parameters.
        base_: The pretrained model: its ``name`` and ``digest``, and settings of its use.
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
        """Return a tuner of raw scores on ``data``; it may choose its state on ``held_out``."""

    @abstractmethod
    def _take(self, tuner: Any) -> None:
        """Set the learned attributes from the tuner's current state; it may train further."""

    @abstractmethod
    def _build(self) -> Any:
        """Return the model built from ``base_`` and ``weights_``, ready to predict."""

    def _training(self, data: RoutingData) -> TuningTraining:
        return TuningTraining(self, data)

    def _sample(self, data: RoutingData) -> RoutingData:
        data = data.select(np.flatnonzero(~np.isnan(data.quality).all(axis=1)))
        one_each = sample(data, self.max_queries, self.seed)
        return replace(one_each, embeddings=None, encoder_id=None)

    def _level_scores(
        self, data: RoutingData, rows: NDArray[np.intp], outside: Floats
    ) -> tuple[NDArray[np.intp], Floats]:
        # The model is not tuned again, so its scores on held-out rows are unbiased.
        return (rows, outside) if len(rows) else super()._level_scores(data, rows, outside)

    def set_state(
        self, llms: Sequence[LLMInfo], arrays: Mapping[str, NDArray[Any]], values: Mapping[str, Any]
    ) -> None:
        """Set the learned state and build its model, so that errors occur at load, not at request.

        Raises:
            WeightsError: the pretrained model is not available.
            EncoderMismatchError: the pretrained model is not the one of the training.
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
    """Fine-tuning on four fifths of a sample, and calibration on the rest."""

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
            outside = router._raw(self._held_out.batch())
        router._calibrate(self._sample, self._rows, outside)
        router._learn_lengths(self._sample)

    def _arrays(self) -> Arrays:
        return self._tuner.state()

    def _restore(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        self._tuner.change(self.settings(max(self.done - 1, 0)))
        self._tuner.restore(arrays)


def calibrated_loss(raw: Floats, quality: Floats) -> float:
    """Return the log loss of raw scores after calibration.

    Args:
        raw: (n, n_llms) scores of questions not trained on.
        quality: (n, n_llms), NaN where not measured.
    """
    known = ~np.isnan(quality)
    mean = np.where(known, quality, 0.0).sum(axis=0) / np.maximum(known.sum(axis=0), 1)
    slope = fit_slope(raw, quality, "logit", each=True)
    expected = calibrated(slope, raw, quality, mean, "logit").apply(raw)[known]
    target = quality[known]
    inside = np.clip(expected, 1e-6, 1 - 1e-6)
    return float(-(target * np.log(inside) + (1 - target) * np.log1p(-inside)).mean())
