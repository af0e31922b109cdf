"""Plans and prompts of multi-round routers."""

from __future__ import annotations

import pytest

from support.rounds import (
    ALGEBRA,
    BAD,
    COOKING,
    PRICE,
    TWO,
    Script,
    first,
    plan_of,
    run,
    step,
    trained,
)
from waypost_routers._rounds.plans import PlanError, read_plan
from waypost_routers._rounds.prompts import EXAMPLE, WHOLE_EXAMPLE, answer_form


@pytest.mark.parametrize(
    "around",
    ["{}", "```json\n{}\n```", "Sure! Here it is: {} Done.", "<think>{{}} or {{1}}</think>{}"],
)
def test_the_plan_is_found_in_the_reply(around):
    plan = read_plan(around.format(TWO), 4)
    assert [step.text for step in plan.steps] == [COOKING, ALGEBRA]


def test_a_text_may_hold_colons_quotes_braces_and_lines():
    text = 'Who said: "{x: 1}"?\n```{```'
    plan = read_plan(f"Plan: {plan_of((text, []), (ALGEBRA, [1]))}", 4)
    assert plan.steps[0].text == text
    assert plan.steps[1].depends_on == ("1",)
    raw = TWO.replace("garlic", "garlic\n")  # a line broken within a JSON text
    assert "\n" in read_plan(raw, 4).steps[0].text


@pytest.mark.parametrize("case", BAD)
def test_what_is_wrong_with_a_plan_is_said(case):
    text, fault = BAD[case]
    with pytest.raises(PlanError) as raised:
        read_plan(text, 4)
    assert fault in str(raised.value)


def test_every_fault_is_listed_and_texts_of_the_plan_are_not():
    text = plan_of(step(1, "", model="secret"), step(1, "a secret", model="tiny", depends_on="x"))
    with pytest.raises(PlanError) as raised:
        read_plan(text, 4, models=("cook", "tiny"))
    assert [fault.partition(": ")[0] for fault in raised.value.faults] == ["step 1"] * 2 + [
        "step 2"
    ]
    assert "expected one of cook, tiny" in raised.value.summary
    assert "secret" not in raised.value.summary


OPTIONS = "Which is a metal?\nA. iron\nB. sand\nReply with just the letter of the right option."


@pytest.mark.parametrize(
    ("question", "task", "form"),
    [
        (OPTIONS, None, "Answer: X"),
        ("Pick: (A) one\n(B) two", None, "short"),  # not one option a line
        ("(A) one\n(B) two", None, "Answer: X"),
        ("Write a Python function. Return the sum.\nReturn only the code.", None, "code block"),
        (
            "Complete this Python function. Return the whole function, code only.",
            None,
            "code block",
        ),
        ("Add two numbers.", "mbpp", "code block"),
        ("Write the equation of a linear function through 2 points.", None, "short"),
        ("Class struggle: who coined it?", None, "short"),
        ("A. Einstein was born where?", None, "short"),
    ],
)
def test_the_form_of_the_answer_is_that_of_the_question(question, task, form):
    assert form in answer_form(question, task)


def test_the_merger_is_told_the_form_that_the_query_asks_for():
    script = Script(TWO)
    run(trained("knnmultiroundrouter"), script, OPTIONS)
    assert script.calls[-1].prompt.endswith("Answer: X (X is the letter of the right option).")


def test_examples_are_valid_plans():
    routers = {"knnmultiroundrouter": None, "llmmultiroundrouter": tuple(PRICE)}
    for name, models in routers.items():
        router = trained(name)
        _, _, rest = first(router).prompt.partition(f"Example: {EXAMPLE}")
        split, _, whole = rest.partition(f"Example: {WHOLE_EXAMPLE}")
        assert len(read_plan(split, 4, models).steps) == 3
        assert not read_plan(whole.partition("<question>")[0], 4).splits
