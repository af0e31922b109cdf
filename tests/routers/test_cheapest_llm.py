import logging

import pytest

from waypost.contracts.errors import SchemaError
from waypost.testing.tables import outcomes
from waypost_routers.cheapest_llm import CheapestLLM


def fit(scores, **more):
    return CheapestLLM().fit(outcomes({name: [0.5, 0.5] for name in scores}, **more))


def test_price_is_blended_three_to_one():
    # a: (3 * 1 + 5) / 4 = 2.0; b: (3 * 2 + 1) / 4 = 1.75; c: (3 * 0.1 + 8) / 4 = 2.075
    facts = {
        "a": {"input_price": 1.0, "output_price": 5.0},
        "b": {"input_price": 2.0, "output_price": 1.0},
        "c": {"input_price": 0.1, "output_price": 8.0},
    }
    assert fit("abc", facts=facts).route_single("q").ranking == ("b", "a", "c")


def test_without_prices_the_mean_recorded_cost_decides():
    cost = {"a": [0.004, 0.002], "b": [0.001, None], "c": [0.002, 0.002]}
    assert fit("abc", cost_usd=cost).route_single("q").ranking == ("b", "c", "a")


def test_priced_and_recorded_llms_are_compared_in_dollars_of_an_average_call():
    # Queries have 10 characters, so 3 prompt tokens, and answers 100 tokens: the priced one
    # costs (3 * 10 + 100 * 10) / 1e6 = 0.00103 USD, between the other two.
    router = fit(
        ("low", "priced", "high"),
        facts={"priced": {"input_price": 10.0, "output_price": 10.0}},
        output_tokens={"priced": [100, 100]},
        cost_usd={"low": [0.001, 0.001], "high": [0.00104, 0.00104]},
    )
    assert router.route_single("q").ranking == ("low", "priced", "high")


def test_unknown_cost_is_last_with_a_warning(caplog):
    with caplog.at_level(logging.WARNING):
        router = fit("ab", cost_usd={"b": [9.0, 9.0]})
    assert router.route_single("q").ranking == ("b", "a")
    assert "cost unknown, never preferred: a" in caplog.text


def test_no_cost_at_all_is_refused():
    with pytest.raises(SchemaError, match="no LLM has prices"):
        fit("ab")


def test_a_changed_price_takes_effect_without_a_fit():
    facts = {name: {"input_price": p, "output_price": p} for name, p in (("a", 1.0), ("b", 2.0))}
    router = fit("ab", facts=facts)
    router.with_prices({"b": (0.5, 0.5)})
    assert router.route_single("q").ranking == ("b", "a")
