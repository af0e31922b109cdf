"""The Python interface: train, fit, evaluate, what objects say of themselves."""

from __future__ import annotations

import pydoc

import numpy as np
import pytest

import waypost
from waypost.contracts.errors import ConfigError, SchemaError
from waypost.contracts.routing_data import read_routing_data, write_routing_data
from waypost.encoders import make_encoder
from waypost.testing.synthetic import ENCODER_ID, planted


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    write_routing_data(folder, planted(60))
    write_routing_data(folder, planted(40, seed=3), split="test")
    return folder


def test_one_call_trains_a_router_that_routes(data):
    router = waypost.train("knnrouter", data, encoder=ENCODER_ID, k=10)
    texts = planted(20, seed=5).queries
    decisions = router.route_batch(texts)
    assert [one.model for one in decisions] == [router.route_single(t).model for t in texts]
    assert len({one.model for one in decisions}) > 1
    assert router.route_single({"query": texts[0], "lambda": 1e5}).model == "tiny"


def test_with_out_it_writes_an_artifact(data, tmp_path):
    made = waypost.train("knnrouter", str(data), encoder=ENCODER_ID, out=tmp_path / "a", k=10)
    loaded = waypost.load_router(tmp_path / "a")
    texts = planted(20, seed=5).queries
    assert loaded.route_batch(texts) == made.route_batch(texts)
    with pytest.raises(ConfigError, match="needs data as a folder"):
        waypost.train("knnrouter", planted(20), out=tmp_path / "b")


def test_fit_embeds_by_itself_and_reads_a_folder(data):
    router = waypost.make_router("knnrouter", {"k": 10}, encoder=ENCODER_ID)
    assert router.fit(data) is router
    again = waypost.make_router("knnrouter", {"k": 10}, encoder=ENCODER_ID)
    again.fit(read_routing_data(data))
    texts = planted(20, seed=5).queries
    assert router.route_batch(texts) == again.route_batch(texts)


def test_an_encoder_that_is_not_the_datas_is_not_used(data):
    router = waypost.make_router("knnrouter", encoder="hashing")
    router.fit(planted(40))  # embedded by another
    with pytest.raises(Exception, match=r"set \.encoder"):
        router.route_single("x")
    router.encoder = make_encoder(ENCODER_ID)
    assert router.route_single("x").model


def test_without_an_encoder_the_error_names_the_way(data):
    router = waypost.make_router("knnrouter")
    router.encoder = None
    with pytest.raises(SchemaError, match=r'waypost.train\("knnrouter", data\)'):
        router.fit(read_routing_data(data))


def test_fitted_routers_names_and_artifacts_are_compared(data):
    router = waypost.train("knnrouter", data, encoder=ENCODER_ID, k=10)
    found = waypost.evaluate([router, "best_single"], data, encoder=ENCODER_ID)
    assert found.failed == {}
    assert set(found.routers) == {"knnrouter", "best_single"}
    assert found.routers["knnrouter"]["quality"] > found.routers["best_single"]["quality"]
    assert found.references["oracle"]["quality"] >= found.routers["knnrouter"]["quality"]
    assert "| knnrouter |" in repr(found)
    alone = waypost.evaluate(router, data, encoder=ENCODER_ID, lambdas=[0, 1])
    assert list(alone.routers) == ["knnrouter"]


def test_wrong_options_are_told(data):
    with pytest.raises(ConfigError, match="unknown parameter"):
        waypost.train("knnrouter", data, kk=3)
    with pytest.raises(ConfigError, match="split"):
        waypost.evaluate("best_single", data, split="tests")


def test_objects_say_what_they_are(data):
    router = waypost.make_router("knnrouter", {"k": 10}, encoder=ENCODER_ID)
    assert repr(router) == "<knnrouter(k=10), not fitted>"
    assert repr(router.fit(data)) == "<knnrouter(k=10), fitted for cook, prover, tiny>"
    assert repr(waypost.make_router("randomrouter")).startswith("<randomrouter(")
    partly = planted(20)
    partly.quality[0, 0] = np.nan
    text = repr(partly)
    assert text.startswith("<RoutingData: 20 queries, 59 of 60 scores; LLMs cook, prover, tiny")
    assert len(text) < 200


def test_help_has_examples():
    text = pydoc.render_doc(waypost, renderer=pydoc.plaintext)
    for part in ("waypost.train(", "waypost.evaluate(", "waypost.Gateway(", ".fit("):
        assert part in text


@pytest.mark.parametrize("key", ["llambda", "lambda_", "max_cost", "allowed_model"])
def test_a_misspelt_option_is_refused_and_a_column_of_data_is_not(data, key):
    router = waypost.train("best_single", data)
    with pytest.raises(SchemaError, match=f"unknown key '{key}' .did you mean"):
        router.route_single({"query": "x", key: 5})
    row = {"query": "x", "ground_truth": "y", "cost_usd": 1.0, "output_tokens": 3, "metric": "f1"}
    assert router.route_single(row).model
