from collections import Counter

import pytest

from waypost.contracts.errors import ConfigError
from waypost.registry import make_router
from waypost.testing.tables import outcomes
from waypost_routers.randomrouter import RandomRouter

DATA = outcomes({"a": [0.1], "b": [0.5], "c": [0.9]})
TEXTS = [f"text {i}" for i in range(3000)]


def draws(seed, **query):
    router = RandomRouter(seed).fit(DATA)
    return [d.model for d in router.route_batch([{"query": text, **query} for text in TEXTS])]


def test_draws_are_uniform_with_the_propensity_they_state():
    counts = Counter(draws(0))
    # 1000 each; standard deviation sqrt(3000 * 1/3 * 2/3) = 25.8
    assert all(abs(counts[name] - 1000) < 4 * 25.8 for name in "abc")
    assert RandomRouter().fit(DATA).route_single("x").propensity == pytest.approx(1 / 3)


def test_draws_stay_within_the_allowed():
    counts = Counter(draws(0, allowed_models=["a", "c"]))
    assert set(counts) == {"a", "c"}
    assert abs(counts["a"] - 1500) < 4 * 27.4


def test_a_seed_repeats_and_another_differs():
    assert draws(1) == draws(1)
    assert draws(1) != draws(2)


def test_behind_the_drawn_one_the_training_means_order_the_ranking():
    decision = RandomRouter().fit(DATA).route_single("x")
    rest = [name for name in "cba" if name != decision.model]
    assert decision.ranking == (decision.model, *rest)
    assert decision.reason == "drawn at random (exploration)"


def test_seed_is_checked():
    with pytest.raises(ConfigError, match="seed"):
        make_router("randomrouter", {"seed": -1})
