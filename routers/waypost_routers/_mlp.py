"""A small feed-forward network in numpy: ReLU layers, sigmoid outputs, AdamW, dropout.

At the size of a router (some hundred inputs, one or two hidden layers) a step takes about as long
here as in torch, whose import alone takes longer than most of these fits.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.float32]

_BETA_1, _BETA_2, _EPSILON = 0.9, 0.999, 1e-8
_FAR = 30.0


@dataclass(frozen=True)
class Training:
    """How a network is trained.

    Attributes:
        learning_rate: Of AdamW; falls to 0 as a cosine over the epochs.
        weight_decay: Decoupled (Loshchilov and Hutter, 2019), of matrices only.
        dropout: Share of the hidden units left out in each step.
        batch_size: Rows in a step.
        epochs: Passes over the rows.
        seed: Of initial weights, order of rows and dropout.
    """

    learning_rate: float
    weight_decay: float
    dropout: float
    batch_size: int
    epochs: int
    seed: int

    def member(self, number: int, batch_size: int) -> Training:
        """Return the settings of one network of several."""
        return replace(self, seed=self.seed * 64 + number, batch_size=batch_size)


def forward(rows: Rows, layers: Sequence[Rows]) -> Rows:
    """Return the outputs before the sigmoid, (n, n_outputs).

    Args:
        rows: (n, d).
        layers: Matrix (inputs, outputs) and bias (outputs,) of each layer, in turn.
    """
    for matrix, bias in zip(layers[:-2:2], layers[1:-2:2], strict=True):
        rows = np.maximum(rows @ matrix + bias, 0)
    return np.asarray(rows @ layers[-2] + layers[-1])


def train(
    rows: Rows, scores: Rows, weights: Rows, widths: Sequence[int], how: Training
) -> Iterator[list[Rows]]:
    """Train on soft targets by cross-entropy; yields the layers after each epoch.

    The output layer starts at zero and with the columns' means, so that no column depends on
    where it stands.

    Args:
        rows: (n, d).
        scores: (n, n_outputs), in [0, 1].
        weights: (n, n_outputs) of each cell, about 1 on average; 0 leaves it out.
        widths: Units of each hidden layer; without any it is logistic regression.
        how: The settings.
    """
    draw = np.random.default_rng(how.seed)
    layers = _initial(rows.shape[1], scores, weights, widths, draw)
    first, second = ([np.zeros_like(p) for p in layers] for _ in range(2))
    order = np.arange(len(rows))
    a_pass = -(-len(rows) // how.batch_size)
    total, step = a_pass * how.epochs, 0
    for _ in range(how.epochs):
        draw.shuffle(order)
        for part in np.array_split(order, a_pass):
            gradients = _gradients(rows[part], scores[part], weights[part], layers, how, draw)
            rate = how.learning_rate * (1 + np.cos(np.pi * step / total)) / 2
            step += 1
            adjust = rate * np.sqrt(1 - _BETA_2**step) / (1 - _BETA_1**step)
            for p, g, m, v in zip(layers, gradients, first, second, strict=True):
                m += (1 - _BETA_1) * (g - m)
                v += (1 - _BETA_2) * (g * g - v)
                if p.ndim == 2:
                    p *= np.float32(1 - rate * how.weight_decay)
                p -= np.float32(adjust) * m / (np.sqrt(v) + np.float32(_EPSILON))
        yield layers


def _initial(
    inputs: int, scores: Rows, weights: Rows, widths: Sequence[int], draw: np.random.Generator
) -> list[Rows]:
    layers: list[Rows] = []
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
    rows: Rows,
    scores: Rows,
    weights: Rows,
    layers: Sequence[Rows],
    how: Training,
    draw: np.random.Generator,
) -> list[Rows]:
    states, kept = [rows], []
    for matrix, bias in zip(layers[:-2:2], layers[1:-2:2], strict=True):
        state = np.maximum(states[-1] @ matrix + bias, 0)
        mask = (draw.random(state.shape, np.float32) >= how.dropout) / np.float32(1 - how.dropout)
        states.append(state * mask)
        kept.append(mask)
    logits = np.clip(states[-1] @ layers[-2] + layers[-1], -_FAR, _FAR)
    error = weights * (1 / (1 + np.exp(-logits)) - scores) / np.float32(len(rows))
    found: list[Rows] = []
    for at in range(len(states) - 1, -1, -1):
        found[:0] = [states[at].T @ error, error.sum(axis=0)]
        if at:
            error = (error @ layers[2 * at].T) * kept[at - 1] * (states[at] > 0)
    return found
