"""Forests of randomized regression trees (Geurts et al., 2006), for several columns at once.

scikit-learn grows the trees; what is left of them is a few arrays, so that an artifact holds no
code and one question's walk down all trees is a handful of array operations a level.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from waypost.contracts.errors import MissingExtraError
from waypost.contracts.types import Floats

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
