"""Training of a bilinear score: the dot product of an LLM's vector and the projected query.

score(j, q) = v_j . (W q + b) + c_j. RouteLLM and EmbedLLM have one more weight vector between the
two. It adds no expressive power, and is part of v_j here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from waypost.contracts.epochs import Arrays, random_state, set_random_state
from waypost.contracts.routing_data import RoutingData
from waypost.contracts.types import Floats, Floats32
from waypost_routers._learned import embeddings_of
from waypost_routers._neural.epochs import Learner, lists_to_arrays, take_over
from waypost_routers._shared import Distinct

CHECK_EVERY = 5
"""Steps between two evaluations of the held-out loss."""

ALL_PAIRS = 32
"""With more LLMs than this a step draws a seeded sample of `DRAWN` opponents for each."""

DRAWN = 16
_BETA_1, _BETA_2, _EPSILON = 0.9, 0.999, 1e-8
_FAR = 30.0


@dataclass(frozen=True)
class Factorisation:
    """Training settings of a bilinear score.

    Attributes:
        target: ``pairs`` or ``correctness``; see `loss`.
        width: Length of the LLM vectors.
        learning_rate: Learning rate of AdamW.
        weight_decay: Decoupled weight decay (Loshchilov and Hutter, 2019) of W and v.
        noise: Root-mean-square length of the Gaussian vector added to each query vector.
        batch_size: Maximum number of rows in a step.
        steps: Maximum number of steps.
        seed: Seed of initial vectors, noise and order of rows.
    """

    target: str
    width: int
    learning_rate: float
    weight_decay: float
    noise: float
    batch_size: int
    steps: int
    seed: int


class Factors(Learner):
    """A bilinear score in training; an epoch is `CHECK_EVERY` steps.

    Args:
        known: The distinct questions.
        how: The settings.

    Attributes:
        step: Number of steps made.
    """

    def __init__(self, known: Distinct, how: Factorisation) -> None:
        self.how = how
        self._known, self._where = known, known.known
        self._scores = known.scores.astype(np.float32)
        self._draw = np.random.default_rng(how.seed)
        d, m = known.rows.shape[1], self._scores.shape[1]
        project = self._draw.normal(0, how.width**-0.5, (d, how.width)).astype(np.float32)
        vectors = self._draw.normal(0, 0.1, (m, how.width)).astype(np.float32)
        bias = np.zeros(how.width, np.float32)
        self._weights = [project, vectors, bias, _levels(self._scores, self._where, how.target)]
        self._first, self._second = ([np.zeros_like(w) for w in self._weights] for _ in range(2))
        self._order, self._at, self.step = np.arange(len(known.rows)), len(known.rows), 0

    def epoch(self) -> None:
        """Make the next `CHECK_EVERY` steps, or those that are left."""
        for _ in range(min(CHECK_EVERY, self.how.steps - self.step)):
            self._one_step(self._next_rows())

    def _next_rows(self) -> NDArray[np.intp]:
        n = len(self._order)
        size = min(self.how.batch_size, n)
        if self._at + size > n:
            self._at = 0
            if size < n:
                self._draw.shuffle(self._order)
        self._at += size
        return self._order[self._at - size : self._at]

    def _one_step(self, part: NDArray[np.intp]) -> None:
        how, draw = self.how, self._draw
        project, vectors, bias, level = self._weights
        noisy = self._known.rows[part]
        if how.noise:
            drawn = draw.standard_normal(noisy.shape, np.float32)
            noisy = noisy + np.float32(how.noise / len(project) ** 0.5) * drawn
        hidden = noisy @ project + bias
        opponents = _opponents(len(vectors), draw)
        logits = np.asarray(hidden @ vectors.T + level, np.float32)
        _, error = loss(logits, self._scores[part], self._where[part], how.target, opponents)
        back = error @ vectors
        gradients = [noisy.T @ back, error.T @ hidden, back.sum(axis=0), error.sum(axis=0)]
        self.step += 1
        rise = np.sqrt(1 - _BETA_2**self.step) / (1 - _BETA_1**self.step)
        adjust = how.learning_rate * rise
        for w, g, a, b in zip(self._weights, gradients, self._first, self._second, strict=True):
            a += (1 - _BETA_1) * (g - a)
            b += (1 - _BETA_2) * (g * g - b)
            if w.ndim == 2:
                w *= np.float32(1 - how.learning_rate * how.weight_decay)
            w -= np.float32(adjust) * a / (np.sqrt(b) + np.float32(_EPSILON))

    def matrix(self) -> Floats32:
        """Return W, b, v and c as one matrix (d + 1, n_llms), the LLMs by name.

        Scores are ``rows @ matrix[:-1] + matrix[-1]``.
        """
        project, vectors, bias, level = self._weights
        return np.concatenate([project @ vectors.T, (bias @ vectors.T + level)[None]])

    def model(self) -> Floats32:
        """Return `matrix` with the LLMs in the order of the data."""
        return self._known.in_data_order(self.matrix().astype(np.float64)).astype(np.float32)

    def change(self, settings: Mapping[str, Any]) -> None:
        """Set these settings of `Factorisation` for later epochs."""
        self.how = replace(self.how, **settings)

    def state(self) -> Arrays:
        """Return the training state as named arrays."""
        return {
            "order": self._order.copy(),
            "at": np.array([self._at, self.step]),
            "random": random_state(self._draw),
            **lists_to_arrays(weights=self._weights, first=self._first, second=self._second),
        }

    def restore(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Set the state from the arrays of `state`."""
        take_over(arrays, weights=self._weights, first=self._first, second=self._second)
        take_over(arrays, order=self._order)
        self._at, self.step = (int(part) for part in arrays["at"])
        set_random_state(self._draw, arrays["random"])


def loss(
    logits: Floats32,
    scores: Floats32,
    known: NDArray[np.bool_],
    target: str,
    shifts: NDArray[np.intp],
) -> tuple[float, Floats32]:
    """Return the mean loss and its gradient by the logits, (n, n_llms).

    ``pairs``: logistic loss of the difference of two LLMs' logits, for each two LLMs with different
    scores on a question, weighted by the difference of scores. It leaves a question's mean logit
    (its easiness) undetermined, so that component of the gradient is the cross-entropy's, which
    the returned loss does not include. The two losses agree on the logits: given two independent
    answers with one correct, the first is correct with the logistic of the logits' difference
    (Rasch, 1960).
    ``correctness``: cross-entropy of each measured score.

    Args:
        logits: (n, n_llms).
        scores: (n, n_llms), in [0, 1].
        known: (n, n_llms), whether the score was measured.
        target: ``pairs`` or ``correctness``.
        shifts: For ``pairs``: the LLM in column j is compared with those in columns j + shift.
    """
    logits = np.clip(logits, -_FAR, _FAR)
    count = max(int(known.sum()), 1)
    alone = np.where(known, _sigmoid(logits) - scores, 0) / np.float32(count)
    if target == "correctness":
        total = np.where(known, np.logaddexp(0, logits) - scores * logits, 0).sum()
        return float(total / count), np.asarray(alone)
    error = np.zeros_like(logits)
    total = mass = 0.0
    for shift in shifts:
        other = np.roll(np.arange(logits.shape[1]), -int(shift))
        ahead = np.where(known & known[:, other], scores - scores[:, other], 0)
        lead, twice = logits - logits[:, other], 2 * int(shift) == logits.shape[1]
        weight = np.abs(ahead) * np.float32(0.5 if twice else 1.0)
        part = weight * (_sigmoid(lead) - (ahead > 0))
        error += part
        error[:, other] -= part
        total += float((weight * np.logaddexp(0, np.where(ahead > 0, -lead, lead))).sum())
        mass += float(weight.sum())
    mass = max(mass, 1e-9)
    shared = alone.sum(axis=1, keepdims=True) / np.maximum(known.sum(axis=1, keepdims=True), 1)
    return total / mass, error / np.float32(mass) + np.where(known, shared, 0)


def all_opponents(n_llms: int) -> NDArray[np.intp]:
    """Return the shifts that compare every two LLMs."""
    return np.arange(1, n_llms // 2 + 1)


def _opponents(n_llms: int, draw: np.random.Generator) -> NDArray[np.intp]:
    every = all_opponents(n_llms)
    return every if n_llms <= ALL_PAIRS else draw.choice(every, DRAWN, replace=False)


def _levels(scores: Floats32, known: NDArray[np.bool_], target: str) -> Floats32:
    if target == "pairs":
        return np.zeros(scores.shape[1], np.float32)
    mean = np.where(known, scores, 0).sum(axis=0) / np.maximum(known.sum(axis=0), 1)
    mean = np.clip(mean, 0.01, 0.99)
    return np.asarray(np.log(mean / (1 - mean)), np.float32)


def _sigmoid(values: Floats32) -> Floats32:
    return np.asarray(1 / (1 + np.exp(-values)))


_TIE = 1e-6


class LowestLoss:
    """A judge that keeps the factorisation of lowest held-out loss.

    Args:
        held_out: Questions not trained on.
        target: See `loss`.
        patience: Steps without a lower loss before training stops.
    """

    def __init__(self, held_out: RoutingData, target: str, patience: int) -> None:
        self._rows = embeddings_of(held_out)
        by_name = held_out.select_llms(sorted(held_out.names))
        self._known = ~np.isnan(by_name.quality)
        self._scores = np.where(self._known, by_name.quality, 0).astype(np.float32)
        self._target, self._patience = target, patience
        self._looks, self._step, self._lowest = 0, 0, np.inf
        self.best = 0
        self.losses: list[float] = []
        self._model: NDArray[np.float32] | None = None

    def see(self, learner: Factors) -> bool:
        """Evaluate a factorisation; return whether to continue."""
        self._looks += 1
        now = self._loss(learner.matrix())
        self.losses.append(now)
        if now < self._lowest - _TIE or self._model is None:
            self.best, self._step, self._lowest = self._looks, learner.step, now
            self._model = learner.model()
            return True
        return learner.step < self._step + self._patience

    @property
    def outside(self) -> Floats:
        """Raw scores of the questions at the lowest loss, (n_held, n_llms)."""
        assert self._model is not None  # read only after the first epoch
        return raw_scores(self._rows, self._model)

    def state(self) -> Arrays:
        """Return the best model, its step, and all losses as named arrays."""
        found: Arrays = {
            "at": np.array([self._looks, self.best, self._step]),
            "lowest": np.array([self._lowest]),
            "losses": np.array(self.losses, np.float64),
        }
        return found if self._model is None else {**found, "model": self._model}

    def restore(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Set the state from the arrays of `state`."""
        self._looks, self.best, self._step = (int(part) for part in arrays["at"])
        self._lowest = float(arrays["lowest"][0])
        self.losses = [float(one) for one in arrays["losses"]]
        self._model = arrays.get("model")

    def _loss(self, matrix: NDArray[np.float32]) -> float:
        logits = self._rows @ matrix[:-1] + matrix[-1]
        opponents = all_opponents(self._scores.shape[1])
        return loss(logits, self._scores, self._known, self._target, opponents)[0]


def raw_scores(rows: NDArray[Any], model: NDArray[np.float32]) -> Floats:
    """Return the scores (n, n_llms) of a factorisation's model."""
    return np.asarray(rows @ model[:-1] + model[-1], np.float64)
