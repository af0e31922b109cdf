"""How hard a question looks, from hashed words and its form: weights that come with the package."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from waypost.contracts.encoder import Encoder
from waypost.contracts.types import Floats
from waypost.encoders import EncoderSpec, make_encoder

WEIGHTS = "weights.json"
POINTS = 101
"""Points of the table of quantiles."""


@cache
def features_encoder() -> Encoder:
    """Return the encoder of hashed words and structure features; it has no weights to fetch."""
    return make_encoder(EncoderSpec(kind="hashing", dimension=256, cache_mb=8))


@dataclass(frozen=True, eq=False)
class DifficultyModel:
    """A linear score of a text, and its distribution over questions.

    Attributes:
        weights: (d,), of the features of `features_encoder`.
        quantiles: (`POINTS`,), scores that equal shares of the questions it learned on are below,
            predicted out of sample.
        learned_on: Data, LLMs and numbers of the training, for readers.
    """

    weights: Floats
    quantiles: Floats
    learned_on: dict[str, Any]

    def scores(self, texts: Sequence[str]) -> Floats:
        """Return the score of each text, (n,): the larger, the harder."""
        return np.asarray(features_encoder().encode(texts) @ self.weights, np.float64)

    def write(self, path: Path) -> None:
        """Write it as JSON."""
        data = {
            "learned_on": self.learned_on,
            "quantiles": np.round(self.quantiles, 6).tolist(),
            "weights": np.round(self.weights, 6).tolist(),
        }
        path.write_text(json.dumps(data) + "\n", encoding="utf-8")


@cache
def shipped() -> DifficultyModel:
    """Return the model that comes with the package."""
    text = (files(__package__) / WEIGHTS).read_text(encoding="utf-8")
    data = json.loads(text)
    return DifficultyModel(
        np.asarray(data["weights"], np.float64),
        np.asarray(data["quantiles"], np.float64),
        data["learned_on"],
    )


def quantiles_of(scores: NDArray[np.floating[Any]]) -> Floats:
    """Return the table of quantiles, (`POINTS`,), of the scores of questions."""
    return np.asarray(np.quantile(scores, np.linspace(0.0, 1.0, POINTS)))
