import math
from dataclasses import replace

import numpy as np
import pytest

from waypost.contracts.records import Query
from waypost.contracts.router import QueryBatch
from waypost.registry import make_router
from waypost.testing.synthetic import doubled, planted, repeated
from waypost.testing.tables import outcomes
from waypost_routers._neighbors.regression import MAX_HELD_OUT, _earned
from waypost_routers.knnrouter import KNNRouter

# cosine to (1, 0): 1, .8, .6, 0
VECTORS = [[1, 0], [4, 3], [3, 4], [0, 1]]
SCORES = {"a": [1.0, 0.0, None, 0.2], "b": [0.0, 0.6, 0.9, 0.9]}
EAST = QueryBatch((Query("east"),), np.array([[1, 0]], np.float32))


def predict(data=None, batch=EAST, **params):
    data = outcomes(SCORES, vectors=VECTORS) if data is None else data
    return KNNRouter(**params).fit(data).predict(batch)


def test_two_neighbours_by_hand():
    found = predict(k=2, weights="uniform", kappa=0)
    assert found.quality[0] == pytest.approx([0.5, 0.3])


def test_shrinkage_adds_kappa_votes_for_the_training_mean():
    # means: a = 1.2/3 = .4, b = 2.4/4 = .6
    found = predict(k=2, weights="uniform", kappa=2)
    assert found.quality[0] == pytest.approx([(1.0 + 0.8) / 4, (0.6 + 1.2) / 4])


def test_softmax_counts_the_nearest_as_one():
    w = math.exp((0.8 - 1.0) / 0.1)
    found = predict(k=2, weights="softmax", tau=0.1, kappa=0)
    assert found.quality[0] == pytest.approx([1 / (1 + w), 0.6 * w / (1 + w)], abs=1e-6)


def test_a_cell_not_measured_takes_no_part():
    found = predict(k=3, weights="uniform", kappa=0)
    assert found.quality[0] == pytest.approx([1.0 / 2, 1.5 / 3])


def test_k_beyond_the_data_takes_all_of_it():
    assert predict(k=1000, weights="uniform", kappa=0).quality[0] == pytest.approx([0.4, 0.6])


def test_confidence_is_the_share_of_neighbours_where_it_is_among_the_best():
    # neighbour 1: a best; 2: b best; 3: only b measured, so a has no part in it
    found = predict(k=3, weights="uniform")
    assert found.confidence[0] == pytest.approx([1 / 2, 2 / 3])


def test_ties_make_several_best():
    data = outcomes({"a": [1.0, 1.0], "b": [1.0, 0.0]}, vectors=[[1, 0], [0, 1]])
    assert predict(data, k=2, weights="uniform").confidence[0] == pytest.approx([1.0, 0.5])


def test_tokens_and_dollars_come_from_the_same_neighbours():
    data = outcomes(
        SCORES,
        vectors=VECTORS,
        output_tokens={"a": [10, 30, 99, 99], "b": [None, 50, 99, 99]},
        cost_usd={"b": [0.002, 0.004, 1.0, 1.0]},
    )
    found = predict(data, k=2, weights="uniform", kappa=0)
    assert found.output_tokens[0] == pytest.approx([20, 50])
    assert found.recorded_usd[0][1] == pytest.approx(0.003)
    assert np.isnan(found.recorded_usd[0][0])


def test_nothing_recorded_predicts_nothing():
    found = predict(k=2)
    assert found.output_tokens is None
    assert found.recorded_usd is None


def test_equally_similar_rows_share_the_last_place():
    data = outcomes({"a": [0.0, 1.0, 0.5], "b": [1.0, 0.0, 0.5]}, vectors=[[1, 1], [1, -1], [0, 1]])
    found = predict(data, k=1, weights="uniform", kappa=0)
    assert found.quality[0] == pytest.approx([0.5, 0.5])


def test_row_order_of_the_data_is_nothing():
    data, other = planted(80), planted(20, seed=4)
    back = data.select(np.arange(80)[::-1])
    batch = QueryBatch(tuple(map(Query, other.queries)), other.embeddings)
    one, two = (KNNRouter(k=9).fit(d).predict_quality(batch) for d in (data, back))
    np.testing.assert_allclose(one, two, atol=1e-6)


# -- k chosen at fit ------------------------------------------------------------------------


def test_k_is_chosen_where_it_is_not_given():
    # Six kinds of 20 questions; b is right for one of them. From k = 40 on, at least half of
    # the neighbours of that kind are of others, and a wins there too.
    draw = np.random.default_rng(0)
    vectors = (draw.normal(size=(6, 16)) * 3).repeat(20, axis=0) + draw.normal(size=(120, 16)) / 3
    a = [0.0] * 20 + [1.0] * 100
    data = outcomes({"a": a, "b": [1 - score for score in a]}, vectors=vectors)
    router = KNNRouter(weights="uniform").fit(data)
    assert router.k is None
    assert router.k_ in (5, 10, 20)


def test_llms_predicted_alike_earn_their_mean_whatever_their_order():
    quality = np.array([[0.5, 0.5, 0.9], [0.7, 0.7, 0.1]])
    scores = np.array([[1.0, 0.0, np.nan], [1.0, 0.5, 0.0]])
    assert _earned(quality, scores).tolist() == [0.5, 0.75]


def test_shuffled_outcomes_choose_the_smoothest():
    data = planted(120)
    order = np.random.default_rng(0).permutation(120)
    assert KNNRouter().fit(replace(data, quality=data.quality[order])).k_ == 80


def test_copies_of_a_question_do_not_vote_for_it():
    # Each question occurs five times with noisy scores: its own copies would make k = 5 look
    # perfect.
    draw = np.random.default_rng(3)
    vectors = draw.normal(size=(40, 24)).repeat(5, axis=0)
    a = (draw.random(40) < 0.5).astype(float).repeat(5)
    data = outcomes({"a": list(a), "b": list(1 - a)}, vectors=vectors)
    assert KNNRouter().fit(data).k_ > 5


def test_few_questions_take_them_all():
    assert KNNRouter().fit(planted(4)).k_ == 4


def test_large_data_is_sampled_for_the_choice():
    n = MAX_HELD_OUT + 500
    draw = np.random.default_rng(0)
    data = outcomes({"a": list(draw.random(n)), "b": [0.5] * n}, vectors=draw.normal(size=(n, 8)))
    one, two = KNNRouter().fit(data), KNNRouter().fit(data)
    assert (one.k_, one.similarity_floor_) == (two.k_, two.similarity_floor_)


# -- queries unlike the training data -------------------------------------------------------


def test_a_query_far_from_everything_is_decided_by_the_means():
    data = planted(60)
    router = KNNRouter(k=5).fit(data)
    opposite = -data.embeddings.mean(axis=0, keepdims=True)
    opposite /= np.linalg.norm(opposite)
    (decision,) = router.decide([Query("far away")], opposite.astype(np.float32))
    assert decision.model == data.names[int(np.argmax(data.quality.mean(axis=0)))]
    assert decision.quality == pytest.approx(
        dict(zip(data.names, router.mean_quality_, strict=True))
    )
    assert decision.confidence is None
    assert "a new kind of question" in decision.reason


def test_questions_like_the_training_data_are_not_flagged():
    rows = np.random.default_rng(0).permutation(800)
    data, other = planted(800).select(rows[:500]), planted(800).select(rows[500:])
    batch = QueryBatch(tuple(map(Query, other.queries)), other.embeddings)
    flagged = KNNRouter(ood_quantile=0.05).fit(data).predict(batch).out_of_distribution
    assert 0.01 < flagged.mean() < 0.09  # 0.05; standard error 0.013


def test_duplicates_do_not_raise_the_floor():
    data = planted(50)
    many = repeated(data, [*range(50), *[0] * 500])
    floor = KNNRouter(k=5).fit(data).similarity_floor_
    assert KNNRouter(k=5).fit(many).similarity_floor_ == pytest.approx(floor)


def test_one_question_flags_nothing():
    router = KNNRouter().fit(planted(1))
    batch = QueryBatch((Query("x"),), -planted(1).embeddings)
    assert router.predict(batch).out_of_distribution.tolist() == [False]


def test_doubling_rows_k_and_kappa_changes_nothing():
    data, other = planted(60), planted(30, seed=4)
    batch = QueryBatch(tuple(map(Query, other.queries)), other.embeddings)
    one = KNNRouter(k=7, kappa=1).fit(data).predict(batch)
    two = KNNRouter(k=14, kappa=2).fit(doubled(data)).predict(batch)
    # A float32 product of unit rows is off by at most d eps / 2, in whatever order it is summed.
    # The exponent of a weight is off by that / tau, and so, at most, is a mean of values in [0, 1].
    rounding = other.embeddings.shape[1] * np.finfo(np.float32).eps / KNNRouter().tau
    np.testing.assert_allclose(two.quality, one.quality, rtol=0, atol=rounding)
    np.testing.assert_allclose(two.confidence, one.confidence, rtol=0, atol=rounding)
    np.testing.assert_array_equal(two.out_of_distribution, one.out_of_distribution)


def test_a_new_llm_works_from_tens_of_outcomes():
    data, other = planted(200), planted(40, seed=8)
    quality = data.quality.copy()
    quality[30:, data.names.index("prover")] = np.nan
    router = make_router("knnrouter", {"k": 20}).fit(replace(data, quality=quality))
    decisions = router.decide([Query(t) for t in other.queries], other.embeddings)
    algebra = [d.model for d, t in zip(decisions, other.task_names, strict=True) if t == "algebra"]
    assert algebra.count("prover") / len(algebra) > 0.9
