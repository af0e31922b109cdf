"""How hard a question looks, from its form: weights that come with the package."""

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

from waypost.contracts.types import Floats
from waypost.encoders.structure import form_of

WEIGHTS = "weights.json"
POINTS = 101
"""Points of the table of quantiles."""


COLUMNS = {
    "characters": 0,
    "words": 1,
    "numbers": 6,
    "line breaks": 7,
    "code": 8,
    "LaTeX": 9,
    "arithmetic": 10,
    "command verbs": 13,
}
"""Features of `form_of` that make a question harder, never easier."""


def features_of(texts: Sequence[str]) -> Floats:
    """Return the features of texts, (n, `COLUMNS`), each in [-1, 1]."""
    return np.asarray(form_of(texts)[:, list(COLUMNS.values())], np.float64)


@dataclass(frozen=True, eq=False)
class DifficultyModel:
    """A linear score of a text, and its distribution over questions.

    Attributes:
        weights: One for each of `COLUMNS`, at least 0.
        quantiles: (`POINTS`,), scores that equal shares of the questions it learned on are below.
        learned_on: Data, LLMs and numbers of the training, for readers.
    """

    weights: Floats
    quantiles: Floats
    learned_on: dict[str, Any]

    def scores(self, texts: Sequence[str]) -> Floats:
        """Return the score of each text, (n,): the larger, the harder."""
        return np.asarray(features_of(texts) @ self.weights, np.float64)

    def write(self, path: Path) -> None:
        """Write it as JSON."""
        data = {
            "learned_on": self.learned_on,
            "quantiles": np.round(self.quantiles, 6).tolist(),
            "weights": dict(zip(COLUMNS, np.round(self.weights, 6).tolist(), strict=True)),
        }
        path.write_text(json.dumps(data) + "\n", encoding="utf-8")


@cache
def shipped() -> DifficultyModel:
    """Return the model that comes with the package."""
    text = (files(__package__) / WEIGHTS).read_text(encoding="utf-8")
    data = json.loads(text)
    return DifficultyModel(
        np.array([data["weights"][name] for name in COLUMNS], np.float64),
        np.asarray(data["quantiles"], np.float64),
        data["learned_on"],
    )


def quantiles_of(scores: NDArray[np.floating[Any]]) -> Floats:
    """Return the table of quantiles, (`POINTS`,), of the scores of questions."""
    return np.asarray(np.quantile(scores, np.linspace(0.0, 1.0, POINTS)))
