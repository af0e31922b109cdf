"""The first message of an episode."""

from __future__ import annotations

import pytest

from waypost.contracts.errors import SchemaError
from waypost_rl.prompt import BUDGETS, render_prompt

POOL = {"small": "0.5B, quick", "large": "70B, knows more"}


def test_prompt_holds_rules_pool_and_ends_with_the_question() -> None:
    text = render_prompt("Who wrote {it}?", POOL, max_searches=3)
    assert "- small: 0.5B, quick\n- large: 70B, knows more\n" in text
    assert "up to 3 times" in text
    assert text.endswith("Question: Who wrote {it}?\n")
    assert "Budget" not in text


@pytest.mark.parametrize("budget", BUDGETS)
def test_budget_is_told_in_a_word(budget: str) -> None:
    assert f"\nBudget: {budget}\n" in render_prompt("q", POOL, budget=budget)


def test_weights_of_the_budgets_are_legal_and_fall_with_money() -> None:
    assert [BUDGETS[word] for word in ("high", "medium", "low")] == [0.0, 0.7, 0.9]


@pytest.mark.parametrize(
    "options",
    [{"descriptions": {}}, {"max_searches": 0}, {"budget": "huge"},
     {"descriptions": {"x": "a <answer> tag"}}],
)  # fmt: skip
def test_a_wrong_prompt_is_refused(options: dict[str, object]) -> None:
    with pytest.raises(SchemaError, match="Router-R1 prompt"):
        render_prompt("q", **{"descriptions": POOL, **options})  # type: ignore[arg-type]
