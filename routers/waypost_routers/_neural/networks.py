"""Small feed-forward networks in numpy: ReLU layers, sigmoid outputs, AdamW, dropout.

At the size of a router (a few hundred inputs, one or two hidden layers) a step takes about as long
as in torch, whose import alone takes longer than most of these fits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from waypost.contracts.epochs import Arrays, random_state, set_random_state
from waypost.contracts.types import Floats, Floats32
from waypost_routers._neural.epochs import Learner, lists_to_arrays, take_over, under, within

_BETA_1, _BETA_2, _EPSILON = 0.9, 0.999, 1e-8
_FAR = 30.0


@dataclass(frozen=True)
class Training:
    """Training settings of a network.

    Attributes:
        learning_rate: Initial learning rate of AdamW; falls to 0 as a cosine over the epochs.
        weight_decay: Decoupled weight decay (Loshchilov and Hutter, 2019) of matrices only.
        dropout: Share of the hidden units dropped in each step.
        batch_size: Rows in a step.
        epochs: Passes over the rows.
        seed: Seed of initial weights, order of rows and dropout.
    """

    learning_rate: float
    weight_decay: float
    dropout: float
    batch_size: int
    epochs: int
    seed: int

    def member(self, number: int, batch_size: int) -> Training:
        """Return the settings of one member of an ensemble."""
        return replace(self, seed=self.seed * 64 + number, batch_size=batch_size)


def forward(rows: Floats32, layers: Sequence[Floats32]) -> Floats32:
    """Return the outputs before the sigmoid, (n, n_outputs).

    Args:
        rows: (n, d).
        layers: Matrix (inputs, outputs) and bias (outputs,) of each layer, alternating.
    """
    for matrix, bias in zip(layers[:-2:2], layers[1:-2:2], strict=True):
        rows = np.maximum(rows @ matrix + bias, 0)
    return np.asarray(rows @ layers[-2] + layers[-1])


class Network:
    """A network in training on soft targets, by cross-entropy.

    The output layer starts with zero weights and the columns' means as biases, so that no column
    depends on its position.

    Args:
        rows: (n, d).
        scores: (n, n_outputs), in [0, 1].
        weights: (n, n_outputs), about 1 on average; 0 leaves a cell out.
        widths: Units of each hidden layer; without any it is logistic regression.
        how: The settings; rates and shares may change between epochs.

    Attributes:
        layers: The layers, as in `forward`; trained in place.
    """

    def __init__(
        self,
        rows: Floats32,
        scores: Floats32,
        weights: Floats32,
        widths: Sequence[int],
        how: Training,
    ) -> None:
        self.how = how
        self._data = rows, scores, weights
        self._draw = np.random.default_rng(how.seed)
        self.layers = _initial(rows.shape[1], scores, weights, widths, self._draw)
        self._first, self._second = ([np.zeros_like(p) for p in self.layers] for _ in range(2))
        self._order = np.arange(len(rows))
        self._step = 0

    def epoch(self) -> None:
        """Pass over the rows once, in random order."""
        rows, scores, weights = self._data
        how, draw = self.how, self._draw
        draw.shuffle(self._order)
        a_pass = -(-len(rows) // how.batch_size)
        for part in np.array_split(self._order, a_pass):
            gradients = _gradients(rows[part], scores[part], weights[part], self.layers, how, draw)
            turn = np.pi * self._step / (a_pass * how.epochs)
            rate = how.learning_rate * (1 + np.cos(turn)) / 2
            self._step += 1
            adjust = rate * np.sqrt(1 - _BETA_2**self._step) / (1 - _BETA_1**self._step)
            moved = zip(self.layers, gradients, self._first, self._second, strict=True)
            for p, g, m, v in moved:
                m += (1 - _BETA_1) * (g - m)
                v += (1 - _BETA_2) * (g * g - v)
                if p.ndim == 2:
                    p *= np.float32(1 - rate * how.weight_decay)
                p -= np.float32(adjust) * m / (np.sqrt(v) + np.float32(_EPSILON))

    def state(self) -> Arrays:
        """Return the training state as named arrays."""
        return {
            "order": self._order,
            "step": np.array([self._step]),
            "random": random_state(self._draw),
            **lists_to_arrays(layers=self.layers, first=self._first, second=self._second),
        }

    def restore(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Set the state from the arrays of `state` for the same rows and widths."""
        take_over(arrays, layers=self.layers, first=self._first, second=self._second)
        take_over(arrays, order=self._order)
        self._step = int(arrays["step"][0])
        set_random_state(self._draw, arrays["random"])


def _initial(
    inputs: int,
    scores: Floats32,
    weights: Floats32,
    widths: Sequence[int],
    draw: np.random.Generator,
) -> list[Floats32]:
    layers: list[Floats32] = []
    for outputs in widths:
        spread = np.sqrt(2 / inputs)
        layers.append(draw.normal(0, spread, (inputs, outputs)).astype(np.float32))
        layers.append(np.zeros(outputs, np.float32))
        inputs = outputs
    mean = (scores * weights).sum(axis=0) / np.maximum(weights.sum(axis=0), 1e-9)
    mean = np.clip(mean, 0.01, 0.99)
    layers.append(np.zeros((inputs, scores.shape[1]), np.float32))
    layers.append(np.log(mean / (1 - mean)).astype(np.float32))
    return layers


def _gradients(
    rows: Floats32,
    scores: Floats32,
    weights: Floats32,
    layers: Sequence[Floats32],
    how: Training,
    draw: np.random.Generator,
) -> list[Floats32]:
    states, kept = [rows], []
    for matrix, bias in zip(layers[:-2:2], layers[1:-2:2], strict=True):
        state = np.maximum(states[-1] @ matrix + bias, 0)
        mask = (draw.random(state.shape, np.float32) >= how.dropout) / np.float32(1 - how.dropout)
        states.append(state * mask)
        kept.append(mask)
    logits = np.clip(states[-1] @ layers[-2] + layers[-1], -_FAR, _FAR)
    error = weights * (1 / (1 + np.exp(-logits)) - scores) / np.float32(len(rows))
    found: list[Floats32] = []
    for at in range(len(states) - 1, -1, -1):
        found[:0] = [states[at].T @ error, error.sum(axis=0)]
        if at:
            error = (error @ layers[2 * at].T) * kept[at - 1] * (states[at] > 0)
    return found


FEWEST_BATCHES, SMALLEST_BATCH = 16, 16
"""Minimum number of batches in a pass, and minimum batch size, which takes precedence."""


@dataclass(frozen=True, eq=False)
class Networks:
    """An ensemble of networks of one shape.

    Attributes:
        layers: Matrix (n_members, inputs, outputs) and bias (n_members, outputs) of each layer,
            alternating; float32 values in float64.
    """

    layers: tuple[Floats, ...]

    def logits(self, rows: NDArray[Any]) -> Floats:
        """Return each member's logits, (n_members, n, n_outputs)."""
        rows = np.asarray(rows, np.float64)
        members = range(len(self.layers[0]))
        return np.stack([forward(rows, [part[i] for part in self.layers]) for i in members])

    def with_outputs(self, order: NDArray[np.intp]) -> Networks:
        """Return the networks with output ``order[k]`` at place k."""
        matrix, bias = self.layers[-2:]
        return Networks((*self.layers[:-2], matrix[..., order], bias[..., order]))

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Return the state as named arrays."""
        return {str(i): part.astype(np.float32) for i, part in enumerate(self.layers)}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Networks:
        """Rebuild the networks from `to_arrays`."""
        return cls(tuple(arrays[str(i)].astype(np.float64) for i in range(len(arrays))))


class NetworksLearner(Learner):
    """An ensemble in training; its members differ by their seed.

    Args:
        rows: (n, d), distinct and in canonical order; scaled here to mean 0 and variance 1.
        scores: (n, n_outputs), in [0, 1].
        weights: (n, n_outputs), 0 leaves a cell out; each column sums to 1, or to 0.
        widths: Units of each hidden layer.
        how: The settings; batches are smaller if there are fewer than `FEWEST_BATCHES`.
        members: Number of networks.
        order: (n_outputs,); the model has output ``order[k]`` at place k.
    """

    def __init__(
        self,
        rows: Floats32,
        scores: Floats,
        weights: Floats,
        widths: Sequence[int],
        how: Training,
        members: int,
        order: NDArray[np.intp],
    ) -> None:
        self._order = order
        self._centre = rows.mean(axis=0)
        self._scale = 1 / max(float(np.sqrt(((rows - self._centre) ** 2).mean())), 1e-6)
        scaled = ((rows - self._centre) * np.float32(self._scale)).astype(np.float32)
        targets = scores.astype(np.float32)
        shares = (weights * len(rows)).astype(np.float32)
        few = max(len(rows) // FEWEST_BATCHES, SMALLEST_BATCH)
        own = [how.member(i, min(how.batch_size, few)) for i in range(members)]
        self.networks = [Network(scaled, targets, shares, widths, one) for one in own]

    def epoch(self) -> None:
        """Train each member for one more epoch."""
        for network in self.networks:
            network.epoch()

    def model(self) -> Networks:
        """Return the ensemble."""
        layers = [network.layers for network in self.networks]
        return _stacked(layers, self._centre, self._scale).with_outputs(self._order)

    def change(self, settings: Mapping[str, Any]) -> None:
        """Set these settings of `Training` for later epochs."""
        for network in self.networks:
            network.how = replace(network.how, **settings)

    def state(self) -> Arrays:
        """Return the members' states as named arrays."""
        return {
            name: part
            for i, network in enumerate(self.networks)
            for name, part in under(str(i), network.state()).items()
        }

    def restore(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Set the state from the arrays of `state`."""
        for i, network in enumerate(self.networks):
            network.restore(within(arrays, str(i)))


def _stacked(several: Sequence[Sequence[Floats32]], centre: Floats32, scale: float) -> Networks:
    """Stack the members, with the input scaling folded into their first layer."""
    parts = [np.stack(part).astype(np.float64) for part in zip(*several, strict=True)]
    parts[1] -= scale * (centre.astype(np.float64) @ parts[0])
    parts[0] *= scale
    return Networks(tuple(part.astype(np.float32).astype(np.float64) for part in parts))
