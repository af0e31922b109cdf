import numpy as np
import pytest
from scipy.stats import kendalltau
from sklearn.metrics import ndcg_score, roc_auc_score

from waypost.metrics import predictions
from waypost.metrics.predictions import auroc, kendall_tau, ndcg

NONE = np.nan


def draws(n, m, places=1):
    draw = np.random.default_rng(0)
    return np.round(draw.uniform(size=(n, m)), places), draw.choice([0.0, 0.5, 1.0], (n, m))


def test_kendall_tau_by_hand():
    predicted = np.array([[0.9, 0.5, 0.1], [0.9, 0.5, 0.1], [0.9, 0.5, 0.5], [0.4, 0.4, 0.4]])
    measured = np.array([[1.0, 0.5, 0.0], [0.0, 0.5, 1.0], [1.0, 0.0, 0.5], [1.0, 0.0, 0.0]])
    # Third: pairs (a, b), (a, c) agree, (b, c) is a tie of the prediction: 2 / sqrt(2 * 3).
    assert kendall_tau(predicted, measured) == pytest.approx([1, -1, 2 / np.sqrt(6), 0])


def test_kendall_tau_of_right_and_wrong_answers():
    # Pairs told apart by measurement: 2 * 2; all of them agree; 6 by prediction.
    found = kendall_tau(np.array([[0.9, 0.8, 0.2, 0.1]]), np.array([[1.0, 1.0, 0.0, 0.0]]))
    assert found == pytest.approx([4 / np.sqrt(4 * 6)])


def test_queries_without_an_order_have_no_tau_and_no_ndcg():
    predicted = np.array([[0.9, 0.1], [0.9, 0.1], [0.9, NONE], [0.9, 0.1]])
    measured = np.array([[1.0, 1.0], [0.0, 0.0], [1.0, 0.0], [NONE, 1.0]])
    assert np.isnan(kendall_tau(predicted, measured)).all()
    assert np.isnan(ndcg(predicted, measured)).all()


def test_kendall_tau_is_scipys(monkeypatch):
    monkeypatch.setattr(predictions, "_BLOCK", 30)  # several blocks
    predicted, measured = draws(40, 6)
    predicted[::3, 2] = measured[::5, 4] = NONE
    for one, p, s in zip(kendall_tau(predicted, measured), predicted, measured, strict=True):
        both = ~np.isnan(p) & ~np.isnan(s)
        assert one == pytest.approx(kendalltau(p[both], s[both]).statistic, nan_ok=True)


def test_ndcg_by_hand():
    second = 1 / np.log2(3)
    predicted = np.array([[0.9, 0.1], [0.1, 0.9], [0.5, 0.5], [NONE, 0.5]])
    measured = np.array([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0], [1.0, 0.5]])
    # Equal predictions: the mean of both orders. One LLM alone has no order.
    expected = [1, second, (1 + second) / 2, NONE]
    assert ndcg(predicted, measured) == pytest.approx(expected, nan_ok=True)


def test_ndcg_is_scikit_learns():
    predicted, measured = draws(50, 7)
    for one, p, s in zip(ndcg(predicted, measured), predicted, measured, strict=True):
        assert one == pytest.approx(ndcg_score([s], [p]))


def test_unmeasured_llms_take_no_place():
    full = ndcg(np.array([[0.2, 0.8]]), np.array([[1.0, 0.5]]))
    holes = ndcg(np.array([[0.9, 0.2, 0.5, 0.8]]), np.array([[NONE, 1.0, NONE, 0.5]]))
    assert holes == pytest.approx(full)


def test_auroc_by_hand():
    predicted = np.array([0.9, 0.4, 0.4, 0.1, NONE, 0.7])
    measured = np.array([1.0, 0.5, 0.0, 0.4, 1.0, NONE])
    # Solved .9 and .4, unsolved .4 and .1: three pairs right, one equal.
    assert auroc(predicted, measured) == pytest.approx(3.5 / 4)
    assert np.isnan(auroc(predicted, np.ones(6)))
    assert np.isnan(auroc(predicted, np.full(6, NONE)))


def test_auroc_is_scikit_learns():
    predicted, measured = draws(200, 1)
    ours = auroc(predicted[:, 0], measured[:, 0])
    assert ours == pytest.approx(roc_auc_score(measured[:, 0] >= 0.5, predicted[:, 0]))
