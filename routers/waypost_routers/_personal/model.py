"""How much a user prefers an answer: the dot product of a user's state and the answer's vector.

The same formulas run in torch while fitting and in numpy afterwards: a function here takes tensors
or arrays, and the two functions in which the libraries differ (`Ops`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from waypost.contracts.types import Floats, Floats32
from waypost_routers._linear.logistic import sigmoid

Values = Mapping[str, Any]
"""Parameters by name: tensors or arrays."""


class Ops(NamedTuple):
    """Functions in which torch and numpy differ."""

    sigmoid: Callable[[Any], Any]
    tanh: Callable[[Any], Any]


NUMPY = Ops(sigmoid, np.tanh)


class Turns(NamedTuple):
    """Turns of users; leading axes are any, the last one counts a user's turns.

    Attributes:
        difference: (..., n, width), vector of the rated or left answer less that of the right one;
            for a rating, less the mean over the pool.
        known: (..., n), the same difference of the global score, which no state changes.
        value: (..., n), what the user said: 0 to 1.
        rated: (..., n), 1 for a rating, 0 for a preference.
        there: (..., n), 0 for padding.
    """

    difference: Any
    known: Any
    value: Any
    rated: Any
    there: Any


Encoder = Callable[[Values, Turns, Ops], Any]
"""Makes users' states (..., width) of their visible turns."""


def expected(p: Values, state: Any, turns: Turns, ops: Ops) -> Any:
    """Return what users of these states are expected to say, (..., n).

    A preference follows Bradley and Terry: the sigmoid of the difference in preference. A rating
    has a slope and a level of its own.
    """
    return ops.sigmoid(logits(p, state, turns))


def logits(p: Values, state: Any, turns: Turns) -> Any:
    """Return the logits of `expected`, (..., n)."""
    gain = turns.known + (turns.difference * state[..., None, :]).sum(-1)
    return gain * (1 + turns.rated * (p["rating"][0] - 1)) + turns.rated * p["rating"][1]


def shared(events: Any, half: float) -> Any:
    """Return the weight of a user's own score beside the global one: n / (n + half)."""
    return events / (events + half)


@dataclass(frozen=True, eq=False)
class PersonalModel:
    """The inference state of a personal router, in numpy.

    Attributes:
        values: Parameters by name. Of the answers' vectors: ``centre`` and ``spread`` (n_outcomes,)
            standardize the predicted outcomes; ``outcome`` (n_outcomes, width), ``llm``
            (n_llms, width), ``query`` (d, width), ``match`` (n_llms, width). Of the global score:
            ``of_outcome`` (n_outcomes,), ``of_llm`` (n_llms,). Of the users: ``rating`` (2,),
            ``half`` (1,), and those of the encoder.
    """

    values: dict[str, NDArray[Any]]

    @property
    def width(self) -> int:
        """Length of a user's state."""
        return int(self.values["outcome"].shape[1])

    def vectors(self, rows: Floats32, outcomes: Floats) -> Floats:
        """Return the vectors of the LLMs' answers, (n, n_llms, width).

        Args:
            rows: (n, d), embeddings of the questions.
            outcomes: (n, n_llms, n_outcomes), predicted for each LLM's answer.
        """
        p = self.values
        scaled = (outcomes - p["centre"]) / p["spread"]
        asked = (rows @ p["query"])[:, None, :]
        return np.asarray(scaled @ p["outcome"] + p["llm"] + asked * p["match"])

    def known(self, outcomes: Floats) -> Floats:
        """Return the global score of the LLMs' answers, (n, n_llms): what the mean user prefers."""
        p = self.values
        scaled = (outcomes - p["centre"]) / p["spread"]
        return np.asarray(scaled @ p["of_outcome"] + p["of_llm"])

    def preferences(
        self, rows: Floats32, outcomes: Floats, states: Floats, events: Floats
    ) -> Floats:
        """Return the logits of the LLMs' answers for each question's user, (n, n_llms).

        The blend n / (n + half) of a personal and the global score; with no event the global one.

        Args:
            rows: (n, d), embeddings of the questions.
            outcomes: (n, n_llms, n_outcomes).
            states: (n, width).
            events: (n,), events that each state was made from.
        """
        known = self.known(outcomes)
        if not events.any():
            return known
        own = shared(events, float(self.values["half"][0]))[:, None] * states
        return np.asarray(known + (self.vectors(rows, outcomes) @ own[:, :, None])[:, :, 0])

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Return the state as named arrays."""
        return dict(self.values)

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> PersonalModel:
        """Rebuild the state from `to_arrays`."""
        return cls(dict(arrays))
