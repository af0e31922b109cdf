"""What personal routers are compared with: other ways of using a user's visible events."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from waypost.contracts.types import Floats
from waypost.metrics.predictions import auroc
from waypost.pipelines.data.users import Said, World

EVENTS = (0, 1, 5, 10, 20)
"""Numbers of visible events of a new user."""

PENALTIES = (1.0, 3.0, 10.0, 30.0)
NEAREST = (3, 10, 30)

_STEPS = 12


@dataclass(frozen=True, eq=False)
class Vectors:
    """Vectors of the answers to the questions of each split, (n, n_llms, width)."""

    of: Mapping[str, Floats]

    @classmethod
    def make(cls, outcomes: Mapping[str, Floats]) -> Vectors:
        """Join predicted outcomes, standardized on training questions, and the LLM's own place."""
        flat = outcomes["train"].reshape(-1, outcomes["train"].shape[-1])
        centre, spread = flat.mean(axis=0), np.maximum(flat.std(axis=0), 1e-9)
        found = {}
        for split, part in outcomes.items():
            n, m = part.shape[:2]
            own = np.broadcast_to(np.eye(m), (n, m, m))
            found[split] = np.concatenate([(part - centre) / spread, own], axis=2)
        return cls(found)

    def events(self, said: Said, rows: NDArray[np.intp]) -> tuple[Floats, Floats]:
        """Return differences (n, width) and values (n,) of visible events."""
        vectors, place = self.of["train"][said.query[rows]], np.arange(len(rows))
        other = said.other[rows]
        beside = np.where(
            (other < 0)[:, None], vectors.mean(axis=1), vectors[place, np.maximum(other, 0)]
        )
        return vectors[place, said.llm[rows]] - beside, said.value[rows]


Weights = Callable[[Floats, Floats], Floats]
"""Makes a user's weights (width,) of the differences and values of the visible events."""


def logistic(rows: Floats, values: Floats, prior: Floats, penalty: float) -> Floats:
    """Return the weights of a logistic ridge regression towards a prior, (width,)."""
    found = prior.copy()
    for _ in range(_STEPS):
        p = 1 / (1 + np.exp(-np.clip(rows @ found, -30, 30)))
        slope = rows.T @ (values - p) - penalty * (found - prior)
        curve = (rows * (p * (1 - p))[:, None]).T @ rows + penalty * np.eye(len(found))
        found = found + np.linalg.solve(curve, slope)
    return found


@dataclass(frozen=True, eq=False)
class Baselines:
    """The ways of weighing answers, by name, and what was chosen on validation users."""

    ways: Mapping[str, Weights]
    chosen: Mapping[str, float]


def visible_of(said: Said, user: int, count: int) -> NDArray[np.intp]:
    """Return the rows of a user's first visible events."""
    return np.flatnonzero((said.user == user) & ~said.target)[:count]


def baselines(world: World, vectors: Vectors) -> Baselines:
    """Fit the mean user; choose penalties and numbers of neighbours on validation users."""
    said = world.said["train"]
    people = [visible_of(said, int(one), len(said.user)) for one in np.unique(said.user)]
    known = [vectors.events(said, rows) for rows in people]
    width = vectors.of["train"].shape[2]
    zero = np.zeros(width)
    rows, values = (np.concatenate(part) for part in zip(*known, strict=True))
    mean = logistic(rows, values, zero, PENALTIES[1])
    theirs = np.stack([logistic(*one, mean, PENALTIES[1]) for one in known])

    def ridge(penalty: float) -> Weights:
        return lambda rows, values: logistic(rows, values, zero, penalty)

    def towards(penalty: float) -> Weights:
        return lambda rows, values: logistic(rows, values, mean, penalty)

    def nearest(count: float) -> Weights:
        def of(rows: Floats, values: Floats) -> Floats:
            if not len(rows):
                return mean
            found = rows @ theirs.T
            fit = (values[:, None] * found - np.logaddexp(0, found)).sum(axis=0)
            return np.asarray(theirs[np.argsort(-fit, kind="stable")[: int(count)]].mean(axis=0))

        return of

    grids: dict[str, tuple[Callable[[float], Weights], Sequence[float]]] = {
        "per-user ridge": (ridge, PENALTIES),
        "per-user ridge towards the mean user": (towards, PENALTIES),
        "nearest users": (nearest, NEAREST),
    }
    chosen, ways = {}, {"mean user": lambda rows, values: mean}
    for name, (make, grid) in grids.items():
        earned = [_utility(world, vectors, make(value)) for value in grid]
        chosen[name] = float(grid[int(np.argmax(earned))])
        ways[name] = make(chosen[name])
    return Baselines(ways, chosen)


def scores(world: World, vectors: Vectors, way: Weights, split: str, count: int) -> Floats:
    """Return scores of the answers to each target of a split's users, (n_targets, n_llms)."""
    said = world.said[split]
    targets = np.flatnonzero(said.target)
    found = np.empty((len(targets), vectors.of[split].shape[1]))
    for user in np.unique(said.user):
        weights = way(*vectors.events(said, visible_of(said, int(user), count)))
        mine = said.user[targets] == user
        found[mine] = vectors.of[split][said.query[targets[mine]]] @ weights
    return found


def _utility(world: World, vectors: Vectors, way: Weights) -> float:
    """Return the mean utility of choices for validation users, over `EVENTS` but 0."""
    said = world.said["validation"]
    rows = np.flatnonzero(said.target)
    earned = []
    for count in EVENTS[1:]:
        best = scores(world, vectors, way, "validation", count).argmax(axis=1)
        earned.append(world.utility["validation"][said.user[rows], said.query[rows], best].mean())
    return float(np.mean(earned))


def judge(world: World, split: str, found: Floats) -> dict[str, float]:
    """Judge scores of the answers to the targets of a split's users.

    Args:
        world: The users.
        split: ``validation`` or ``test``.
        found: (n_targets, n_llms).

    Returns:
        ``accuracy`` and ``auc`` of the better of a pair, ``user_auc`` (mean over users with both
        outcomes), ``utility`` of the highest score's answer, ``regret`` to the best answer.
    """
    said, utility = world.said[split], world.utility[split]
    rows = np.flatnonzero(said.target)
    user, query = said.user[rows], said.query[rows]
    place = np.arange(len(rows))
    gain, won = found[place, said.llm[rows]] - found[place, said.other[rows]], said.value[rows]
    earned = utility[user, query, found.argmax(axis=1)]
    each = [auroc(gain[user == one], won[user == one]) for one in np.unique(user)]
    right = np.where(gain == 0, 0.5, (gain > 0) == (won > 0.5))
    return {
        "accuracy": float(right.mean()),
        "auc": auroc(gain, won),
        "user_auc": float(np.nanmean(each)),
        "utility": float(earned.mean()),
        "regret": float((utility[user, query].max(axis=1) - earned).mean()),
    }
