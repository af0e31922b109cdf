"""in_order: the first LLM of the list, the others after it."""

from __future__ import annotations

from waypost.contracts.records import LLMInfo
from waypost.registry import make_trainable
from waypost.registry.rule_router import no_outcomes

LLMS = [
    LLMInfo(name="dear", input_price=9, output_price=9),
    LLMInfo(name="cheap"),
    LLMInfo(name="a"),
]


def test_the_ranking_is_the_order_of_the_list_at_any_lambda() -> None:
    router = make_trainable("in_order").fit(no_outcomes(LLMS))
    for lam in (0.0, 5.0):
        decision = router.route_single({"query": "x", "lambda": lam})
        assert decision.ranking == ("dear", "cheap", "a")
    decision = router.route_single({"query": "x", "allowed_models": ["a", "cheap"]})
    assert decision.ranking == ("cheap", "a")
