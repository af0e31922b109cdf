import numpy as np
import pytest

from waypost.testing.synthetic import doubled, planted
from waypost.testing.tables import outcomes
from waypost_routers._neural.networks import Network, Training, _gradients, forward
from waypost_routers._neural.stopping import Watch, best_epoch
from waypost_routers._shared import distinct
from waypost_routers.mlprouter import MLPRouter

HOW = Training(learning_rate=1e-2, weight_decay=0.0, dropout=0.0, batch_size=8, epochs=60, seed=0)


# -- the network ----------------------------------------------------------------------------


def test_forward_by_hand():
    layers = [np.array([[1.0, -1.0]]), np.array([0.0, 1.0]), np.array([[2.0], [3.0]]), np.ones(1)]
    # hidden: relu(2), relu(-2 + 1) = 2, 0
    assert forward(np.array([[2.0]]), layers).tolist() == [[5.0]]


def test_gradients_are_the_slopes_of_the_loss():
    draw = np.random.default_rng(0)
    rows, scores = draw.normal(size=(6, 3)), draw.random((6, 2))
    weights = np.array([[1.0, 0.0], [1.0, 2.0]] * 3)
    layers = [draw.normal(size=shape) for shape in ((3, 4), (4,), (4, 5), (5,), (5, 2), (2,))]

    def loss():
        p = 1 / (1 + np.exp(-forward(rows, layers)))
        return -(weights * (scores * np.log(p) + (1 - scores) * np.log(1 - p))).sum() / len(rows)

    found = _gradients(rows, scores, weights, layers, HOW, draw)
    for layer, gradient in zip(layers, found, strict=True):
        at = (1,) * layer.ndim
        layer[at] += 1e-6
        above = loss()
        layer[at] -= 2e-6
        below = loss()
        layer[at] += 1e-6
        assert gradient[at] == pytest.approx((above - below) / 2e-6, rel=1e-4, abs=1e-7)


def test_it_learns_what_no_line_can():
    rows = np.array([[0, 0], [0, 1], [1, 0], [1, 1]] * 8, np.float32)
    exclusive = (rows.sum(axis=1, keepdims=True) == 1).astype(np.float32)
    network = Network(rows, exclusive, np.ones_like(exclusive), [16], HOW)
    for _ in range(HOW.epochs):
        network.epoch()
    assert ((forward(rows, network.layers) > 0) == (exclusive > 0)).all()


def test_before_the_first_step_every_output_is_its_mean():
    rows = np.random.default_rng(0).normal(size=(16, 3)).astype(np.float32)
    scores = np.repeat([[1.0, 0.25]], 16, axis=0).astype(np.float32)
    network = Network(rows, scores, np.ones_like(scores), [4], HOW)
    p = 1 / (1 + np.exp(-forward(rows, network.layers)))
    np.testing.assert_allclose(p, np.repeat([[0.99, 0.25]], 16, axis=0), atol=1e-5)


# -- which epoch ----------------------------------------------------------------------------


def test_of_epochs_that_earn_alike_the_lowest_loss_is_kept():
    steady, worse = np.ones(100), np.zeros(100)
    # .02 better on 51 questions, .02 worse on 49: within a standard error of no difference
    lucky = steady + np.where(np.arange(100) < 51, 0.02, -0.02)
    assert best_epoch([worse, steady, lucky], [0.1, 0.3, 0.5]) == 1
    assert best_epoch([worse, steady - 0.1, lucky], [0.1, 0.3, 0.5]) == 2


def test_patience_ends_a_fit_that_gets_no_better():
    watch = Watch(np.array([[1.0, 0.0], [0.0, np.nan]]), 2, lambda p: np.full((2, 2), p))
    seen = [watch.see(p) for p in (0.4, 0.34, 0.5, 0.6)]
    # the squared error of a constant is least at the mean, 1/3
    assert seen == [True, True, True, False]
    assert watch.best == 2
    assert watch.outside.tolist() == [[0.34, 0.34], [0.34, 0.34]]
    again = Watch(watch.scores, 2, watch.see)
    again.restore(watch.state())
    assert (again.losses, again.best) == (watch.losses, watch.best)


# -- the form of the data -------------------------------------------------------------------


def test_equal_embeddings_are_one_row_with_the_mean_score():
    data = outcomes({"b": [1.0, 0.0, 0.5], "a": [None, 1.0, 0.0]}, vectors=[[0, 1], [1, 0], [0, 1]])
    found = distinct(data)
    assert found.rows.tolist() == [[0, 1], [1, 0]]
    assert found.columns.tolist() == [1, 0]
    assert found.scores.tolist() == [[0.0, 0.75], [1.0, 0.0]]
    np.testing.assert_allclose(found.weights, [[0.5, 2 / 3], [0.5, 1 / 3]])
    assert found.row_of.tolist() == [0, 1, 0]
    assert found.in_data_order(np.array([7.0, 8.0])).tolist() == [8.0, 7.0]


# -- the router -----------------------------------------------------------------------------


def test_epochs_are_chosen_and_members_averaged():
    data = planted(80)
    router = MLPRouter(hidden=8, layers=1, members=2).fit(data)
    assert 1 <= router.epochs_ <= 40
    logits = router.networks_.logits(data.embeddings)
    assert logits.shape == (2, 80, 3)
    assert not np.allclose(logits[0], logits[1])
    std = router.predict_std(data.batch())
    assert std.shape == (80, 3)
    assert (std > 0).all()
    assert (MLPRouter(hidden=8, members=1).fit(data).predict_std(data.batch()) == 0).all()


def test_seeds_differ_and_repeat():
    data = planted(60)
    one, two, other = (
        MLPRouter(hidden=8, layers=1, seed=seed).fit(data).predict_quality(data.batch())
        for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(one, two)
    assert not np.array_equal(one, other)


def test_rows_twice_and_llms_in_another_order_change_no_weight():
    data = planted(60)
    one = MLPRouter(hidden=8, members=1).fit(data)
    two = MLPRouter(hidden=8, members=1).fit(doubled(data).select_llms(("tiny", "cook", "prover")))
    np.testing.assert_array_equal(one.networks_.layers[0], two.networks_.layers[0])
    np.testing.assert_array_equal(one.networks_.layers[-1][:, [2, 0, 1]], two.networks_.layers[-1])


def test_few_questions_train_for_all_epochs():
    assert MLPRouter(hidden=4, epochs=7).fit(planted(6)).epochs_ == 7
