import numpy as np
import pytest

from waypost_routers._calibration import Calibration, calibrated, fit_slope, fit_sureness
from waypost_routers._linear.logistic import fit_logistic, logit, sigmoid


def held_out(slope, n=4000, noise=0.05, seed=0):
    """Return raw scores of two LLMs, and quality that is linear in them."""
    draw = np.random.default_rng(seed)
    raw = draw.uniform(-0.3, 0.3, (n, 2))
    return raw, 0.5 + slope * raw + draw.normal(0, noise, raw.shape)


@pytest.mark.parametrize("slope", [0.0, 0.5, 1.0])
def test_identity_finds_how_far_scores_can_be_trusted(slope):
    raw, quality = held_out(slope)
    assert fit_slope(raw, quality, "identity") == pytest.approx([slope] * 2, abs=0.05)


def test_without_held_out_questions_scores_are_taken_as_they_are():
    nothing = np.empty((0, 3))
    assert fit_slope(nothing, nothing, "identity").tolist() == [1, 1, 1]
    assert fit_slope(nothing, nothing, "logit").tolist() == [1, 1, 1]


def test_few_held_out_questions_move_the_slope_little():
    raw, quality = held_out(0.0, n=10)
    assert fit_slope(raw, quality, "identity")[0] > 0.8


def test_logit_finds_the_common_slope():
    draw = np.random.default_rng(0)
    raw = draw.normal(size=(6000, 2))
    quality = (draw.random(raw.shape) < sigmoid(2.0 * raw)).astype(float)
    assert fit_slope(raw, quality, "logit") == pytest.approx([2.0, 2.0], rel=0.1)


def test_logit_finds_the_slope_of_each_llm_where_asked():
    draw = np.random.default_rng(0)
    raw = draw.normal(size=(6000, 2))
    quality = (draw.random(raw.shape) < sigmoid(raw * np.array([2.0, 0.7]))).astype(float)
    assert fit_slope(raw, quality, "logit", each=True) == pytest.approx([2.0, 0.7], rel=0.15)


@pytest.mark.parametrize("link", ["identity", "logit"])
def test_the_mean_of_calibrated_scores_is_the_training_mean(link):
    draw = np.random.default_rng(1)
    raw = draw.normal(5.0, 0.1, (500, 2))
    mean = np.array([0.3, 0.6])
    quality = np.repeat(mean[None], 500, axis=0)
    found = calibrated(np.array([1.0, 1.0]), raw, quality, mean, link)
    assert found.apply(raw).mean(axis=0) == pytest.approx(mean, abs=1e-3)


def test_unmeasured_rows_do_not_set_the_level():
    raw = np.array([[0.0], [1.0], [9.0]])
    quality = np.array([[0.2], [0.4], [np.nan]])
    found = calibrated(np.ones(1), raw, quality, np.array([0.3]), "identity")
    assert found.apply(raw)[:2, 0] == pytest.approx([0.0, 0.8])  # .3 -+ .5, held to [0, 1]


def test_calibrated_quality_is_a_probability():
    wide = Calibration(0, np.ones(2), np.zeros(2), np.full(2, 0.5))
    assert wide.apply(np.array([[-9.0, 9.0]])).tolist() == [[0.0, 1.0]]


def test_sureness_grows_with_the_lead_and_is_calibrated():
    draw = np.random.default_rng(2)
    predicted = draw.uniform(0.3, 0.7, (4000, 2))
    lead = predicted[:, 0] - predicted[:, 1]
    first = draw.random(4000) < sigmoid(10 * lead)
    quality = np.column_stack([first, ~first]).astype(float)
    found = fit_sureness(predicted, quality)
    p = found.apply(predicted)
    for low, high in ((-0.4, -0.1), (-0.1, 0.1), (0.1, 0.4)):
        inside = (lead >= low) & (lead < high)
        assert p[inside, 0].mean() == pytest.approx(first[inside].mean(), abs=0.04)


def test_sureness_of_one_llm():
    found = fit_sureness(np.full((5, 1), 0.5), np.ones((5, 1)))
    assert 0.5 < found.apply(np.full((1, 1), 0.5))[0, 0] <= 1


def test_logistic_regression_by_hand():
    # three of four are 1 where x = 1, one of four where x = 0: logits ln 3 and -ln 3
    x = np.array([[1.0, 0], [1, 1]]).repeat(4, axis=0)
    y = np.array([1.0, 0, 0, 0, 1, 1, 1, 0])
    beta = fit_logistic(x, y, np.zeros(2), np.zeros(2))
    assert beta == pytest.approx([-np.log(3), 2 * np.log(3)], abs=1e-4)


def test_logit_undoes_sigmoid():
    x = np.linspace(-5, 5, 11)
    assert logit(sigmoid(x)) == pytest.approx(x)
