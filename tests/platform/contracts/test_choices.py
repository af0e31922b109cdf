from __future__ import annotations

import json

import pytest

from waypost.contracts.choices import with_choices

OPTIONS = [
    {"text": ["red", "blue"], "label": ["A", "B"]},
    {"text": ["red", "blue"], "labels": ["A", "B"]},
    [{"label": "A", "text": "red"}, {"label": "B", "text": "blue"}],
    ["red", "blue"],
]


@pytest.mark.parametrize("choices", OPTIONS)
def test_options_follow_the_question_one_a_line(choices: object) -> None:
    assert with_choices("Which colour?", json.dumps(choices)) == "Which colour?\nA. red\nB. blue"


@pytest.mark.parametrize(
    "choices",
    [
        None,
        "",
        "not json",
        "3",
        "{}",
        "[]",
        '["only one"]',
        '{"text": "red", "label": "A"}',
        '["assert f(1) == 2", "assert f(2) == 3"]',
        "[1, 2]",
    ],
)
def test_a_question_without_options_is_left_as_it_is(choices: str | None) -> None:
    assert with_choices("Which colour?", choices) == "Which colour?"


def test_options_that_stand_in_the_question_are_not_repeated() -> None:
    asked = "Which colour?\nA. red\nB. blue"
    assert with_choices(asked, json.dumps(OPTIONS[0])) == asked
