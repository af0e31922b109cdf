import numpy as np
import pytest

from waypost.tune.auto.stacking import Correction, Stack, fit_correction, fit_stack


def data(n=60_000, seed=0):
    """Quality of three LLMs: a level by question, and contrasts."""
    draw = np.random.default_rng(seed)
    level = draw.normal(0, 0.1, (n, 1))
    contrast = draw.normal(0, 0.1, (n, 3))
    contrast -= contrast.mean(axis=1, keepdims=True)
    return level, contrast, np.array([0.5, 0.6, 0.4])


def test_one_member_by_hand():
    stack = Stack(np.array([0.5]), np.array([0.25]), np.array([0.5, 0.3]))
    # away from the means: .3, .1; level .2; contrasts .1, -.1
    found = stack.combine(np.array([[[0.8, 0.4]]]))
    assert found[0] == pytest.approx([0.5 + 0.05 + 0.05, 0.3 - 0.05 + 0.05])


def test_level_and_contrasts_find_their_own_members():
    level, contrast, mean = data()
    knows_level, knows_contrast = mean + level + 0 * contrast, mean + contrast
    stack = fit_stack(np.stack([knows_level, knows_contrast]), mean + level + contrast, mean)
    assert stack.level[0] == pytest.approx(1.0, abs=0.03)
    assert stack.contrast[1] == pytest.approx(1.0, abs=0.03)


def test_a_member_that_overstates_is_shrunk():
    level, contrast, mean = data()
    stack = fit_stack(np.stack([mean + 4 * contrast + level]), mean + contrast + level, mean)
    assert stack.contrast[0] == pytest.approx(0.25, abs=0.01)


def test_noise_gets_next_to_no_weight():
    level, contrast, mean = data()
    noise = mean + np.random.default_rng(5).normal(0, 0.1, contrast.shape)
    stack = fit_stack(np.stack([mean + contrast + level, noise]), mean + contrast + level, mean)
    assert stack.contrast == pytest.approx([1.0, 0.0], abs=0.03)


def test_weights_are_never_negative():
    level, contrast, mean = data()
    stack = fit_stack(np.stack([mean - contrast - level]), mean + contrast + level, mean)
    assert not stack.used.any()
    assert stack.combine(np.zeros((1, 2, 3))) == pytest.approx(np.tile(mean, (2, 1)))


def test_unmeasured_cells_have_no_part():
    level, contrast, mean = data()
    quality = mean + level + contrast
    sparse = np.where(np.random.default_rng(1).random(quality.shape) < 0.4, np.nan, quality)
    sparse[:, 0] = quality[:, 0]
    wrong = np.where(np.isnan(sparse), 9.0, quality)  # what stands at unmeasured cells is nothing
    stack = fit_stack(np.stack([wrong]), sparse, mean)
    assert (stack.contrast[0], stack.level[0]) == pytest.approx((1.0, 1.0), abs=0.02)


def test_the_correction_finds_where_the_stack_is_wrong():
    draw = np.random.default_rng(3)
    side = draw.choice([-1.0, 1.0], 400)
    predictions = np.stack([np.column_stack([0.1 * side, -0.1 * side])])
    predictions += draw.normal(0, 0.01, predictions.shape)
    stacked = np.full((400, 2), 0.5)
    quality = stacked + np.column_stack([0.2 * side, -0.2 * side])
    found = fit_correction(predictions, stacked, quality).of(predictions)
    # "no error" has the weight of as many neighbours as are asked, so half of it is found
    assert found[:, 0] == pytest.approx(0.1 * side, abs=0.02)


def test_the_correction_leaves_unmeasured_errors_out():
    correction = Correction(
        np.zeros((2, 2), np.float32), np.array([[0.4, np.nan], [0.4, -0.4]], np.float32), 2
    )
    # first LLM: (.4 + .4) / (2 + 2); second: -.4 / (1 + 2)
    found = correction.of(np.zeros((1, 1, 2)))
    assert found[0] == pytest.approx([0.2, -0.4 / 3])


def test_few_questions_leave_members_alike():
    level, contrast, mean = data(n=40)
    noisy = mean + contrast + level + np.random.default_rng(5).normal(0, 0.02, contrast.shape)
    exact = mean + contrast + level
    few = fit_stack(np.stack([exact, noisy]), exact, mean)
    assert few.contrast == pytest.approx([0.5, 0.5], abs=0.05)


def test_the_members_that_are_missed_least_go_first():
    level, contrast, mean = data(n=20_000)
    truth = mean + contrast + level
    draw = np.random.default_rng(6)
    members = [truth + draw.normal(0, 0.01 * (k + 1), truth.shape) for k in range(8)]
    stack = fit_stack(np.stack(members), truth, mean)
    assert stack.used.sum() == 5
    assert stack.used[0]
    assert stack.contrast[0] == stack.contrast.max()
