import numpy as np
import pytest

from waypost.metrics.intervals import holm, is_binary, mcnemar


def test_mcnemar_by_hand():
    # Three wins, one loss: 2 (1 + 4) / 2^4.
    a, b = np.array([1.0, 1, 1, 0, 1, 0]), np.array([0.0, 0, 0, 1, 1, 0])
    assert mcnemar(a, b) == pytest.approx(0.625)
    assert mcnemar(b, a) == pytest.approx(0.625)
    assert mcnemar(a, a) == 1
    assert mcnemar(np.r_[a, np.nan], np.r_[b, 1]) == pytest.approx(0.625)
    assert mcnemar(np.ones(2000), np.zeros(2000)) < 1e-300


def test_holm_by_hand():
    assert holm({"a": 0.01, "b": 0.04, "c": 0.03}) == pytest.approx(
        {"a": 0.03, "b": 0.06, "c": 0.06}
    )
    assert holm({}) == {}


def test_only_zeros_and_ones_are_binary():
    assert is_binary(np.array([0, 1, np.nan]))
    assert not is_binary(np.array([0, 1.0]), np.array([0.5]))
