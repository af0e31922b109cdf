from functools import partial

import numpy as np
import pytest

from waypost.encoders import make_encoder
from waypost.metrics.latency_and_flips import (
    PERTURBATIONS,
    decision_ms,
    flips,
    sample,
)
from waypost.pipelines.evaluation.inputs import Vectors
from waypost.testing.fitted_routers import fitted
from waypost.testing.synthetic import ENCODER_ID, planted

TEXTS = planted(12, seed=9).queries


def rewritten(kind, text):
    return PERTURBATIONS[kind](text, np.random.default_rng(0))


def test_ways_to_write_a_query():
    assert rewritten("case", "What is 2?") == "what is 2?"
    assert rewritten("case", "what is 2?") == "WHAT IS 2?"
    assert rewritten("blanks", "a b") == "  a  b \n"
    assert rewritten("punctuation", "Why? ") == "Why"
    assert rewritten("punctuation", "Why") == "Why."
    changed = rewritten("typos", "simmer the garlic")
    assert changed != "simmer the garlic"
    assert sorted(changed) == sorted("simmer the garlic")
    assert rewritten("typos", "a b 12") == "a b 12"


@pytest.fixture
def vectors(tmp_path):
    return Vectors(make_encoder(ENCODER_ID), tmp_path)


def choose(name, vectors):
    return partial(vectors.choose, fitted(name))


def test_what_ignores_the_text_never_flips(vectors):
    assert flips(choose("best_single", vectors), TEXTS, 0) == dict.fromkeys(PERTURBATIONS, 0.0)


def test_what_draws_by_the_text_flips(vectors):
    found = flips(choose("randomrouter", vectors), TEXTS, 0)
    assert min(found.values()) > 0.2
    assert found == flips(choose("randomrouter", vectors), TEXTS, 0)


def test_a_sample_is_seeded_and_in_order():
    texts = [f"{i:03d}" for i in range(100)]
    found = sample(texts, 10, seed=1)
    assert found == sorted(found)
    assert len(set(found)) == 10
    assert found == sample(texts, 10, seed=1) != sample(texts, 10, seed=2)
    assert sample(texts, 200, seed=1) == texts


def test_decisions_are_timed_one_by_one(monkeypatch):
    router, asked = fitted("knnrouter"), []
    real = type(router).route_single
    monkeypatch.setattr(
        type(router), "route_single", lambda self, text: asked.append(text) or real(self, text)
    )
    p50, p99 = decision_ms(router.route_single, TEXTS)
    assert 0 < p50 <= p99
    assert len(asked) == len(TEXTS) + 3
    assert not set(asked) & set(TEXTS)  # nothing that a cache may know
    first = set(asked[3:])
    decision_ms(router.route_single, TEXTS)
    assert not first & set(asked[len(TEXTS) + 6 :])  # nor from the router before
