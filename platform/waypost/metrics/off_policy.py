"""The value of a policy on decisions that another policy made and logged.

Notation: row i has the logged LLM a_i, its probability p_i under the logging policy, and a reward
r_i; the policy to evaluate chooses LLM a with probability pi(a | x_i); w_i = pi(a_i | x_i) / p_i; a
reward model predicts q(x_i, a).

| estimator | value |
|---|---|
| direct method | mean of sum_a pi(a given x_i) q(x_i, a) |
| inverse propensity (IPS) | mean of w_i r_i |
| self-normalised IPS (Swaminathan & Joachims 2015) | sum of w_i r_i over sum of w_i |
| doubly robust (Dudik, Langford & Li, arXiv 1103.4601) | direct method + mean of w_i (r_i - q) |

Intervals are percentiles of a bootstrap over clusters (users): a user's rows are drawn together.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from waypost.contracts.types import Floats
from waypost.metrics.intervals import Bootstrap, interval

ESTIMATORS = ("dm", "ips", "snips", "dr")

DRAWS = 2000

FEW_ROWS = 50.0
"""Fewest effective rows of an estimate that can be trusted."""

FEW_CLUSTERS = 20
"""Fewest clusters of which a bootstrap gives intervals that hold."""

MOST_WITHOUT_SUPPORT = 0.01
MOST_OF_ONE = 0.1
_ERRORS = 4.0
_TINY = 1e-9


@dataclass(frozen=True, eq=False)
class Logged:
    """Logged decisions.

    Attributes:
        actions: (n,), column of the LLM that was decided.
        logging: (n, m), probability of each LLM under the logging policy; that of the decided one
            is above 0.
        rewards: (n, k), the rewards.
        clusters: (n,), number of the user (or session) of a row, from 0 without gaps.
    """

    actions: NDArray[np.intp]
    logging: Floats
    rewards: Floats
    clusters: NDArray[np.intp]

    def __len__(self) -> int:
        return len(self.actions)

    @property
    def propensity(self) -> Floats:
        """(n,), probability of the decided LLM."""
        return np.asarray(self.logging[np.arange(len(self)), self.actions])

    @property
    def explores(self) -> bool:
        """Whether any decision could have been another one."""
        return bool((self.propensity < 1 - _TINY).any())

    def taken(self, rows: NDArray[np.intp]) -> Logged:
        """Return some of the rows, with clusters numbered anew."""
        _, clusters = np.unique(self.clusters[rows], return_inverse=True)
        return Logged(self.actions[rows], self.logging[rows], self.rewards[rows], clusters)


@dataclass(frozen=True)
class Value:
    """An estimate with its 95 % interval; NaN where it cannot be computed."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Estimate:
    """The value of one policy.

    Attributes:
        values: Estimator of `ESTIMATORS` -> the k rewards.
        logged: The k means of the logged rewards on the same rows.
        difference: Of the doubly robust value to the logged mean, in the same draws.
        rows, clusters: Numbers of rows and clusters.
        agreement: Mean probability that the policy chooses the logged LLM.
        mean_weight: Mean of w; 1 in expectation where the policy has support.
        effective_rows: (sum of w)^2 / sum of w^2.
        largest_weight: Largest share of one row in the sum of w.
        without_support: Mean probability that the policy chooses an LLM that could not be logged.
        warnings: Why the estimate cannot be trusted; empty where it can.
    """

    values: Mapping[str, tuple[Value, ...]]
    logged: tuple[Value, ...]
    difference: tuple[Value, ...]
    rows: int
    clusters: int
    agreement: float
    mean_weight: float
    effective_rows: float
    largest_weight: float
    without_support: float
    warnings: tuple[str, ...]


def weights_of(policy: Floats, logged: Logged) -> Floats:
    """Return w, shape (n,).

    Args:
        policy: (n, m), probability of each LLM under the policy to evaluate.
        logged: The rows.
    """
    rows = np.arange(len(logged))
    return np.asarray(policy[rows, logged.actions] / logged.propensity)


def evaluate_policy(
    policy: Floats, logged: Logged, model: Floats, *, draws: int = DRAWS, seed: int = 0
) -> Estimate:
    """Estimate the value of a policy.

    Args:
        policy: (n, m), probability of each LLM under the policy; each row sums to 1.
        logged: The rows.
        model: (n, m, k), predicted rewards, by models that did not see the row; NaN without one.
        draws: Bootstrap draws.
        seed: Seed of the draws.
    """
    n, k = logged.rewards.shape
    rows = np.arange(n)
    w = weights_of(policy, logged)
    direct = np.einsum("nm,nmk->nk", policy, model)
    residual = w[:, None] * (logged.rewards - model[rows, logged.actions])
    terms = np.hstack(
        [np.ones((n, 1)), w[:, None], logged.rewards, direct, w[:, None] * logged.rewards, residual]
    )
    whole, drawn = _drawn(terms, logged.clusters, draws, seed)

    def split(sums: Floats) -> dict[str, Floats]:
        size, weight = sums[:, :1], sums[:, 1:2]
        logs, dm, weighted, rest = (sums[:, 2 + i * k : 2 + (i + 1) * k] for i in range(4))
        with np.errstate(invalid="ignore", divide="ignore"):
            return {
                "logged": logs / size,
                "dm": dm / size,
                "ips": weighted / size,
                "snips": np.where(weight > 0, weighted / weight, np.nan),
                "dr": (dm + rest) / size,
                "difference": (dm + rest - logs) / size,
            }

    at, around = split(whole[None, :]), split(drawn)
    found = {
        name: tuple(Value(float(at[name][0, j]), *interval(around[name][:, j])) for j in range(k))
        for name in at
    }
    total, square = w.sum(), (w**2).sum()
    clusters = int(logged.clusters.max(initial=-1)) + 1
    diagnostics = {
        "rows": n,
        "clusters": clusters,
        "agreement": float(policy[rows, logged.actions].mean()),
        "mean_weight": float(w.mean()),
        "effective_rows": float(total**2 / square) if square else 0.0,
        "largest_weight": float(w.max() / total) if total else float("nan"),
        "without_support": float(np.where(logged.logging <= _TINY, policy, 0.0).sum(1).mean()),
    }
    spread = max(float(np.std(drawn[:, 1] / drawn[:, 0])), _spread_of_mean(policy, logged))
    return Estimate(
        values={name: found[name] for name in ESTIMATORS},
        logged=found["logged"],
        difference=found["difference"],
        warnings=_warnings(diagnostics, logged.explores, spread),
        **diagnostics,
    )


def mean_of_arms(
    logged: Logged, arms: NDArray[np.intp], *, draws: int = DRAWS, seed: int = 0
) -> tuple[list[tuple[Value, ...]], list[tuple[Value, ...]]]:
    """Compare the arms of an experiment by the means of their own rows.

    Args:
        logged: The rows of the experiment.
        arms: (n,), number of the arm of each row, from 0 without gaps.
        draws: Bootstrap draws.
        seed: Seed of the draws.

    Returns:
        For each arm the means of the k rewards, and their differences to those of arm 0.
    """
    count = int(arms.max()) + 1
    k = logged.rewards.shape[1]
    inside = (arms[:, None] == np.arange(count)).astype(np.float64)
    sums = (inside[:, :, None] * logged.rewards[:, None, :]).reshape(len(logged), -1)
    whole, drawn = _drawn(np.hstack([inside, sums]), logged.clusters, draws, seed)

    def means(of: Floats) -> Floats:
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray(of[:, count:].reshape(len(of), count, k) / of[:, :count, None])

    at, around = means(whole[None, :]), means(drawn)
    found = [
        [
            tuple(Value(float(a[0, j, i]), *interval(b[:, j, i])) for i in range(k))
            for j in range(count)
        ]
        for a, b in ((at, around), (at - at[:, :1], around - around[:, :1]))
    ]
    return found[0], found[1]


def _drawn(
    terms: Floats, clusters: NDArray[np.intp], draws: int, seed: int
) -> tuple[Floats, Floats]:
    """Return the sums of the columns, (columns,), and in draws of clusters, (draws, columns)."""
    count = int(clusters.max(initial=-1)) + 1
    by_cluster = np.zeros((count, terms.shape[1]))
    np.add.at(by_cluster, clusters, terms)
    return terms.sum(axis=0), Bootstrap(count, draws, seed).means(by_cluster) * count


def _spread_of_mean(policy: Floats, logged: Logged) -> float:
    """Return the standard deviation of the mean weight where the logged propensities are right.

    Draws of rows cannot tell it where no row, or one user alone, has a large weight.
    """
    known = logged.logging > _TINY
    inside = np.where(known, policy, 0.0)
    squares = np.divide(inside**2, logged.logging, out=np.zeros_like(inside), where=known)
    variance = squares.sum(axis=1) - inside.sum(axis=1) ** 2
    return float(np.sqrt(variance.clip(min=0.0).sum()) / len(logged))


def _warnings(found: Mapping[str, float], explores: bool, spread: float) -> tuple[str, ...]:
    told = []
    lost = found["without_support"]
    if not explores and found["agreement"] < 1 - _TINY:
        told.append(
            f"the log holds no exploration, and this policy chooses another LLM with probability "
            f"{1 - found['agreement']:.0%}: how good that is, the log cannot tell. Set "
            "policy.exploration, or an experiment whose arms are shadows, too"
        )
    elif lost > MOST_WITHOUT_SUPPORT:
        told.append(f"with probability {lost:.0%} it chooses an LLM that could not be logged")
    if found["effective_rows"] < FEW_ROWS:
        told.append(f"it rests on {found['effective_rows']:.0f} effective rows")
    if found["largest_weight"] > MOST_OF_ONE:
        told.append(f"one row has {found['largest_weight']:.0%} of all weight")
    off = abs(found["mean_weight"] + lost - 1)
    if lost <= MOST_WITHOUT_SUPPORT and off > max(_ERRORS * spread, _TINY):
        told.append(
            f"the mean weight is {found['mean_weight']:.2f} instead of 1: the logged propensities "
            "do not fit the decisions"
        )
    if found["clusters"] < FEW_CLUSTERS:
        users = f"{found['clusters']:.0f} user{' is' if found['clusters'] == 1 else 's are'}"
        told.append(f"{users} too few for an interval")
    return tuple(told)
