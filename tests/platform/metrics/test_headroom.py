import numpy as np
import pyarrow.parquet as pq
import pytest

from waypost.metrics.behaviour import headroom, ties

NAN = np.nan


def test_ties_are_shares_of_the_questions_with_two_scores_or_more():
    quality = np.array(
        [
            [1.0, 1.0, 0.0],  # two are best
            [0.0, 0.0, 0.0],  # all equal, none scores
            [0.4, 0.4, NAN],  # all equal
            [1.0, 0.5, 0.0],  # one is best
            [1.0, NAN, NAN],  # says nothing of ties
        ]
    )
    found = ties(quality)
    assert found.questions == 4
    assert (found.several_best, found.all_equal, found.none_scores) == (0.75, 0.5, 0.25)


def test_one_llm_ties_with_nobody():
    found = ties(np.array([[1.0], [0.0]]))
    assert found.questions == 0
    assert np.isnan(found.several_best)


def test_headroom_is_taken_over_the_questions_of_the_best_single_llm():
    quality = np.array([[1.0, 0.0], [0.0, 1.0], [0.5, 0.25], [NAN, 1.0], [1.0, 0.0]])
    found = headroom(quality)
    # means 2.5 / 4 and 2.25 / 5; of the first LLM's four questions the best are 1, 1, 0.5, 1
    assert (found.best, found.questions) == (0, 4)
    assert found.best_mean == 0.625
    assert found.oracle_mean == 0.875
    assert found.headroom == 0.25


def test_nothing_measured_has_no_headroom():
    assert headroom(np.full((3, 2), NAN)) is None


def test_ties_of_real_data_are_those_its_description_counts(shared_data):
    path = shared_data / "llmrouter_example/routing_train.parquet"
    table = pq.read_table(path, columns=["query_id", "model_name", "performance"]).to_pandas()
    quality = table.pivot(index="query_id", columns="model_name", values="performance")
    found = ties(quality.to_numpy(np.float64))
    assert found.questions == 5600
    assert found.several_best * 5600 == pytest.approx(4981)
    assert found.none_scores * 5600 == pytest.approx(1084)
