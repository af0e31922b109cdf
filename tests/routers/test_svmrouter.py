import numpy as np
import pytest

from waypost.testing.synthetic import doubled, planted
from waypost.testing.tables import outcomes
from waypost_routers import svmrouter
from waypost_routers._linear.svr import (
    draw_landmarks,
    fit_svr,
    gamma_scale,
    held_out_errors,
    rbf,
    whitening,
)
from waypost_routers.svmrouter import SVMRouter

EVEN = np.full((4, 1), 0.25)


# -- the regression -------------------------------------------------------------------------


def test_a_line_through_three_points_by_hand():
    # With epsilon 0 and almost no penalty it is least squares: slope 1.5, intercept 1/6.
    rows, y = np.array([[0.0], [1.0], [2.0]]), np.array([[0.0], [2.0], [3.0]])
    weights, intercept = fit_svr(rows, y, np.full((3, 1), 1 / 3), 1e9, 0.0)
    assert weights[0, 0] == pytest.approx(1.5, abs=1e-6)
    assert intercept[0] == pytest.approx(1 / 6, abs=1e-6)


def test_errors_inside_the_tube_cost_nothing():
    # Both points can be met within 0.1 by a constant, which has no norm.
    rows, y = np.array([[0.0], [1.0]]), np.array([[0.45], [0.55]])
    weights, intercept = fit_svr(rows, y, np.full((2, 1), 0.5), 100.0, 0.1)
    assert weights[0, 0] == pytest.approx(0, abs=1e-9)
    assert intercept[0] == pytest.approx(0.5, abs=1e-9)


def test_the_optimum_has_no_gradient():
    draw = np.random.default_rng(0)
    rows, y = draw.normal(size=(50, 6)), draw.random((50, 2))
    share = np.full((50, 2), 1 / 50)
    weights, intercept = fit_svr(rows, y, share, 30.0, 0.1)
    error = rows @ weights + intercept - y
    loss = np.sign(error) * np.maximum(np.abs(error) - 0.1, 0)
    np.testing.assert_allclose(weights + 2 * 30 * rows.T @ (share * loss), 0, atol=1e-6)
    np.testing.assert_allclose((share * loss).sum(axis=0), 0, atol=1e-6)
    assert (np.abs(error) < 0.1).any()


def test_it_agrees_with_scikit_learn():
    from sklearn.svm import LinearSVR

    draw = np.random.default_rng(1)
    rows, y = draw.normal(size=(60, 4)), draw.random(60)
    ours, _ = fit_svr(rows, y[:, None], np.full((60, 1), 1 / 60), 60 * 0.5, 0.1)
    theirs = LinearSVR(
        C=0.5,
        epsilon=0.1,
        loss="squared_epsilon_insensitive",
        dual=False,
        tol=1e-10,
        max_iter=10000,
        intercept_scaling=1000.0,  # theirs penalizes the intercept, ours does not
    ).fit(rows, y)
    np.testing.assert_allclose(ours[:, 0], theirs.coef_, atol=1e-4)


def test_cells_without_weight_have_no_part():
    draw = np.random.default_rng(2)
    rows, y = draw.normal(size=(30, 3)), draw.random((30, 2))
    share = np.full((30, 2), 1 / 30)
    share[20:, 1], share[:20, 1] = 0, 1 / 20
    other = y.copy()
    other[20:, 1] = 99
    one, two = (fit_svr(rows, targets, share, 10.0, 0.1)[0] for targets in (y, other))
    np.testing.assert_array_equal(one, two)


def test_held_out_errors_are_those_of_the_solutions():
    draw = np.random.default_rng(3)
    rows, y = draw.normal(size=(40, 5)), draw.random((40, 2))
    held, scores = draw.normal(size=(9, 5)), draw.random((9, 2))
    scores[0, 0] = np.nan
    share = np.full((40, 2), 1 / 40)
    found = held_out_errors(rows, y, share, (1.0, 50.0), (held, scores))
    for c, error in zip((1.0, 50.0), found, strict=True):
        weights, intercept = fit_svr(rows, y, share, c, 0.0)
        direct = np.nanmean((held @ weights + intercept - scores) ** 2)
        assert error == pytest.approx(direct, rel=1e-6)


# -- the kernel -----------------------------------------------------------------------------


def test_rbf_by_hand():
    found = rbf([[1.0, 0.0]], [[1.0, 0.0], [0.0, 1.0]], 0.5)
    assert found[0] == pytest.approx([1.0, np.exp(-1.0)])


def test_gamma_scale_is_scikit_learns():
    rows = np.array([[0.0, 0.0], [2.0, 4.0]])  # variances 1 and 4
    assert gamma_scale(rows) == pytest.approx(1 / 5)
    assert gamma_scale(rows[:1]) == 1.0


def test_with_every_row_a_landmark_the_kernel_is_exact():
    rows = planted(40).embeddings
    features = rbf(rows, rows, 1.3) @ whitening(rows, 1.3)
    np.testing.assert_allclose(features @ features.T, rbf(rows, rows, 1.3), atol=1e-5)


def test_landmarks_are_rows_drawn_by_seed():
    rows = np.arange(50.0)[:, None]
    one, two, other = (draw_landmarks(rows, 10, seed) for seed in (3, 3, 4))
    np.testing.assert_array_equal(one, two)
    assert one.tolist() != other.tolist()
    assert len(np.unique(one)) == 10
    np.testing.assert_array_equal(draw_landmarks(rows, 50, 3), rows)


# -- the router -----------------------------------------------------------------------------


def test_given_knobs_are_kept_and_open_ones_are_chosen():
    data = planted(120)
    given = SVMRouter(C=7.0, gamma=0.9).fit(data)
    assert (given.C_, given.gamma_) == (7.0, 0.9)
    chosen = SVMRouter().fit(data)
    assert chosen.C_ in svmrouter.C_GRID
    assert chosen.gamma_ > 0
    assert (chosen.C, chosen.gamma) == (None, None)


def test_a_refit_on_few_questions_forgets_what_was_chosen():
    router = SVMRouter().fit(planted(120)).fit(planted(8))
    fresh = SVMRouter().fit(planted(8))
    assert (router.C_, router.gamma_) == (fresh.C_, fresh.gamma_)
    assert router.C_ == svmrouter.DEFAULT_C


def test_a_bent_rule_needs_the_kernel():
    # LLM a is right in every other of four parts of the arc: no line parts them.
    angle = np.linspace(0, np.pi, 200)
    right = np.sin(4 * angle) > 0
    vectors = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    data = outcomes({"a": list(right * 1.0), "b": list(1.0 - right)}, vectors=vectors)
    hits = {}
    for kernel in ("rbf", "linear"):
        quality = SVMRouter(kernel=kernel).fit(data).predict_quality(data.batch())
        hits[kernel] = np.mean((quality[:, 0] > quality[:, 1]) == right)
    assert hits["rbf"] > 0.95 > hits["linear"]


@pytest.mark.parametrize("kernel", ["rbf", "linear"])
def test_rows_twice_and_llms_in_another_order_change_nothing(kernel):
    data, other = planted(60), planted(20, seed=5)
    router = SVMRouter(kernel=kernel, landmarks=20)
    one = router.fit(data).predict_quality(other.batch())
    two = router.fit(doubled(data).select_llms(("tiny", "cook", "prover")))
    order = [two.model_names.index(name) for name in data.names]
    np.testing.assert_allclose(two.predict_quality(other.batch())[:, order], one, atol=0.02)


def test_support_vectors_are_no_more_than_asked_for():
    router = SVMRouter(landmarks=16).fit(planted(80))
    assert router.landmarks_.shape == (16, 64)
    assert router.coefficients_.shape == (16, 3)
    assert SVMRouter(kernel="linear").fit(planted(80)).coefficients_.shape == (64, 3)
