"""LLMRouter's routers from their YAML."""

from __future__ import annotations

import json

import pytest

import waypost
from waypost.compat import llmrouter
from waypost.contracts.errors import ConfigError, SchemaError
from waypost.registry import find_router
from waypost.testing.synthetic import planted

ENCODER = "hashing"


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    """The files of LLMRouter: routing JSONL, LLM JSON, and a config two folders below."""
    root = tmp_path_factory.mktemp("llmrouter")
    for split, data in (("train", planted(40)), ("test", planted(10, seed=4))):
        rows = [
            {"task_name": "t", "query": query, "ground_truth": "x", "metric": "em", "response": "r",
             "model_name": name, "performance": float(data.quality[i, j]), "embedding_id": i,
             "token_num": 3}
            for i, query in enumerate(data.queries)
            for j, name in enumerate(data.names)
        ]  # fmt: skip
        text = "\n".join(json.dumps(row) for row in rows)
        (root / f"routing_{split}.jsonl").write_text(text)
    llms = {name: {"size": "7B", "feature": name, "model": name} for name in planted().names}
    (root / "llm.json").write_text(json.dumps(llms))
    path = root / "configs" / "model_config_train" / "knnrouter.yaml"
    path.parent.mkdir(parents=True)
    path.write_text(
        "data_path: {routing_data_train: routing_train.jsonl, routing_data_test: "
        "routing_test.jsonl, llm_data: llm.json}\nhparam: {n_neighbors: 7, weights: uniform, "
        "leaf_size: 30}\nmetric: {weights: {performance: 1, cost: 0}}\n"
    )
    return path


def test_the_first_example_of_llmrouter(config):
    router = llmrouter.KNNRouter(yaml_path=str(config), encoder=ENCODER)
    found = router.route_single({"query": planted().queries[0], "id": 3})
    assert found == {"query": planted().queries[0], "id": 3, "model_name": "cook"}
    assert router.router.k == 7
    assert "hparam.leaf_size" in router.unmapped
    assert repr(router).startswith("KNNRouter(<knnrouter(")


def test_a_batch_is_that_of_the_config_or_a_given_one(config):
    router = llmrouter.MetaRouter(config, encoder=ENCODER)
    test = router.route_batch()
    assert [row["query"] for row in test] == list(planted(10, seed=4).queries)
    assert {row["model_name"] for row in test} <= set(planted().names)
    given = [{"query": text} for text in planted().queries[:4]]
    assert [row["model_name"] for row in router.route_batch(given, task_name="t")] == [
        one.model for one in router.router.route_batch(planted().queries[:4])
    ]


def test_it_becomes_an_artifact(config, tmp_path):
    router = llmrouter.MetaRouter(config, encoder=ENCODER)
    router.save_router(tmp_path / "a")
    loaded = waypost.load_router(tmp_path / "a")
    assert loaded.route_batch(planted().queries[:4])[0].model == "cook"


def test_another_router_of_the_same_config(config):
    router = llmrouter.MetaRouter(config, router="best_single", encoder=ENCODER)
    assert router.router.name == "best_single"


def test_every_class_is_a_router_of_ours():
    for name in llmrouter.NAMES:
        assert find_router(getattr(llmrouter, name).name).error is None
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        _ = llmrouter.Nothing


def test_what_is_wrong_is_told(config, tmp_path):
    with pytest.raises(SchemaError, match="under 'query'"):
        llmrouter.MetaRouter(config, encoder=ENCODER).route_single({"text": "x"})
    other = tmp_path / "mine.yaml"
    other.write_text("data_path: {routing_data_train: none.jsonl, llm_data: none.json}\n")
    with pytest.raises(ConfigError, match="tells no router that is known"):
        llmrouter.MetaRouter(other)
    with pytest.raises(ConfigError, match="no such file"):
        llmrouter.KNNRouter(yaml_path=other)
