import numpy as np
import pytest

from waypost.contracts.epochs import random_state, read_about, set_random_state
from waypost.contracts.errors import ArtifactFormatError
from waypost.testing.fitted_routers import new_router, scores
from waypost.testing.synthetic import planted
from waypost_routers._neural.epochs import lists_to_arrays, take_over, under, within

QUICK = {"hidden": 8, "layers": 1, "members": 1}


def test_a_generator_goes_on_from_its_state():
    draw = np.random.default_rng(3)
    draw.random(5, np.float32)  # leaves half of a 64-bit word for the next draw
    other = np.random.default_rng(0)
    set_random_state(other, random_state(draw))
    np.testing.assert_array_equal(other.random(7, np.float32), draw.random(7, np.float32))
    np.testing.assert_array_equal(other.permutation(9), draw.permutation(9))


def test_arrays_are_filled_in_place_and_misfits_are_named():
    layers = [np.zeros((2, 2)), np.zeros(2)]
    saved = lists_to_arrays(layers=[np.ones((2, 2)), np.full(2, 3.0)])
    take_over(saved, layers=layers)
    assert [part.sum() for part in layers] == [4.0, 6.0]
    with pytest.raises(ValueError, match=r"layers\.1 has shape \(3,\), expected \(2,\)"):
        take_over({**saved, "layers.1": np.zeros(3)}, layers=layers)
    assert within(under("a", {"b": layers[1]}), "a") == {"b": layers[1]}


def test_what_is_no_state_is_refused():
    for wrong in ({}, {"about": np.array([1.5])}, {"about": np.frombuffer(b"[]", np.uint8)}):
        with pytest.raises(ArtifactFormatError, match="cannot be read"):
            read_about(wrong)


def test_all_questions_are_learned_from_anew_where_fewer_epochs_turn_out_best(monkeypatch):
    data, best = planted(72), {1: 1, 2: 2, 3: 1}
    router = new_router("mlprouter", **QUICK)
    training = router.fit_epochs(data)
    monkeypatch.setattr(type(training._judge), "best", property(lambda self: best[training.done]))
    seen = []
    for _ in range(3):
        next(training)
        training.settle()
        seen.append(router.networks_.layers[0].copy())
        assert router.epochs_ == best[training.done]
    np.testing.assert_array_equal(seen[2], seen[0])
    assert not np.array_equal(seen[1], seen[0])


def test_a_schedule_says_which_values_held_when():
    data = planted(72)
    router = new_router("mlprouter", **QUICK)
    training = router.fit_epochs(data)
    next(training)
    training.change(learning_rate=0.01)
    training.change(learning_rate=0.02)
    next(training)
    rates = [values["learning_rate"] for _, values in training.schedule]
    assert ([start for start, _ in training.schedule], rates) == ([0, 1], [0.001, 0.02])
    assert [training.settings(i)["learning_rate"] for i in (0, 1, 5)] == [0.001, 0.02, 0.02]
    assert read_about(training.state())["done"] == 2


def test_few_questions_are_trained_for_all_epochs_and_resumed():
    data = planted(6)
    router = new_router("mlprouter", epochs=4, **QUICK)
    training = router.fit_epochs(data)
    next(training)
    state = training.state()
    training = router.fit_epochs(data, state)
    assert list(training) == [2, 3, 4]
    training.settle()
    whole = new_router("mlprouter", epochs=4, **QUICK).fit(data)
    np.testing.assert_array_equal(scores(router, data), scores(whole, data))
