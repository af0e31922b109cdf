"""Answers that users of other tools reported as scored wrongly, each one of its kind."""

# ruff: noqa: RUF001

from __future__ import annotations

import json
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from waypost.scorers import score
from waypost.scorers.numeric import same_number
from waypost.scorers.own_answer import answer_field, own_answer

GONE_ON = (
    "Four left.\n#### 4\n\nQuestion: Ann has 9 pens and gives 2 away. How many remain?\n"
    "Answer: 9 - 2 = 7\n#### 7"
)


@pytest.mark.parametrize(
    ("metric", "response", "gold", "right"),
    [
        ("number", GONE_ON, "4", 1.0),
        ("number", GONE_ON, "7", 0.0),
        ("number", "It is #### 18 ... wait, I forgot one ... #### 27", "27", 1.0),
        ("letter", "The answer is B.\n\nQ: Which is a metal?\nA: C", "B", 1.0),
        ("letter", "B\n\nQuestion 2: Which is a metal?\nAnswer: C", "B", 1.0),
        (
            "exact_match",
            "Paris\nQuestion: What is the capital of Italy?\nAnswer: Rome",
            "Paris",
            1.0,
        ),
        ("exact_match", "Paris<|im_start|>user\nAnd of Italy?", "Paris", 1.0),
        ("number", "The answer is 12.\nUser: thanks! And 3 * 5?\nAssistant: 15", "12", 1.0),
        # a question repeated before anything is answered
        ("number", "Question: Ann has 9 pens and gives 2 away.\nAnswer: 9 - 2 = 7", "7", 1.0),
        ("number", "Let me look at the question again.\nQuestion: 9 - 2?\nAnswer: 7", "7", 1.0),
        ("math", "\\boxed{3}\n\n### Problem: what is $2+2$?\nAnswer: \\boxed{4}", "3", 1.0),
    ],
)
def test_an_answer_ends_where_another_question_begins(metric, response, gold, right):
    assert score(metric, response, gold) == right


@pytest.mark.parametrize(
    ("metric", "response", "gold", "right"),
    [
        ("number", '{"answer": 18, "unit": "dollars for 9 eggs"}', "18", 1.0),
        ("number", '```json\n{"steps": ["16 - 7 = 9"], "final_answer": "$18"}\n```', "18", 1.0),
        (
            "number",
            'I think so.\n{"reason": "9 * 2", "Answer": 18.0} That took 3 steps.',
            "18",
            1.0,
        ),
        ("letter", '{"reasoning": "not A, since B", "choice": "C"}', "C", 1.0),
        ("exact_match", '{"answer": "Paris"}', "Paris", 1.0),
        ("math", '{"answer": "x^2 + 2x + 1"}', "(x+1)^2", 1.0),
        ("number", '{"answer": {"amount": 5}, "result": 6}', "6", 1.0),
        ("number", "the set {1, 2} has 2 elements", "2", 1.0),
        ("exact_match", '{"verdict": "Paris"}', "Paris", 0.0),
    ],
)
def test_an_answer_may_stand_in_a_field(metric, response, gold, right):
    assert score(metric, response, gold) == right


@pytest.mark.parametrize(
    ("response", "gold", "right"),
    [
        ("\\boxed{\\frac{1}{2006!}}", "\\frac{1}{2004!}", 0.0),
        ("\\boxed{\\frac{1}{2006!}}", "\\frac{1}{2006!}", 1.0),
        ("\\boxed{\\frac{1}{2^{98}}}", "\\frac{1}{2^{99}}", 0.0),
        ("\\boxed{2^{-99}}", "\\frac{1}{2^{99}}", 1.0),
        ("\\boxed{0.0833333333333333}", "\\frac{1}{12}", 1.0),
        ("\\boxed{0.083333}", "\\frac{1}{12}", 1.0),
        ("\\boxed{\\sqrt{2}/2}", "0.707107", 1.0),
        ("\\boxed{-\\frac{1}{3^{40}}}", "\\frac{1}{3^{40}}", 0.0),
    ],
)
def test_small_numbers_are_compared_by_their_digits(response, gold, right):
    assert score("math", response, gold) == right


@pytest.mark.parametrize(
    ("response", "gold", "right"),
    [
        ("The answer is 0.3333333333.", "1/3", 1.0),
        ("The answer is 0.6666666.", "2/3", 1.0),  # cut off, not rounded
        ("The answer is 0.30000000000000004.", "0.3", 1.0),
        ("The answer is 0.3333334.", "1/3", 0.0),
        ("The answer is 0.67.", "2/3", 1.0),
        ("The answer is 0.7.", "2/3", 0.0),
        ("The answer is 0.00.", "1/1000", 0.0),
        ("The answer is 0.", "1/1000", 0.0),
        ("The answer is 12345678.12.", "12345678.1234", 1.0),
    ],
)
def test_long_and_rounded_decimals(response, gold, right):
    assert score("number", response, gold) == right


@given(
    st.fractions(min_value=Fraction(1, 10**6), max_value=10**6, max_denominator=10**6),
    st.integers(min_value=7, max_value=16),
)
def test_a_number_written_to_many_places_is_itself_and_not_its_neighbour(gold, places):
    said = round(gold, places)
    assert same_number(said, gold)
    assert not same_number(said + Fraction(1, 10**4) * max(1, gold), gold)


@pytest.mark.parametrize(
    "response",
    [
        "答案是B",
        "答案是 B",
        "正确答案：B。",
        "所以选B",
        "B是正确的",
        "答えはBです",
        "정답은B입니다",
        "คำตอบคือB",
        "答案是（Ｂ）",
    ],
)
def test_letters_in_scripts_without_blanks(response):
    assert score("letter", response, "B") == 1.0


@pytest.mark.parametrize(
    "response", ["答案是18", "一共18个苹果", "答えは18です", "정답은18입니다", "答案是１８。"]
)
def test_numbers_in_scripts_without_blanks(response):
    assert score("number", response, "18") == 1.0


TESTS = "assert square_perimeter(10) == 40"


@pytest.mark.parametrize(
    "response",
    [
        "```def square_perimeter(a):\n    return 4*a\n```",
        "```python def square_perimeter(a):\n    return 4*a\n```",
        "```{.python}\ndef square_perimeter(a):\n    return 4*a\n```",
        "~~~python\ndef square_perimeter(a):\n    return 4*a\n~~~",
        "````python\ndef square_perimeter(a):\n    return 4*a\n````",
        "```def square_perimeter(a): return 4*a```",
        "1. The function:\n\n   ```python\n   def square_perimeter(a):\n       return 4*a\n   ```\n"
        "2. Done.",
        "- ```python\n  def square_perimeter(a):\n      return 4*a\n  ```",
        "```python\ndef square_perimeter(a):\n    return 2*a\n```\nThat is wrong. Corrected:\n"
        "```python\ndef square_perimeter(a):\n    return 4*a\n```",
        "```python\ndef square_perimeter(a):\n    return 4*a\n```\nIts head was:\n"
        "```python\ndef square_perimeter(a):\n    ...\n```",
    ],
)
def test_code_in_every_kind_of_fence(response):
    assert score("code", response, TESTS) == 1.0


# as by default, but without a look at how each character is encoded: 2 s of CPU in a fresh clone
CHARACTERS = st.characters(exclude_categories=["Cs"])


@given(st.text(CHARACTERS, max_size=200))
def test_no_text_is_a_fault(text):
    assert own_answer(text) in text or own_answer(text) == text
    assert answer_field(text) is None or isinstance(answer_field(text), str)


@given(
    st.dictionaries(
        st.text(CHARACTERS, max_size=8),
        st.integers() | st.text(CHARACTERS, max_size=8),
        max_size=4,
    ),
    st.integers(),
)
def test_a_field_is_found_among_others(others, answer):
    found = answer_field("So: " + json.dumps({**others, "final_answer": answer}))
    assert found == str(answer)
