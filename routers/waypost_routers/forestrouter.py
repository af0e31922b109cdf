"""Predict each LLM's score by a forest of randomized trees.

Which LLM is better can depend on a combination of properties: a long question, of one task, with
numbers in it. Trees (Extra-Trees, Geurts et al., 2006) find such combinations. A linear map and a
mean over neighbours weight all directions equally everywhere, and do not.
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
"""Share of the groups that a tree is trained on; the others give out-of-sample predictions."""

TRIED = 1 / 3
"""Share of the features that are candidates for a split."""

_CELLS = 500_000


@dataclass(frozen=True, eq=False)
class Forest:
    """Trees as arrays; a leaf is its own child.

    Attributes:
        roots: (n_trees,) root node of each tree.
        feature: (n_nodes,) column that is compared.
        threshold: (n_nodes,) largest value that goes to the left child.
        children: (n_nodes, 2) left and right child.
        values: float32 (n_nodes, n_columns), the values of leaves; 0 elsewhere.
        depth: (1,) number of steps to the deepest leaf.
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
        weights: (n,) weights of the rows.
        group: (n,) group of each row; rows of one group are drawn together.
        trees: Number of trees.
        leaf: Minimum number of rows of a leaf.
        depth: Maximum number of splits above a leaf.
        seed: Seed of the draws and the trees.

    Returns:
        The forest, and for each row the mean of the trees that were not trained on it,
        (n, n_columns); NaN where all trees were.

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
"""Number of principal directions of the embeddings that are features of the trees."""


class ForestRouter(LearnedRouter):
    """Extremely randomized trees on principal directions of the embedding, text form and task.

    Task features are the scores of a ridge regression from embeddings to tasks; the trees are
    trained on its out-of-sample scores. With fewer than two tasks in the data there are none. Trees
    need a score of every LLM: unmeasured cells are imputed by a ridge regression on the same
    features.

    When to take it:
        When half a millisecond per decision is acceptable and there are a thousand questions or
        more. Unlike ``auto``, it has no member routers to fit.

    Args:
        trees: Number of trees.
        leaf: Minimum number of distinct questions in a leaf, capped at an eighth of all.
        depth: Maximum number of splits above a leaf; a decision takes one step per split.
        seed: Seed of the trees.

    Learned by ``fit``:
        centre_: float32 (d,), mean embedding.
        turn_: float32 (d, n_directions), the principal directions.
        recogniser_: Map from embedding to task scores; None with fewer than two tasks.
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
        # trees fit their training questions more closely than new ones
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
        """Fit the map to tasks and return its out-of-sample scores, (n, n_tasks)."""
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
    """Return one row index per distinct embedding, (n,), chosen independently of row order."""
    by_text = np.array(sorted(range(len(data)), key=lambda i: data.queries[i]), np.intp)
    _, first = np.unique(known.row_of[by_text], return_index=True)
    return by_text[first]


def _in_order(group: NDArray[np.intp]) -> NDArray[np.intp]:
    """Renumber groups by their first member, independently of the old numbers."""
    _, first, place = np.unique(group, return_index=True, return_inverse=True)
    return np.asarray(first[place.reshape(-1)])


def _filled(known: Distinct, features: Floats, fold: NDArray[np.intp]) -> Floats:
    """Return the scores, with unmeasured cells predicted by ridge regression."""
    if known.known.all():
        return known.scores
    scores = np.where(known.known, known.scores, np.nan)
    return np.where(known.known, scores, fit_ridge(features, scores, fold)[1])
