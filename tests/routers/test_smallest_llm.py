import logging

import pytest

from waypost.contracts.errors import SchemaError
from waypost.contracts.records import Query
from waypost.contracts.router import QueryBatch
from waypost.testing.tables import outcomes
from waypost_routers.smallest_llm import SmallestLLM

FACTS = {
    "a-512m": {"size": "512M", "input_price": 1.0, "output_price": 1.0},
    "b-7b": {"size": "7B", "input_price": 0.2, "output_price": 0.2},
    "c-moe": {"size": "8x22B", "input_price": 0.1, "output_price": 0.1},
    "d-1t": {"size": "1T", "input_price": 0.1, "output_price": 0.1},
}
SCORES = {name: [0.5] for name in FACTS}


def ranking(facts, **query):
    router = SmallestLLM().fit(outcomes({name: [0.5] for name in facts}, facts=facts))
    return router.route_single({"query": "q", **query}).ranking


def test_millions_are_smaller_than_billions_and_a_mixture_counts_all_experts():
    assert ranking(FACTS) == ("a-512m", "b-7b", "c-moe", "d-1t")  # 0.512, 7, 176, 1000


def test_four_sizes_score_one_to_a_quarter():
    router = SmallestLLM().fit(outcomes(SCORES, facts=FACTS))
    scores = router.predict_quality(QueryBatch((Query("x"),)))
    assert scores.tolist() == [[1.0, 0.75, 0.5, 0.25]]


def test_the_rule_holds_among_the_allowed():
    assert ranking(FACTS, allowed_models=["d-1t", "c-moe"]) == ("c-moe", "d-1t")


def test_equal_sizes_go_to_the_cheaper_then_to_the_lower_name():
    same = {
        "z": {"size": "7B", "input_price": 0.1, "output_price": 0.1},
        "b": {"size": "7.0B", "input_price": 0.2, "output_price": 0.2},
        "a": {"size": "7000M", "input_price": 0.2, "output_price": 0.2},
    }
    assert ranking(same) == ("z", "a", "b")


def test_unknown_size_is_last_with_a_warning(caplog):
    facts = {**FACTS, "closed": {"input_price": 0.0, "output_price": 0.0}}
    with caplog.at_level(logging.WARNING):
        assert ranking(facts)[-1] == "closed"
    assert "size unknown, never preferred: closed" in caplog.text


def test_unknown_size_is_chosen_where_nothing_else_is_allowed():
    assert ranking({**FACTS, "closed": {}}, allowed_models=["closed"]) == ("closed",)


def test_no_size_at_all_is_refused_with_a_way_out():
    with pytest.raises(SchemaError, match="cheapest_llm"):
        SmallestLLM().fit(outcomes({"a": [1.0], "b": [0.0]}))


def test_loading_warns_again(caplog):
    facts = {"a": {"size": "1B"}, "b": {}}
    router = SmallestLLM().fit(outcomes({"a": [1.0], "b": [1.0]}, facts=facts))
    caplog.clear()
    SmallestLLM().set_state(router.llms_, *router.get_state())
    assert "size unknown, never preferred: b" in caplog.text


def test_confidence_is_undefined():
    router = SmallestLLM().fit(outcomes(SCORES, facts=FACTS))
    assert router.route_single("q").confidence is None
