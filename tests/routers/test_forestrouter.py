from dataclasses import replace

import numpy as np
import pytest

from waypost import load_router
from waypost.contracts.errors import MissingExtraError
from waypost.encoders import make_encoder
from waypost.loading import save_router
from waypost.testing.synthetic import ENCODER_ID, planted
from waypost_routers.forestrouter import Forest, ForestRouter, fit_forest


def grown(n=300, **more):
    draw = np.random.default_rng(0)
    features = draw.normal(size=(n, 3)).astype(np.float32)
    corner = (features[:, 0] > 0) & (features[:, 1] > 0)
    targets = np.stack([corner, ~corner], axis=1).astype(float)
    settings = {"trees": 20, "leaf": 5, "depth": 8, "seed": 0, **more}
    return features, targets, *fit_forest(features, targets, np.ones(n), np.arange(n), **settings)


# -- the trees ------------------------------------------------------------------------------


def test_a_walk_by_hand():
    # first tree: x0 <= 1 ? (x1 <= 0 ? 1 : 2) : 4; second: a leaf of 3
    forest = Forest(
        roots=np.array([0, 5], np.int32),
        feature=np.array([0, 1, 0, 0, 0, 0], np.int32),
        threshold=np.array([1.0, 0.0, 0, 0, 0, 0]),
        children=np.array([[1, 4], [2, 3], [2, 2], [3, 3], [4, 4], [5, 5]], np.int32),
        values=np.array([[0], [0], [1], [2], [4], [3]], np.float32),
        depth=np.array([2], np.int32),
    )
    asked = np.array([[1.0, 0.0], [0.0, 0.5], [1.5, 0.0]], np.float32)
    assert forest.predict(asked)[:, 0].tolist() == [2.0, 2.5, 3.5]


def test_it_walks_as_scikit_learn_does():
    from sklearn.tree import ExtraTreeRegressor

    features, targets, forest, _ = grown(trees=1)
    drawn = np.isin(np.arange(300), np.random.default_rng(0).permutation(300)[:210])
    tree = ExtraTreeRegressor(max_features=1, min_samples_leaf=5, max_depth=8, random_state=0)
    tree.fit(features[drawn], targets[drawn])
    np.testing.assert_allclose(forest.predict(features), tree.predict(features), atol=1e-6)


def test_trees_find_a_corner_that_no_line_cuts_off():
    _, targets, _, outside = grown(600, trees=60, leaf=2, depth=20)
    corner = targets[:, 0] > 0
    assert outside[corner, 0].mean() - outside[~corner, 0].mean() > 0.15
    assert ((outside[:, 0] > np.quantile(outside[:, 0], 0.75)) == corner).mean() > 0.85


def test_what_a_tree_drew_has_no_part_in_its_outside_prediction():
    # Every question occurs twice with a random outcome, predictable only from its duplicate.
    draw = np.random.default_rng(0)
    features = np.repeat(draw.normal(size=(100, 2)), 2, axis=0).astype(np.float32)
    targets = np.repeat(draw.choice([0.0, 1.0], (100, 1)), 2, axis=0)
    grow = {"trees": 60, "leaf": 1, "depth": 40, "seed": 0}
    _, apart = fit_forest(features, targets, np.ones(200), np.arange(200), **grow)
    _, together = fit_forest(features, targets, np.ones(200), np.repeat(np.arange(100), 2), **grow)
    assert ((apart > 0.5) == targets).mean() > 0.9
    assert ((together > 0.5) == targets).mean() < 0.65


def test_rows_that_every_tree_drew_have_no_outside_prediction():
    _, _, _, outside = grown(10, trees=1, leaf=1)
    assert np.isnan(outside).all(axis=1).sum() == 7


def test_a_batch_is_cut_into_blocks_that_change_nothing(monkeypatch):
    features, _, forest, _ = grown()
    whole = forest.predict(features)
    monkeypatch.setattr("waypost_routers.forestrouter._CELLS", 200)
    np.testing.assert_array_equal(forest.predict(features), whole)


def test_without_scikit_learn_it_says_what_to_install(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "sklearn.tree", None)
    with pytest.raises(MissingExtraError, match="train"):
        grown()


# -- the router -----------------------------------------------------------------------------


def test_tasks_are_recognised_where_there_are_two():
    data = planted(160)
    halves = tuple("a" if row[0] > 0 else "b" for row in data.embeddings)
    for names, has in ((halves, True), (("a",) * 160, False)):
        router = ForestRouter(trees=5).fit(replace(data, task_names=names))
        assert (router.recogniser_ is not None) == has
        assert np.isfinite(router.predict_quality(data.batch())).all()


def test_the_form_of_a_text_counts_where_embeddings_say_nothing():
    data = planted(200)
    code = np.arange(200) % 2 == 0
    queries = tuple(
        f"def f(x):\n    return x == {i}" if of_code else f"Which river runs through town {i}?"
        for i, of_code in enumerate(code)
    )
    vectors = np.random.default_rng(0).normal(size=(200, 8)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    quality = np.stack([code, ~code, np.full(200, 0.5)], axis=1).astype(float)
    data = replace(
        data, queries=queries, quality=quality, embeddings=vectors, task_names=("t",) * 200
    )
    router = ForestRouter(trees=40).fit(data)
    chosen = router.predict_quality(data.batch()).argmax(axis=1)
    assert (chosen == np.where(code, 0, 1)).mean() > 0.95


def test_an_artifact_holds_the_trees(tmp_path):
    data, other = planted(160), planted(20, seed=5)
    router = ForestRouter(trees=10).fit(data)
    router.encoder = make_encoder(ENCODER_ID)
    save_router(router, tmp_path / "a", data)
    again = load_router(tmp_path / "a")
    np.testing.assert_array_equal(
        again.predict_quality(other.batch()), router.predict_quality(other.batch())
    )
