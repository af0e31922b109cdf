"""Verdicts: the call and the reading."""

from __future__ import annotations

import pytest

from waypost.contracts.errors import SchemaError
from waypost.contracts.verdicts import parse_verdicts, read_verdict, verdict_call


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ("Yes", True),
        ("yes.", True),
        (" **Yes**, it is", True),
        ("\n\nYES", True),
        ("No", False),
        ("no, it", False),
        ("'No'", False),
        ("", None),
        ("Yesterday", None),
        ("Not sure", None),
        ("The answer is yes", None),
        ("N", None),
        ("не знаю", None),
    ],
)
def test_a_verdict_is_the_first_word(text, verdict):
    assert read_verdict(text) is verdict


def test_a_verdict_call_holds_question_and_answer_and_draws_for_itself():
    first, again, second = (verdict_call("a", "2 + 2?\n", " 4 ", n) for n in (0, 0, 1))
    assert "2 + 2?\n\nProposed answer:\n4\n" in first.prompt
    assert first == again
    assert first.prompt == second.prompt
    assert first.seed != second.seed
    assert first.temperature > 0
    assert verdict_call("a", "2 + 2?", "5", 0).seed != first.seed


@pytest.mark.parametrize("text", ["", "3", "{}", "[2]", '["yes"]', "[0.5]", str([1] * 17)])
def test_what_is_no_list_of_verdicts_is_named(text):
    with pytest.raises(SchemaError, match="row 3: verdicts: expected a JSON list"):
        parse_verdicts(text, "row 3")


def test_an_unreadable_verdict_does_not_support_the_answer():
    assert parse_verdicts("[1, null, 0, 1]", "") == [1.0, 0.0, 0.0, 1.0]
