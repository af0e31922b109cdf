"""Which answer is right, and what another LLM will answer, given the answers so far.

A latent-class model after Dawid and Skene (1979). A question is of one of several classes, such as
"easy", "hard for small LLMs", "misleading". In each class an LLM gives the right answer, the
question's popular wrong answer, another wrong one, or none, with probabilities of its own. LLMs
that fail together do so in the same classes and on the popular wrong answer, so that their
agreement counts for little. The base router's predictions say of which class a question may be.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from waypost.contracts.types import Floats

RIGHT, POPULAR, OTHER, SILENT = range(4)
"""What an LLM answers: the right answer, the popular wrong one, another wrong one, none."""

MOST_CALLS = 5
"""Maximum answers of a state."""

OPEN_ANSWERS = 30.0
"""Number of possible answers that is assumed of a question without options."""


@dataclass(frozen=True, eq=False)
class Belief:
    """The learned model of m LLMs with z classes.

    Attributes:
        answers: (z, m, 4) probability of `RIGHT`, `POPULAR`, `OTHER` and `SILENT`.
        center, scale: (m,) mean and deviation of the logits of the base router's predictions.
        axes: (m, d) principal axes of the standardised logits, each with unit variance.
        gate: (d + 1, z) coefficients of the classes in the axes and a constant.
    """

    answers: Floats
    center: Floats
    scale: Floats
    axes: Floats
    gate: Floats

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Return the state as named arrays."""
        return dict(vars(self))

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Belief:
        """Rebuild it from `to_arrays`."""
        return cls(**arrays)

    def features(self, logits: Floats) -> Floats:
        """Return the inputs of the gate, (n, d + 1)."""
        inside = ((logits - self.center) / self.scale) @ self.axes
        return np.column_stack([inside, np.ones(len(inside))])

    def classes(self, logits: Floats) -> Floats:
        """Return the probability of each class before any answer, (n, z)."""
        return softmax(self.features(logits) @ self.gate)


def softmax(utilities: Floats) -> Floats:
    """Return the probabilities over the last axis."""
    weight = np.exp(utilities - utilities.max(axis=-1, keepdims=True))
    return np.asarray(weight / weight.sum(axis=-1, keepdims=True))


def logit(quality: Floats) -> Floats:
    """Return log(p / (1 - p)) of predicted qualities, clipped to [.02, .98]."""
    inside = np.clip(quality, 0.02, 0.98)
    return np.asarray(np.log(inside / (1 - inside)))
