import numpy as np
import pytest

from waypost.metrics.predictions import brier, calibration_error, log_loss, merged, reliability

PREDICTED = np.array([[0.1, 0.9], [0.1, 0.9]])
MEASURED = np.array([[0.0, 1.0], [0.0, 0.0]])


def test_by_hand():
    assert brier(PREDICTED, MEASURED) == pytest.approx((0.01 + 0.01 + 0.01 + 0.81) / 4)
    bins = reliability(PREDICTED, MEASURED, bins=2)
    assert bins == [[pytest.approx(0.1), 0.0, 2], [pytest.approx(0.9), 0.5, 2]]
    assert calibration_error(bins) == pytest.approx((2 * 0.1 + 2 * 0.4) / 4)


def test_log_loss_by_hand():
    losses = [-np.log(0.9), -np.log(0.9), -np.log(0.9), -np.log(0.1)]
    assert log_loss(PREDICTED, MEASURED) == pytest.approx(np.mean(losses))
    half = log_loss(np.array([0.8]), np.array([0.5]))
    assert half == pytest.approx(-(np.log(0.8) + np.log(0.2)) / 2)


def test_log_loss_of_a_sure_mistake_is_finite_and_of_nothing_unknown():
    assert log_loss(np.array([0.0, np.nan]), np.array([1.0, 1.0])) == pytest.approx(-np.log(1e-6))
    assert log_loss(np.array([1.0]), np.array([1.0])) == pytest.approx(0, abs=1e-5)
    assert np.isnan(log_loss(np.array([np.nan]), np.array([1.0])))


def test_unmeasured_cells_are_left_out():
    measured = np.array([[0.0, np.nan], [0.0, np.nan]])
    assert brier(PREDICTED, measured) == pytest.approx(0.01)
    assert reliability(PREDICTED, measured) == [[pytest.approx(0.1), 0.0, 2]]
    nothing = np.full((2, 2), np.nan)
    assert np.isnan(brier(PREDICTED, nothing))
    assert reliability(PREDICTED, nothing) == []
    assert np.isnan(calibration_error([]))


def test_bins_are_of_equal_mass_and_keep_equal_predictions_together():
    values = np.arange(150.0) / 150
    bins = reliability(values, values)
    assert [count for _, _, count in bins] == [10] * 15
    assert calibration_error(bins) == pytest.approx(0)
    twice = np.r_[np.full(100, 0.5), np.full(50, 0.7)]
    assert [count for _, _, count in reliability(twice, twice)] == [100, 50]


def test_bins_of_several_runs_are_put_together_by_mass():
    found = merged([[[0.1, 0.0, 10], [0.9, 1.0, 10]], [[0.2, 0.5, 10], [0.8, 0.5, 10]]], bins=2)
    assert found == [[pytest.approx(0.15), 0.25, 20], [pytest.approx(0.85), 0.75, 20]]
    assert merged([[], []]) == []
