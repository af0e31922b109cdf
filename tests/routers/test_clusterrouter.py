import numpy as np
import pytest

from waypost.contracts.records import Query
from waypost.contracts.router import QueryBatch
from waypost.testing.synthetic import planted
from waypost.testing.tables import outcomes
from waypost_routers._neighbors.kmeans import distinct_rows, fit_centroids, nearest_centroid
from waypost_routers._shared import contrast_error, contrasts
from waypost_routers.clusterrouter import ClusterRouter


def batch(*vectors):
    rows = np.array(vectors, np.float64)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return QueryBatch(tuple(Query(f"q{i}") for i in range(len(rows))), rows.astype(np.float32))


# two clusters, east (3 questions) and north (2)
VECTORS = [[1, 0], [10, 1], [10, -1], [0, 1], [1, 10]]
SCORES = {"a": [1.0, 1.0, 0.4, 0.0, None], "b": [0.0, None, None, 0.6, 1.0]}


def fitted(**params):
    return ClusterRouter(k=2, **params).fit(outcomes(SCORES, vectors=VECTORS))


def test_sums_and_counts_leave_unmeasured_cells_out():
    router = fitted()
    east = int(np.argmax(router.centroids_ @ np.array([1, 0], np.float32)))
    assert router.sums_[east].tolist() == pytest.approx([2.4, 0.0])
    assert router.counts_[east].tolist() == [3, 1]
    assert router.sums_[1 - east].tolist() == pytest.approx([0.0, 1.6])
    assert router.counts_[1 - east].tolist() == [1, 2]


def test_the_nearest_cluster_s_mean_shrunk_to_the_training_mean():
    # means: a = 2.4/4 = .6, b = 1.6/3; the further of two clusters weighs about nothing
    raw = fitted(nearest=1, kappa=2)._raw(batch([1, 0]))[0]
    assert raw == pytest.approx([(2.4 + 2 * 0.6) / 5, (0.0 + 2 * 1.6 / 3) / 3], abs=2e-3)


def test_an_llm_measured_in_no_near_cluster_gets_its_mean():
    data = outcomes({"a": [1.0, 0.0], "b": [0.7, None]}, vectors=[[1, 0], [0, 1]])
    router = ClusterRouter(k=2, nearest=1, kappa=0).fit(data)
    assert router._raw(batch([0, 1]))[0] == pytest.approx([0.0, 0.7], abs=2e-3)


def test_scores_do_not_jump_where_clusters_change_places():
    data = planted(120)
    router = ClusterRouter(k=12, nearest=3).fit(data)
    one, two = data.embeddings[0].astype(np.float64), data.embeddings[1].astype(np.float64)
    path = [one + (two - one) * t for t in np.linspace(0, 1, 2001)]
    raw = router._raw(batch(*path))
    assert np.abs(np.diff(raw, axis=0)).max() < 0.05
    assert np.abs(raw[0] - raw[-1]).max() > 0.5


def test_k_is_chosen_where_it_is_not_given():
    # Twenty kinds of question in 16 dimensions, each with its own specialist of four.
    draw = np.random.default_rng(0)
    kinds = draw.normal(size=(20, 16))
    vectors = kinds.repeat(20, axis=0) + draw.normal(size=(400, 16)) / 8
    best = np.arange(20).repeat(20) % 4
    scores = {str(j): list((best == j).astype(float)) for j in range(4)}
    router = ClusterRouter().fit(outcomes(scores, vectors=vectors))
    assert router.k is None
    assert router.k_ in (20, 40)


def test_a_second_fit_chooses_anew():
    router = ClusterRouter().fit(planted(200))
    assert router.fit(planted(4)).k_ == 1


def test_row_order_and_copies_are_nothing_to_k_means():
    rows = planted(80).embeddings
    one = fit_centroids(distinct_rows(rows, 0), 6, seed=1)
    two = fit_centroids(distinct_rows(np.concatenate([rows[::-1], rows[:9]]), 0), 6, seed=1)
    np.testing.assert_array_equal(one, two)


def test_k_means_finds_separate_clusters():
    draw = np.random.default_rng(2)
    centres = np.eye(8)[:5]
    rows = (centres.repeat(30, axis=0) + draw.normal(size=(150, 8)) / 20).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    labels = nearest_centroid(rows, fit_centroids(rows, 5, seed=0)).reshape(5, 30)
    assert (labels == labels[:, :1]).all()
    assert len(set(labels[:, 0])) == 5


def test_more_clusters_than_rows_are_the_rows():
    rows = np.eye(3, dtype=np.float32)
    assert sorted(map(tuple, fit_centroids(rows, 9, seed=0))) == sorted(map(tuple, rows))


def test_contrasts_by_hand():
    known = np.array([[True, True, True], [True, False, True]])
    values = np.array([[0.0, 0.3, 0.6], [0.2, 9.0, 0.6]])
    np.testing.assert_allclose(contrasts(values, known), [[-0.3, 0, 0.3], [-0.2, 0, 0.2]])
    quality = np.array([[0.1, 0.4, 0.7], [0.0, np.nan, 0.0]])
    assert contrast_error(values, quality) == pytest.approx((0.2**2 + 0.2**2) / 5)
