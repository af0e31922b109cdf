"""Predicts each LLM's score by a forest of randomized trees.

Which LLM is better turns on things that hold together only in some corner: a long question, of one
task, with numbers in it. Trees (Extra-Trees, Geurts et al., 2006) find such corners where a linear
map and a mean over neighbours, which weigh all directions alike everywhere, do not.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from waypost.contracts.parameters import Integer
from waypost.contracts.router import QueryBatch
from waypost.contracts.routing_data import RoutingData
from waypost.contracts.types import Floats
from waypost.encoders.structure import structure_features
from waypost_routers._distinct import Distinct, distinct
from waypost_routers._forest import Forest, fit_forest
from waypost_routers._learned import LearnedRouter, embeddings_of
from waypost_routers._ridge import Ridge, fit_ridge, folds_of
from waypost_routers._text import text_features

DIRECTIONS = 48
"""Directions in which the embeddings vary most, that trees compare questions in."""


class ForestRouter(LearnedRouter):
    """Extremely randomized trees on the embedding's main directions, the text's form and its task.

    How much a question looks like each task is a ridge regression of the tasks on embeddings; the
    trees see what it says of questions it was not fitted on. Data that names no task, or one,
    leaves that out. Trees need a score of every LLM: one that was not measured is taken as a ridge
    regression on what the trees see predicts it.

    When to take it:
        Where half a millisecond a decision is cheap and there are a thousand questions or more; it
        has no members to fit, unlike ``auto``.

    Args:
        trees: How many.
        leaf: Least distinct questions of a leaf; with few questions an eighth of them.
        depth: Most splits on the way to one: a decision costs a step for each.
        seed: Of the trees.

    Learned by ``fit``:
        centre_: float32 (d,), mean embedding.
        turn_: float32 (d, n_directions).
        recogniser_: Map to task scores; None with fewer than two tasks.
        forest_: The trees.
    """

    name = "forestrouter"
    link = "identity"
    trial_parameters: ClassVar = {"trees": 20}
    state_parts: ClassVar = {
        **LearnedRouter.state_parts,
        "recogniser_": Ridge,
        "forest_": Forest,
    }
    parameter_constraints: ClassVar = {
        "trees": Integer(1),
        "leaf": Integer(1),
        "depth": Integer(1, 100),
        "seed": Integer(0),
    }

    centre_: NDArray[np.float32]
    turn_: NDArray[np.float32]
    recogniser_: Ridge | None
    forest_: Forest

    def __init__(self, trees: int = 100, leaf: int = 15, depth: int = 12, seed: int = 0) -> None:
        self.trees = trees
        self.leaf = leaf
        self.depth = depth
        self.seed = seed

    def _learn_out_of_sample(self, data: RoutingData) -> tuple[NDArray[np.intp], Floats]:
        known = distinct(data)
        first = _first_of_each(data, known)
        self._learn_directions(known.rows)
        tasks = self._recognise(data)[first]
        texts = structure_features([data.queries[i] for i in first])
        features = np.concatenate([self._directions(known.rows), texts, tasks], axis=1)
        forest, outside = fit_forest(
            features.astype(np.float32),
            _filled(known, features, folds_of(data)[first]),
            np.bincount(known.row_of).astype(np.float64),
            _in_order(data.groups[first]),
            trees=self.trees,
            leaf=max(1, min(self.leaf, len(first) // 8)),
            depth=self.depth,
            seed=self.seed,
        )
        columns = np.empty(len(known.columns), np.intp)
        columns[known.columns] = np.arange(len(columns))
        self.forest_ = Forest(**{**vars(forest), "values": forest.values[:, columns]})
        there = known.in_data_order(outside)[known.row_of]
        rows = np.flatnonzero(~np.isnan(there).any(axis=1))
        return rows, there[rows]

    def _level_scores(
        self, data: RoutingData, rows: NDArray[np.intp], outside: Floats
    ) -> tuple[NDArray[np.intp], Floats]:
        # trees know the questions they learned from better than any other
        return (rows, outside) if len(rows) else super()._level_scores(data, rows, outside)

    def _learn_directions(self, rows: NDArray[np.float32]) -> None:
        wide = rows.astype(np.float64)
        centre = wide.mean(axis=0)
        values, vectors = np.linalg.eigh((wide - centre).T @ (wide - centre))
        kept = values[-DIRECTIONS:] > 1e-9 * max(float(values[-1]), 1e-12)
        self.centre_ = centre.astype(np.float32)
        self.turn_ = vectors[:, -DIRECTIONS:][:, kept].astype(np.float32)

    def _directions(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.asarray((rows - self.centre_) @ self.turn_)

    def _recognise(self, data: RoutingData) -> Floats:
        """Learn to, and return task scores of questions not learned from, (n, n_tasks)."""
        names = sorted(set(data.task_names))
        if len(names) < 2:
            self.recogniser_ = None
            return np.empty((len(data), 0))
        place = {name: i for i, name in enumerate(names)}
        member = np.eye(len(names))[[place[name] for name in data.task_names]]
        self.recogniser_, scores = fit_ridge(embeddings_of(data), member, folds_of(data))
        return scores

    def _raw(self, batch: QueryBatch) -> Floats:
        rows = np.asarray(batch.embeddings, np.float32)
        parts: list[NDArray[Any]] = [
            self._directions(rows),
            text_features(batch, structure_features),
        ]
        if self.recogniser_ is not None:
            parts.append(self.recogniser_.predict(rows))
        return self.forest_.predict(np.concatenate(parts, axis=1).astype(np.float32))


def _first_of_each(data: RoutingData, known: Distinct) -> NDArray[np.intp]:
    """Return a row of the data for each distinct embedding, the same in any order of the rows."""
    by_text = np.array(sorted(range(len(data)), key=lambda i: data.queries[i]), np.intp)
    _, first = np.unique(known.row_of[by_text], return_index=True)
    return by_text[first]


def _in_order(group: NDArray[np.intp]) -> NDArray[np.intp]:
    """Number groups by their first member, whatever the numbers were."""
    _, first, place = np.unique(group, return_index=True, return_inverse=True)
    return np.asarray(first[place.reshape(-1)])


def _filled(known: Distinct, features: Floats, fold: NDArray[np.intp]) -> Floats:
    """Return the scores, those that were not measured as ridge regression predicts them."""
    if known.known.all():
        return known.scores
    scores = np.where(known.known, known.scores, np.nan)
    return np.where(known.known, scores, fit_ridge(features, scores, fold)[1])
