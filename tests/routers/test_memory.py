import numpy as np
import pytest

from waypost_routers._neighbors.memory import (
    _doubles_pay,
    nearest,
    neighbour_mean,
    similarity_floor,
)


def unit(rows):
    rows = np.array(rows, dtype=np.float64)
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def random_rows(n, d=16, seed=0):
    return unit(np.random.default_rng(seed).normal(size=(n, d)))


COMPASS = unit([[1, 0], [3, 4], [0, 1], [-1, 0]])  # cosine to east: 1, .6, 0, -1


def test_neighbours_come_nearest_first_with_their_cosine():
    found = nearest(COMPASS, COMPASS[:1], 3)
    assert found.index.tolist() == [[0, 1, 2]]
    assert found.similarity[0] == pytest.approx([1, 0.6, 0], abs=1e-7)
    assert found.share.tolist() == [[1, 1, 1]]


def test_k_is_capped_at_the_number_of_rows():
    assert nearest(COMPASS, COMPASS[:1], 99).share.sum() == 4


def test_exact_search_agrees_with_a_full_sort():
    memory, queries = random_rows(500), random_rows(40, seed=1)
    expected = np.sort(queries.astype(np.float64) @ memory.T.astype(np.float64))[:, ::-1][:, :7]
    np.testing.assert_allclose(nearest(memory, queries, 7).similarity, expected, atol=1e-12)


def test_ties_at_the_last_place_share_it():
    memory = unit([[1, 0], [3, 4], [3, 4], [3, 4], [0, 1]])
    found = nearest(memory, memory[:1], 2)
    assert found.index.tolist() == [[0, 1, 2, 3]]
    assert found.share[0] == pytest.approx([1, 1 / 3, 1 / 3, 1 / 3])


def test_taking_fewer_is_searching_for_fewer():
    memory = np.concatenate([random_rows(60), random_rows(20)])  # 20 rows stand twice
    many, few = nearest(memory, memory[:30], 40), nearest(memory, memory[:30], 9)
    taken = many.take(9)
    assert taken.share.sum(axis=1) == pytest.approx(np.full(30, 9.0))
    for row in range(30):
        kept = taken.share[row] > 0
        assert set(taken.index[row][kept]) == set(few.index[row][few.share[row] > 0])


def test_leaving_out_the_same_question_leaves_out_its_copies():
    memory = unit([[1, 0], [1, 0], [3, 4]])
    found = nearest(memory, memory[:1], 3, other_questions_only=True)
    assert found.index[0][found.share[0] > 0].tolist() == [2]


def test_no_other_question_gives_no_neighbour():
    found = nearest(COMPASS[:1], COMPASS[:1], 3, other_questions_only=True)
    assert found.share.shape == (1, 0)
    assert found.take(2).share.shape == (1, 0)
    assert found.nearest_similarity.tolist() == [-1]


def test_a_query_finds_the_same_alone_and_in_any_batch():
    memory = np.concatenate([random_rows(3000, 48), random_rows(500, 48)])
    queries = random_rows(64, 48, seed=2)
    whole = nearest(memory, queries, 20)
    for row in range(0, 64, 7):
        alone = nearest(memory, queries[row : row + 1], 20)
        n = alone.index.shape[1]
        np.testing.assert_array_equal(whole.index[row, :n], alone.index[0])
        np.testing.assert_allclose(whole.share[row, :n], alone.share[0], atol=1e-12)


def test_weighted_mean_by_hand():
    values = np.array([[[1.0, np.nan], [0.0, 0.8]]])  # two neighbours, two LLMs
    weights = np.array([[1.0, 0.5]])
    prior = np.array([0.2, 0.4])
    # first LLM: (1*1 + .5*0 + 2*.2) / (1.5 + 2); second: (.5*.8 + 2*.4) / (.5 + 2)
    mean = neighbour_mean(values, weights, prior, kappa=2)
    assert mean[0] == pytest.approx([1.4 / 3.5, 1.2 / 2.5])


def test_without_shrinkage_an_unmeasured_llm_gets_the_prior():
    values = np.array([[[1.0, np.nan]]])
    mean = neighbour_mean(values, np.array([[1.0]]), np.array([0.2, 0.4]), kappa=0)
    assert mean[0] == pytest.approx([1.0, 0.4])


def test_without_value_and_prior_it_is_unknown():
    values = np.array([[[np.nan]]])
    assert np.isnan(neighbour_mean(values, np.array([[1.0]]), np.array([np.nan]), kappa=3)).all()


def test_floor_is_a_quantile_over_distinct_questions():
    rows = unit([[1, 0]] * 97 + [[3, 4], [0, 1]])
    near = np.array([0.6] * 97 + [0.8, 0.8])
    # three distinct questions: .6, .8, .8
    assert similarity_floor(rows, near, 0.0) == pytest.approx(0.6)
    assert similarity_floor(rows, near, 0.5) == pytest.approx(0.8)


def test_floor_of_one_question_is_below_everything():
    assert similarity_floor(COMPASS[:1], np.array([-1.0]), 0.1) == -1


def shares(found, row):
    pairs = zip(found.index[row], found.share[row], strict=True)
    return {int(index): share for index, share in pairs if share > 0}


def test_float64_products_find_what_float32_products_and_reading_again_find():
    memory = np.concatenate([random_rows(300, 24), random_rows(60, 24)])
    queries = np.concatenate([memory[:40], random_rows(60, 24, seed=3)])
    assert _doubles_pay(memory, 100, 50)
    assert not _doubles_pay(memory, 1, 50)
    for others in (False, True):
        together = nearest(memory, queries, 50, other_questions_only=others)
        for row in range(0, 100, 13):
            one = queries[row : row + 1]
            alone = nearest(memory, one, 50, other_questions_only=others)
            n = alone.index.shape[1]
            assert shares(together, row) == pytest.approx(shares(alone, 0))
            np.testing.assert_allclose(together.similarity[row, :n], alone.similarity[0])
