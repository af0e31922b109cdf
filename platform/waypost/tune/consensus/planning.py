"""Choose the next call by its expected gain: a limited look ahead over the answers it may bring.

The value of a state is the chance that its most likely answer is right, or that of the best call:
the mean value of the states that follow, less the price of the call. A search of depth 1 follows
the next answer only; a deeper one also follows the answers after it, of the calls that are best at
depth 1. All arrays hold many states at once.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from waypost.contracts.types import Floats
from waypost.tune.consensus.belief import MOST_CALLS, OTHER, POPULAR, RIGHT, SILENT, Belief

NEW, NONE = MOST_CALLS, MOST_CALLS + 1
"""Outcomes of a call besides the groups that it may join: an answer of its own, no answer."""

_RARE = 1e-3
_BLOCK = 1 << 12


@dataclass(frozen=True, eq=False)
class Situations:
    """What is known of n questions; m LLMs, z classes, `MOST_CALLS` groups of equal answers.

    Attributes:
        weights: float32 (n, z, size + 1, size + 1), up to a factor the probability of class,
            right answer and popular wrong one, for as many groups as a situation has. The last
            place stands for each answer that nobody has given.
        count: (n,) number of groups.
        options: (n,) number of possible answers.
        price: (n, m) utility that a call costs.
        open: (n, m) whether an LLM may be asked.
    """

    weights: NDArray[np.float32]
    count: NDArray[np.intp]
    options: Floats
    price: Floats
    open: NDArray[np.bool_]

    @classmethod
    def start(
        cls,
        belief: Belief,
        logits: Floats,
        options: Floats,
        price: Floats,
        open_: NDArray[np.bool_],
    ) -> Situations:
        """Return the situations before any answer."""
        classes = belief.classes(logits)
        weights = classes.astype(np.float32)[:, :, None, None]
        count = np.zeros(len(classes), np.intp)
        return cls(weights, count, options, price, open_)

    def __len__(self) -> int:
        return len(self.count)

    def take(self, rows: NDArray[np.intp]) -> Situations:
        """Return some of the situations, possibly repeated."""
        return Situations(**{key: value[rows] for key, value in vars(self).items()})

    @property
    def left(self) -> Floats:
        """Number of answers that nobody has given, (n,)."""
        return np.asarray(np.maximum(self.options - self.count, 0.0))

    def masses(self) -> NDArray[np.float32]:
        """Return the weights with the number of answers that the last place stands for."""
        found = self.weights.copy()
        left = self.left.astype(np.float32)[:, None, None]
        found[:, :, -1, :] *= left
        found[:, :, :, -1] *= left
        several = 1 - 1 / np.maximum(self.left, 1.0)  # the two are different
        found[:, :, -1, -1] *= several.astype(np.float32)[:, None]
        return found

    @property
    def chances(self) -> Floats:
        """Probability that each group is right, then that none is, (n, groups + 1)."""
        mass = self.masses().sum(axis=(1, 3))
        found = np.zeros((len(self), MOST_CALLS + 1))
        found[:, : mass.shape[1] - 1], found[:, -1] = mass[:, :-1], mass[:, -1]
        return np.asarray(found / found.sum(axis=1, keepdims=True))

    @property
    def stop(self) -> Floats:
        """Probability that the most likely answer is right, (n,); 0 without an answer."""
        return np.asarray(self.chances[:, :-1].max(axis=1))


@dataclass(frozen=True, eq=False)
class Foreseen:
    """What the next call may bring.

    Attributes:
        chance: (n, m, groups + 2) probability of each outcome.
        stop: (n, m, groups + 2) value of stopping after it.
        own: (n, m, groups + 2) whether the best answer after it is that of the call.
        value: (n, m) value of asking an LLM and stopping, less its price; -inf unless open.
    """

    chance: Floats
    stop: Floats
    own: NDArray[np.bool_]
    value: Floats


def foresee(belief: Belief, now: Situations) -> Foreseen:
    """Return the outcomes of the next call of each LLM."""
    table = belief.answers.astype(np.float32)
    right, popular, other, silent = (table[:, :, kind] for kind in (RIGHT, POPULAR, OTHER, SILENT))
    n, z = now.weights.shape[:2]
    m, size = table.shape[1], now.weights.shape[2] - 1
    pair = now.masses().transpose(0, 2, 3, 1)  # right answer, popular wrong one, class
    is_right = pair.sum(axis=2)
    there = (np.arange(size) < now.count[:, None])[:, :, None]
    share = (1 / np.maximum(now.options - 2, 1)).astype(np.float32)[:, None, None]
    left = now.left.astype(np.float32)[:, None, None]
    alone, silently = is_right @ right, is_right @ silent
    others = share * (is_right @ other)
    flat = pair.reshape(-1, z)
    as_popular = (flat @ popular).reshape(n, size + 1, size + 1, m)
    as_other = share[..., None] * (flat @ other).reshape(n, size + 1, size + 1, m)
    # after an answer of group g the mass of each right answer i, (n, i, g, m)
    joined = as_popular + others[:, :, None, :] - as_other
    joined[:, :, -1] += (left - 1) * others  # any of the answers that nobody has given
    diagonal = np.arange(size + 1)
    rest = np.maximum(joined[:, -1, -1] - others[:, -1], 0.0)  # another one of these is right
    joined[:, diagonal, diagonal] = alone
    joined[:, :, :size] *= there[:, None, :, :]
    whole = joined.sum(axis=1)
    whole[:, -1] += rest
    mass = _spread(whole, silently.sum(axis=1))
    own_mass = joined[:, diagonal, diagonal]
    seen = joined[:, :size] * there[:, :, None]
    best = np.concatenate([seen, own_mass[:, None] * (diagonal == size)[:, None]], axis=1)
    best = best.max(axis=1)
    top = _spread(best, (silently[:, :size] * there).max(axis=1, initial=0.0))
    own = _spread(own_mass >= best, np.broadcast_to((now.count == 0)[:, None], (n, m)))
    stop = top / np.maximum(mass, 1e-30)
    chance = mass / np.maximum(mass.sum(axis=2, keepdims=True), 1e-30)
    value = np.where(now.open, (chance * stop).sum(axis=2) - now.price, -np.inf)
    return Foreseen(chance, stop, own, value)


def _spread(values: NDArray[Any], none: NDArray[Any]) -> NDArray[Any]:
    """Return values (n, size + 1, m) of groups and a new one, and those of `NONE`, by outcome.

    Shape (n, m, groups + 2); groups that no situation has are 0.
    """
    n, _, m = values.shape
    kind = np.float64 if values.dtype.kind == "f" else values.dtype
    found = np.zeros((n, m, MOST_CALLS + 2), kind)
    size = values.shape[1] - 1
    found[:, :, :size] = values[:, :size].transpose(0, 2, 1)
    found[:, :, NEW] = values[:, size]
    found[:, :, NONE] = none
    return found


def follow(
    belief: Belief, now: Situations, llm: NDArray[np.intp], outcome: NDArray[np.intp]
) -> Situations:
    """Return the situations after a call of an LLM with an outcome, one for each."""
    rows = np.arange(len(now))
    fresh, answers = outcome == NEW, outcome != NONE
    group = np.where(fresh, np.minimum(now.count, MOST_CALLS - 1), np.where(answers, outcome, 0))
    weights = _with_groups(now.weights, 1 + int(group.max(initial=0)))
    news = rows[fresh]
    weights[news, :, group[fresh], :] = weights[news, :, -1, :]
    weights[news, :, :, group[fresh]] = weights[news, :, :, -1]
    weights[news, :, group[fresh], group[fresh]] = 0.0
    table = belief.answers.astype(np.float32)[:, llm].transpose(1, 0, 2)  # (n, z, 4)
    share = (1 / np.maximum(now.options - 2, 1)).astype(np.float32)[:, None]
    factor = np.empty_like(weights)
    factor[:] = (table[:, :, OTHER] * share)[:, :, None, None]
    factor[rows, :, group, :] = table[:, :, RIGHT, None]
    factor[rows, :, :, group] = table[:, :, POPULAR, None]
    factor[~answers] = table[~answers][:, :, SILENT, None, None]
    weights *= factor
    weights /= np.maximum(weights.max(axis=(1, 2, 3), keepdims=True), 1e-30)
    open_ = now.open.copy()
    open_[rows, llm] = False
    count = now.count + fresh
    options = np.maximum(now.options, count)
    return replace(now, weights=weights, count=count, options=options, open=open_)


def _with_groups(weights: NDArray[np.float32], size: int) -> NDArray[np.float32]:
    """Return a copy of the weights with room for at least ``size`` groups."""
    held = weights.shape[2] - 1
    size = max(size, held)
    found = np.zeros((*weights.shape[:2], size + 1, size + 1), np.float32)
    place = np.append(np.arange(held), size)
    found[:, :, place[:, None], place] = weights
    return found


@dataclass(frozen=True)
class Planner:
    """The search.

    Attributes:
        belief: The belief.
        useful: (m,) LLMs to ask where any of them is allowed.
        depth: Number of further calls that the search follows, at least 1.
        beam: Number of LLMs whose outcomes it follows further.
        least_gain: Least value that a call must add.
    """

    belief: Belief
    useful: NDArray[np.bool_]
    depth: int = 2
    beam: int = 6
    least_gain: float = 0.0

    def among(self, allowed: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Return the LLMs to ask: the useful ones of those allowed, (n, m), or all of these."""
        both = allowed & self.useful
        return np.where(both.any(axis=-1, keepdims=True), both, allowed)

    def plan(self, now: Situations, calls_left: NDArray[np.intp]) -> Floats:
        """Return the value of asking each LLM, (n, m); -inf where it may not be asked.

        Args:
            now: The situations.
            calls_left: (n,) number of further calls that are allowed.
        """
        found = np.full(now.open.shape, -np.inf)
        for left in np.unique(calls_left[calls_left > 0]):
            rows = np.flatnonzero(calls_left == left)
            size = max(1, _BLOCK // (self.beam * 4) ** (min(self.depth, int(left)) - 1))
            for start in range(0, len(rows), size):
                part = rows[start : start + size]
                found[part] = self._values(now.take(part), min(self.depth, int(left)))
        return found

    def _values(self, now: Situations, depth: int) -> Floats:
        ahead = foresee(self.belief, now)
        if depth <= 1:
            return ahead.value
        found = ahead.value.copy()
        place, llm, outcome = self._worth_following(ahead)
        if not len(place):
            return found
        after = follow(self.belief, now.take(place), llm, outcome)
        deeper = self._values(after, depth - 1).max(axis=1) - self.least_gain
        gain = np.maximum(deeper - ahead.stop[place, llm, outcome], 0.0)
        np.add.at(found, (place, llm), ahead.chance[place, llm, outcome] * gain)
        return found

    def _worth_following(
        self, ahead: Foreseen
    ) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.intp]]:
        m = ahead.value.shape[1]
        likely = ahead.chance > _RARE
        if m > self.beam:
            least = np.partition(ahead.value, m - self.beam, axis=1)[:, m - self.beam, None]
            likely &= (ahead.value >= least)[:, :, None]
        likely &= np.isfinite(ahead.value)[:, :, None]
        place, llm, outcome = np.nonzero(likely)
        return place, llm, outcome
