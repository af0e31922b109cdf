"""Predicts each LLM's score by a forest of randomized trees.

Which LLM is better turns on things that hold together only in some corner: a long question, of one
task, with numbers in it. Trees (Extra-Trees, Geurts et al., 2006) find such corners where a linear
map and a mean over neighbours, which weigh all directions alike everywhere, do not.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from waypost.contracts.errors import MissingExtraError
from waypost.contracts.parameters import Integer
from waypost.contracts.router import QueryBatch
from waypost.contracts.routing_data import RoutingData
from waypost.contracts.types import Floats
from waypost.encoders.structure import structure_features
from waypost_routers._learned import LearnedRouter, embeddings_of
from waypost_routers._linear.ridge import Ridge, fit_ridge, folds_of
from waypost_routers._linear.text import text_features
from waypost_routers._shared import Distinct, distinct

SHARE = 0.7
"""Share of the groups that a tree learns from; it is judged on the others."""

TRIED = 1 / 3
"""Share of the features among which a split is sought."""

_CELLS = 500_000


@dataclass(frozen=True, eq=False)
class Forest:
    """Trees as arrays; a leaf is its own child.

    Attributes:
        roots: (n_trees,) node each tree starts at.
        feature: (n_nodes,) column that is compared.
        threshold: (n_nodes,) up to which it goes left.
        children: (n_nodes, 2) the left and the right node.
        values: float32 (n_nodes, n_columns), of leaves; 0 elsewhere.
        depth: (1,) steps to the farthest leaf.
    """

    roots: NDArray[np.int32]
    feature: NDArray[np.int32]
    threshold: Floats
    children: NDArray[np.int32]
    values: NDArray[np.float32]
    depth: NDArray[np.int32]

    def predict(self, features: NDArray[np.float32]) -> Floats:
        """Return the mean over the trees, (n, n_columns), for features (n, d)."""
        width = len(self.roots) * max(self.values.shape[1], 1)
        size = max(1, _CELLS // width)
        blocks = [self._block(features[i : i + size]) for i in range(0, len(features), size)]
        return np.concatenate(blocks)

    def _block(self, features: NDArray[np.float32]) -> Floats:
        flat, start = features.ravel(), np.arange(len(features))[:, None] * features.shape[1]
        children = self.children.ravel()
        node = np.repeat(self.roots[None], len(features), axis=0)
        for _ in range(int(self.depth[0])):
            right = flat[start + self.feature[node]] > self.threshold[node]
            node = children[2 * node + right]
        return np.asarray(self.values[node].mean(axis=1, dtype=np.float64))

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Return the state as named arrays."""
        return dict(vars(self))

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Forest:
        """Rebuild it from `to_arrays`."""
        return cls(**arrays)


def fit_forest(
    features: NDArray[np.float32],
    targets: Floats,
    weights: Floats,
    group: NDArray[np.intp],
    *,
    trees: int,
    leaf: int,
    depth: int,
    seed: int,
) -> tuple[Forest, Floats]:
    """Grow the trees, each from a draw of the groups.

    Args:
        features: (n, d).
        targets: (n, n_columns), all known.
        weights: (n,) of the rows.
        group: (n,) rows of one group are drawn together.
        trees: How many.
        leaf: Least rows of a leaf.
        depth: Most splits on the way to one.
        seed: Of the draws.

    Returns:
        The forest, and for each row the mean of the trees that had not drawn it,
        (n, n_columns); NaN where all had.

    Raises:
        MissingExtraError: scikit-learn is not installed.
    """
    try:
        from sklearn.tree import ExtraTreeRegressor
    except ImportError:
        raise MissingExtraError("sklearn", "train") from None
    grown = []
    total, count = np.zeros(targets.shape), np.zeros((len(targets), 1))
    tried = max(1, round(TRIED * features.shape[1]))
    for turn, drawn in enumerate(_draws(group, trees, seed)):
        tree = ExtraTreeRegressor(
            max_features=tried, min_samples_leaf=leaf, max_depth=depth, random_state=seed + turn
        )
        tree.fit(features[drawn], targets[drawn], sample_weight=weights[drawn])
        if not drawn.all():
            found = tree.predict(features[~drawn])
            total[~drawn] += found.reshape(len(found), -1)
            count[~drawn] += 1
        grown.append(tree.tree_)
    outside = np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)
    return _joined(grown), outside


def _draws(group: NDArray[np.intp], trees: int, seed: int) -> Iterator[NDArray[np.bool_]]:
    _, place = np.unique(group, return_inverse=True)
    groups = int(place.max()) + 1
    taken = max(1, round(SHARE * groups))
    draw = np.random.default_rng(seed)
    for _ in range(trees):
        yield np.isin(place, draw.permutation(groups)[:taken])


def _joined(trees: list[Any]) -> Forest:
    counts = np.array([tree.node_count for tree in trees])
    roots = np.cumsum(counts) - counts
    children, values = [], []
    for root, tree in zip(roots, trees, strict=True):
        own = np.arange(tree.node_count)
        pair = np.stack([tree.children_left, tree.children_right], axis=1)
        leaf = pair[:, 0] < 0
        children.append(np.where(leaf[:, None], own[:, None], pair) + root)
        values.append(np.where(leaf[:, None], tree.value[:, :, 0], 0.0))
    feature = np.concatenate([tree.feature for tree in trees])
    return Forest(
        roots=roots.astype(np.int32),
        feature=np.maximum(feature, 0).astype(np.int32),
        threshold=np.concatenate([tree.threshold for tree in trees]),
        children=np.concatenate(children).astype(np.int32),
        values=np.concatenate(values).astype(np.float32),
        depth=np.array([max(tree.max_depth for tree in trees)], np.int32),
    )


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
