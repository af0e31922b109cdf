"""Normal forms of answers, and the groups of answers that agree."""

from __future__ import annotations

import pytest

from waypost.scorers.forms import (
    form_of,
    group_answers,
    normal_form,
    stated_options,
    stated_tests,
)

OPTIONS = "Which gas do plants take in?\nA. oxygen\nB. carbon dioxide\nC. helium"
ADD = (
    'Write a Python function.\n\ndef add(a, b):\n    """Add.\n\n    >>> add(1, 2)\n    3\n    """\n'
)


@pytest.mark.parametrize(
    ("query", "metric", "form"),
    [
        ("How many?", "number", "number"),
        ("How many?", "GSM8K ", "number"),
        ("Who?", "short_answer", "text"),
        ("Who?", "a_metric_of_a_plugin", "text"),
        (OPTIONS, "", "letter"),
        (OPTIONS, "exact_match", "text"),
        ("Sum it.\nassert add(1, 2) == 3", "", "code"),
        (ADD, "", "code"),
        ("How many?", "", "any"),
        ("", "", "any"),
    ],
)
def test_the_form_is_the_metrics_or_is_seen_in_the_question(query, metric, form):
    assert form_of(query, metric) == form


def test_options_are_those_of_the_last_list_from_a_on():
    assert stated_options(OPTIONS) == (("A", "oxygen"), ("B", "carbon dioxide"), ("C", "helium"))
    assert stated_options("A. no list") == (("A", "no list"),)
    assert stated_options("C. x\nB. y") == ()
    assert stated_options("A. x\nB. y\n\nA. p\nB. q\nC. r")[0] == ("A", "p")


@pytest.mark.parametrize(
    ("answer", "query", "metric", "form"),
    [
        ("The answer is (B).", OPTIONS, "", "B"),
        ("carbon dioxide", OPTIONS, "", "B"),
        ("C", "Which?", "letter", "C"),
        ("I do not know that", OPTIONS, "", None),
        ("<think>A</think> B", OPTIONS, "", "B"),
        ("so it is $1,234.50", "How much?", "number", "1234.5"),
        ("0.3333333333", "How much?", "number", "0.333333"),
        ("1/3", "How much?", "number", "0.333333"),
        ("no number", "How much?", "number", None),
        (r"\boxed{\dfrac{3}{4}}", "Give it.", "math", "0.75"),
        (r"\boxed{x^2 + 1}", "Give it.", "math", "x^2+1"),
        ("The answer is 18.", "How many are left?", "", "18"),
        ('{"answer": 18}', "How many are left?", "", "18"),
        ("Paris!", "What is the capital?", "", "paris"),
        ("  ...  ", "What is the capital?", "", None),
        ("```python\ndef add(a, b):\n    return b + a\n```", ADD, "", "passes"),
        ("I cannot.", ADD, "", None),
        ("", "Write a Python function.", "", None),
    ],
)
def test_normal_forms(answer, query, metric, form):
    assert normal_form(answer, query, metric) == form


def test_programs_that_fail_agree_only_if_they_are_the_same():
    wrong = "def add(a, b):\n    return a - b"
    same = 'def add(a, b):\n    """Subtract."""\n    return a - b  # so'
    other = "def add(a, b):\n    return a"
    assert group_answers([wrong, same, other], ADD) == [0, 0, 1]
    assert group_answers(["def f():\n    return 1", "def f(): return 1"], "x", "code") == [0, 0]


def test_tests_are_asserts_and_examples_that_parse():
    query = f"{ADD}\nassert add(0, 0) == 0\nassert that this is so"
    assert stated_tests(query).splitlines() == ["assert add(0, 0) == 0", "assert add(1, 2) == 3"]


def test_groups_are_numbered_by_their_first_answers():
    answers = ["B", None, "A", "(B)", "nothing said", "C"]
    assert group_answers(answers, OPTIONS) == [0, -1, 1, 0, -1, 2]
    assert group_answers([], OPTIONS) == []


def test_a_later_answer_does_not_change_earlier_groups():
    answers = ["the play Hamlet", "Macbeth", "Hamlet", "by Shakespeare: Hamlet"]
    whole = group_answers(answers, "Which play?", "short_answer")
    for end in range(len(answers)):
        assert group_answers(answers[:end], "Which play?", "short_answer") == whole[:end]
    assert whole == [0, 1, 0, 0]


def test_texts_are_compared_by_meaning_where_words_differ():
    def similar(texts, other):
        return [{text, other} == {"big cat", "large feline"} for text in texts]

    answers = ["big cat", "large feline", "dog"]
    assert group_answers(answers, "Which?", "f1", similar) == [0, 0, 1]
    assert group_answers(answers, "Which?", "f1") == [0, 1, 2]
    assert group_answers(["12", "12 cats"], "Which?", "f1", lambda *_: [True]) == [0, 1]
