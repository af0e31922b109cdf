from waypost.testing.tables import outcomes
from waypost_routers.largest_llm import LargestLLM

FACTS = {
    "a-512m": {"size": "512M"},
    "b-70b": {"size": "70B"},
    "c-moe": {"size": "8x22B"},
    "d-1t": {"size": "1T"},
    "closed": {},
}


def route(**query):
    router = LargestLLM().fit(outcomes({name: [0.5] for name in FACTS}, facts=FACTS))
    return router.route_single({"query": "q", **query})


def test_a_trillion_is_larger_than_a_mixture_and_unknown_is_last():
    assert route().ranking == ("d-1t", "c-moe", "b-70b", "a-512m", "closed")


def test_the_rule_holds_among_the_allowed():
    assert route(allowed_models=["a-512m", "b-70b"]).model == "b-70b"


def test_equal_sizes_go_to_the_cheaper():
    facts = {
        "dear": {"size": "7B", "input_price": 2.0, "output_price": 2.0},
        "fair": {"size": "7B", "input_price": 1.0, "output_price": 1.0},
    }
    router = LargestLLM().fit(outcomes({name: [0.5] for name in facts}, facts=facts))
    assert router.route_single("q").ranking == ("fair", "dear")
