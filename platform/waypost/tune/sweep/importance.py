"""How much each parameter matters to the score, as far as the trials tell."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from waypost.tune.space import Range
from waypost.tune.sweep.journal import Row
from waypost.tune.sweep.settings import SearchSpace

FEWEST = 12
"""With fewer trials nothing can be told."""

_TREES = 80


def importance(rows: Sequence[Row], space: SearchSpace, seed: int) -> dict[str, float] | None:
    """Return each parameter's share of what a forest explains of the scores (they sum to 1).

    A random forest predicts the score from the setting; a parameter counts for what the
    prediction of trials outside a tree's sample loses when its values are shuffled (Breiman, 2001).
    None where there are too few trials, or where the forest explains nothing.
    """
    from sklearn.tree import DecisionTreeRegressor

    known = [row for row in rows if row.status == "done" and row.score is not None]
    names = list(space.space)
    if len(known) < FEWEST:
        return None
    columns, owner = _encoded(known, space)
    score = np.array([row.score for row in known])
    draw = np.random.default_rng(seed)
    lost = np.zeros(len(names))
    for tree in range(_TREES):
        rows_in = draw.integers(len(known), size=len(known))
        out = np.setdiff1d(np.arange(len(known)), rows_in)
        if len(out) < 2:
            continue
        fitted = DecisionTreeRegressor(max_features=0.7, min_samples_leaf=2, random_state=tree)
        fitted.fit(columns[rows_in], score[rows_in])
        base = ((fitted.predict(columns[out]) - score[out]) ** 2).mean()
        for place in range(len(names)):
            shuffled = columns[out].copy()
            own = np.flatnonzero(owner == place)
            shuffled[:, own] = shuffled[draw.permutation(len(out))][:, own]
            lost[place] += ((fitted.predict(shuffled) - score[out]) ** 2).mean() - base
    lost = np.maximum(lost, 0.0)
    if lost.sum() <= 0:
        return None
    return {name: float(part) for name, part in zip(names, lost / lost.sum(), strict=True)}


def _encoded(rows: Sequence[Row], space: SearchSpace) -> tuple[NDArray[Any], NDArray[np.intp]]:
    """Return settings as numbers, and whose column each is: choices one-hot, -1 where unset."""
    columns: list[list[float]] = []
    owner: list[int] = []
    for place, (name, dimension) in enumerate(space.space.items()):
        if isinstance(dimension, Range):
            log = dimension.type == "loguniform"
            values = [row.setting.get(name) for row in rows]
            outside = (np.log(dimension.low) if log else dimension.low) - 1
            columns.append(
                [outside if v is None else float(np.log(v) if log else v) for v in values]
            )
            owner.append(place)
            continue
        for value in dimension.values:
            columns.append(
                [float(name in row.setting and row.setting[name] == value) for row in rows]
            )
            owner.append(place)
    return np.array(columns).T, np.array(owner, np.intp)
