import math

import numpy as np
import pytest
import torch

from waypost_routers._finetune.dual import (
    draw_contrasts,
    sample_llm_loss,
    sample_sample_loss,
    top_and_bottom,
)

NAN = math.nan


def chosen(quality, positives=1, negatives=1, seed=0):
    rng = np.random.default_rng(seed)
    positive, negative = top_and_bottom(np.array([quality]), positives, negatives, rng)
    return np.flatnonzero(positive[0]).tolist(), np.flatnonzero(negative[0]).tolist()


def loss(logits, quality, positives=1, negatives=2):
    quality = np.array([quality])
    masks = top_and_bottom(quality, positives, negatives, np.random.default_rng(0))
    return float(sample_llm_loss(torch.tensor([logits]), quality, *masks))


def test_the_best_is_positive_and_the_worst_negative():
    assert chosen([0.3, 1.0, 0.1]) == ([1], [2])


def test_an_unmeasured_llm_is_neither():
    assert chosen([NAN, 1.0, NAN, 0.2], positives=3, negatives=3) == ([1, 3], [3])


def test_a_score_of_zero_is_no_positive_and_a_good_one_no_negative():
    assert chosen([0.0, 0.0, 0.0], positives=2, negatives=1)[0] == []
    assert chosen([0.9, 0.6, 0.51], negatives=3)[1] == []
    assert chosen([0.9, 0.6, 0.5], negatives=3)[1] == [2]


def test_which_of_equal_llms_is_drawn_anew():
    drawn = {chosen([1.0, 1.0, 1.0, 0.0], seed=s)[0][0] for s in range(40)}
    assert drawn == {0, 1, 2}


def test_sample_llm_loss_by_hand():
    # one positive at logit 1, negatives at 0 and -1: -log(e / (e + 1 + 1/e))
    expected = math.log((math.e + 1 + 1 / math.e) / math.e)
    assert loss([1.0, 0.0, -1.0], [1.0, 0.2, 0.0]) == pytest.approx(expected, abs=1e-6)


def test_two_positives_are_summed_and_never_against_their_better():
    # .4 is a positive, too, and among the two worst: only 0 stands against it
    first = math.log(1 + math.exp(0.5 - 2.0) + math.exp(0.0 - 2.0))
    second = math.log(1 + math.exp(0.0 - 0.5))
    assert loss([2.0, 0.5, 0.0], [1.0, 0.4, 0.0], positives=2) == pytest.approx(
        first + second, abs=1e-6
    )


def test_alike_or_unmeasured_scores_teach_nothing():
    assert loss([3.0, -2.0, 0.1], [0.4, 0.4, 0.4], positives=3, negatives=3) == 0
    assert loss([3.0, -2.0, 0.1], [1.0, NAN, NAN], positives=3, negatives=3) == 0


def test_large_logits_do_not_overflow():
    assert loss([-300.0, 300.0, 0.0], [1.0, 0.0, 0.0]) == pytest.approx(600.0)


def test_an_anchor_is_never_its_own_companion_and_strangers_are_of_other_clusters():
    cluster = np.array([0, 0, 0, 1, 1, 2, 2])
    for seed in range(20):
        rows = draw_contrasts(cluster, 3, np.random.default_rng(seed))
        assert rows.shape == (7, 5)
        for anchor, companion, *strangers in rows:
            assert anchor != companion
            assert cluster[anchor] == cluster[companion]
            assert cluster[anchor] not in cluster[strangers]
            assert len(set(strangers)) == 3


def test_a_question_alone_in_its_cluster_is_no_anchor():
    rows = draw_contrasts(np.array([0, 0, 1]), 3, np.random.default_rng(0))
    assert rows[:, 0].tolist() == [0, 1]
    assert rows.shape == (2, 3)
    assert len(draw_contrasts(np.zeros(4, int), 3, np.random.default_rng(0))) == 0


def test_sample_sample_loss_by_hand():
    # cosines to the positive 1, to the negative 0, temperature .5: -log(e^2 / (e^2 + 1))
    states = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    found = sample_sample_loss(states, np.array([[0, 1, 2]]), 0.5)
    assert float(found) == pytest.approx(math.log(1 + math.exp(-2)), abs=1e-6)


def test_no_contrast_is_no_loss_and_still_has_a_gradient():
    states = torch.ones(2, 2, requires_grad=True)
    found = sample_sample_loss(states, np.empty((0, 2), int), 1.0)
    found.backward()
    assert float(found.detach()) == 0
    assert states.grad.abs().sum() == 0
