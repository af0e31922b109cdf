"""Fit a belief on recorded answers, by expectation-maximisation."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from waypost.contracts.types import Floats
from waypost.tune.consensus.belief import (
    OTHER,
    POPULAR,
    RIGHT,
    SILENT,
    Belief,
    softmax,
)

CLASSES = 16
"""Maximum number of classes; at least `_PER_CLASS` questions for each."""

_PER_CLASS = 30
_AXES = 6
_ROUNDS = 40
_GATE_STEPS = 6
_SMOOTH = 2.0
"""Answers that each LLM is assumed to have given in each class as in all classes together."""

_GATE_PRIOR = 1.0
_TINY = 1e-3


def fit_belief(
    groups: NDArray[np.integer],
    quality: Floats,
    logits: Floats,
    options: Floats,
    seed: int,
    classes: int = CLASSES,
) -> Belief:
    """Fit the model.

    Args:
        groups: (n, m) group of each LLM's answer, -1 where it has no normal form.
        quality: (n, m) scores in [0, 1], NaN where not measured.
        logits: (n, m) logits of out-of-sample predictions of the base router.
        options: (n,) number of possible answers of each question.
        seed: Seed of the first classes.
        classes: Maximum number of classes.
    """
    n, m = groups.shape
    count = int(np.clip(n // _PER_CLASS, 1, classes))
    center, scale = logits.mean(axis=0), logits.std(axis=0) + 1e-6
    standard = (logits - center) / scale
    width = min(_AXES, m, n)
    axes = np.linalg.svd(standard, full_matrices=False)[2][:width].T
    axes = axes / ((standard @ axes).std(axis=0) + 1e-6)
    draw = np.random.default_rng(seed)
    gate = draw.normal(0, 0.01, (width + 1, count))
    even = np.full((count, m, 4), 0.25)
    start = Belief(even, center, scale, axes, gate)
    facts = _Facts.of(groups, quality, options)
    shares = _first_shares(facts, quality, count, draw)
    features = start.features(logits)
    hessian = features.T @ features / 2 + _GATE_PRIOR * np.eye(width + 1)
    belief = start
    for _ in range(_ROUNDS):
        answers = facts.answers_of(shares)
        wanted = shares.sum(axis=1)
        for _ in range(_GATE_STEPS):  # a bound of the curvature (Boehning, 1992) makes each safe
            wrong = wanted - softmax(features @ gate)
            prior = np.vstack([_GATE_PRIOR * gate[:-1], np.zeros((1, count))])
            gate = gate + np.linalg.solve(hessian, features.T @ wrong - prior)
        belief = replace(belief, answers=answers, gate=gate)
        shares = facts.shares_of(answers, np.log(belief.classes(logits)))
    return belief


def _first_shares(
    facts: _Facts, quality: Floats, count: int, draw: np.random.Generator
) -> NDArray[np.float32]:
    """Return first class probabilities: by the share of the LLMs that are right, with noise."""
    known = ~np.isnan(quality)
    share = np.where(known, quality, 0.0).sum(axis=1) / np.maximum(known.sum(axis=1), 1)
    share = share + 0.15 * draw.normal(size=len(quality))
    place = np.searchsorted(np.quantile(share, np.linspace(0, 1, count + 1)[1:-1]), share)
    found = np.full((len(quality), count), 0.2 / count)
    found[np.arange(len(quality)), place] += 0.8
    even = facts.valid / facts.valid.sum(axis=1, keepdims=True)
    return np.asarray(even[:, :, None] * found[:, None, :], np.float32)


@dataclass(frozen=True, eq=False)
class _Facts:
    """Recorded answers; k hypotheses about the popular wrong answer, the last: nobody gave it.

    Attributes:
        plain: float32 (n, m, 3), whether an answer is right, wrong, or none.
        members: float32 (n, k, m), whether an LLM is in a group.
        valid: (n, k), whether a group may be the popular wrong answer.
        others: (n,) log chance that a further wrong answer is one given option.
        times: (n, k) log number of options that a hypothesis stands for.
    """

    plain: NDArray[np.float32]
    members: NDArray[np.float32]
    valid: NDArray[np.bool_]
    others: Floats
    times: Floats

    @classmethod
    def of(cls, groups: NDArray[np.integer], quality: Floats, options: Floats) -> _Facts:
        n, m = groups.shape
        measured = ~np.isnan(quality)
        worth = worth_of(groups, quality)
        right = np.where(worth.max(axis=1) >= 0.5, worth.argmax(axis=1), -1)
        is_right = (groups == right[:, None]) & (right >= 0)[:, None]
        silent = groups < 0
        plain = np.stack([is_right, ~is_right & ~silent, silent], axis=2) & measured[:, :, None]
        most = int(groups.max(initial=-1)) + 1
        members = np.zeros((n, most + 1, m), np.float32)
        members[:, :most] = (groups[:, None, :] == np.arange(most)[:, None]) & measured[:, None, :]
        valid = np.asarray(members.any(axis=2))
        valid[np.flatnonzero(right >= 0), right[right >= 0]] = False
        given = members.any(axis=2).sum(axis=1)
        valid[:, -1] = True
        times = np.zeros(valid.shape)
        times[:, -1] = np.log(np.maximum(options - given - (right < 0), 1.0))
        others = -np.log(np.maximum(options - 2, 1.0))
        return cls(plain.astype(np.float32), members, valid, others, times)

    def answers_of(self, shares: NDArray[np.float32]) -> Floats:
        """Return the probabilities of answers (z, m, 4), from shares of hypotheses (n, k, z)."""
        n, k, z = shares.shape
        m = self.members.shape[2]
        by_class = shares.sum(axis=1)
        counts = np.einsum("nz,nmc->zmc", by_class, self.plain, optimize=True)
        popular = shares.reshape(n * k, z).T @ self.members.reshape(n * k, m)
        found = np.empty((z, m, 4))
        found[:, :, RIGHT] = counts[:, :, 0]
        found[:, :, POPULAR] = popular
        found[:, :, OTHER] = np.maximum(counts[:, :, 1] - popular, 0.0)
        found[:, :, SILENT] = counts[:, :, 2]
        whole = found.sum(axis=0) + _TINY
        found += _SMOOTH * 4 * whole / whole.sum(axis=1, keepdims=True) + _TINY
        return np.asarray(found / found.sum(axis=2, keepdims=True))

    def shares_of(self, answers: Floats, classes: Floats) -> NDArray[np.float32]:
        """Return the probability of each hypothesis and class, (n, k, z)."""
        log = np.log(answers)
        plain = log[:, :, [RIGHT, OTHER, SILENT]]
        alone = np.einsum("nmc,zmc->nz", self.plain, plain.astype(np.float32), optimize=True)
        more = (log[:, :, POPULAR] - log[:, :, OTHER]).astype(np.float32)
        n, k, m = self.members.shape
        popular = (self.members.reshape(n * k, m) @ more.T).reshape(n, k, -1)
        wrong = self.plain[:, :, 1].sum(axis=1)[:, None] - self.members.sum(axis=2)
        utility = (
            popular
            + (alone + classes)[:, None, :]
            + (wrong * self.others[:, None] + self.times)[:, :, None]
        )
        utility[~self.valid] = -np.inf
        flat = softmax(utility.reshape(n, -1))
        return np.asarray(flat.reshape(n, k, -1), np.float32)


def worth_of(groups: NDArray[np.integer], quality: Floats) -> Floats:
    """Return the mean score of each recorded group, (n, m); 0 for a number without answers."""
    n, m = groups.shape
    measured = ~np.isnan(quality) & (groups >= 0)
    rows, llms = np.nonzero(measured)
    total, size = np.zeros((n, m)), np.zeros((n, m))
    np.add.at(total, (rows, groups[rows, llms]), quality[rows, llms])
    np.add.at(size, (rows, groups[rows, llms]), 1.0)
    return total / np.maximum(size, 1.0)
