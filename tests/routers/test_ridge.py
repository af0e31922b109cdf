import numpy as np
import pytest

from waypost_routers._linear.ridge import Ridge, fit_ridge

X = np.array([[-1.0], [0.0], [1.0], [2.0]])
OWN_FOLDS = np.arange(4)


def test_one_feature_by_hand():
    # centred x: -1.5, -.5, .5, 1.5 (squares sum to 5); y = 2x + 1, so slope = 10 / (5 + penalty),
    # the penalty being hundredths of 5
    y = (2 * X + 1).astype(float)
    ridge, _ = fit_ridge(X, y, OWN_FOLDS, penalties=(100.0,))
    assert ridge.weights[0, 0] == pytest.approx(1.0)
    assert ridge.intercept[0] == pytest.approx(2.0 - 0.5)


def test_out_of_sample_predictions_are_those_of_fits_without_the_fold():
    draw = np.random.default_rng(0)
    rows, y = draw.normal(size=(12, 3)), draw.normal(size=(12, 2))
    fold = np.repeat([0, 1, 2], 4)
    _, outside = fit_ridge(rows, y, fold, penalties=(5.0,))
    for one in range(3):
        alone, _ = fit_ridge(rows[fold != one], y[fold != one], fold[fold != one], (5.0,))
        np.testing.assert_allclose(outside[fold == one], alone.predict(rows[fold == one]))


def test_unmeasured_cells_have_no_part():
    y = np.array([[1.0, 3.0], [2.0, np.nan], [3.0, 5.0], [np.nan, 6.0]])
    ridge, _ = fit_ridge(X, y, OWN_FOLDS, penalties=(10.0,))
    alone, _ = fit_ridge(X[[0, 2, 3]], y[[0, 2, 3]][:, 1:], np.arange(3), penalties=(10.0,))
    assert ridge.weights[0, 1] == pytest.approx(alone.weights[0, 0])
    assert ridge.intercept[1] == pytest.approx(alone.intercept[0])


def test_a_fold_with_all_of_a_column_gets_its_mean():
    y = np.array([[1.0], [2.0], [np.nan], [np.nan]])
    _, outside = fit_ridge(X, y, np.array([0, 0, 1, 1]), penalties=(1.0,))
    assert outside[0, 0] == pytest.approx(1.5)


def test_noise_gets_the_highest_penalty_and_a_line_the_lowest():
    draw = np.random.default_rng(1)
    rows = draw.normal(size=(80, 5))
    line = rows @ draw.normal(size=(5, 1))
    fold = np.arange(80) % 8
    both = np.concatenate([line, draw.normal(size=(80, 1))], axis=1)
    ridge, _ = fit_ridge(rows, both, fold, (0.1, 1000.0), same_penalty=False)
    assert ridge.penalty.tolist() == [0.1, 1000.0]


def test_contrasts_judge_the_differences_and_not_the_level():
    # the level of both columns follows x, their difference is noise
    draw = np.random.default_rng(2)
    rows = draw.normal(size=(60, 4))
    level, noise = rows @ np.ones((4, 1)), draw.normal(size=(60, 1))
    y = np.concatenate([level + noise, level - noise], axis=1)
    fold = np.arange(60) % 6
    by_level, _ = fit_ridge(rows, y, fold, (0.1, 1000.0))
    by_difference, _ = fit_ridge(rows, y, fold, (0.1, 1000.0), contrasts=True)
    assert by_level.penalty[0] == 0.1
    assert by_difference.penalty[0] == 1000.0


def test_state_survives():
    ridge, _ = fit_ridge(X, 2 * X, OWN_FOLDS)
    again = Ridge.from_arrays(ridge.to_arrays())
    np.testing.assert_array_equal(again.predict(X), ridge.predict(X))


def test_wide_rows_give_the_fit_that_narrow_ones_would():
    draw = np.random.default_rng(4)
    rows, y = draw.normal(size=(12, 30)), draw.normal(size=(12, 2))
    fold = np.repeat([0, 1, 2], 4)
    wide, outside = fit_ridge(rows, y, fold, penalties=(5.0,))
    centred = rows - rows.mean(axis=0)
    penalty = 5.0 * (centred**2).sum() / 100
    inner = centred.T @ centred + penalty * np.eye(30)
    expected = np.linalg.solve(inner, centred.T @ (y - y.mean(axis=0)))
    np.testing.assert_allclose(wide.weights, expected, atol=1e-9)
    alone, _ = fit_ridge(rows[fold != 1], y[fold != 1], fold[fold != 1], (5.0,))
    np.testing.assert_allclose(outside[fold == 1], alone.predict(rows[fold == 1]), atol=1e-9)
