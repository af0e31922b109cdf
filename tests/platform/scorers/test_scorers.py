"""Scores of answers, with the answers that LLMRouter's scorer gets wrong."""

from __future__ import annotations

from fractions import Fraction

import pytest

from waypost.contracts.errors import RegistryError
from waypost.scorers import METRICS, metric_name, score
from waypost.scorers.letters import final_letter
from waypost.scorers.maths import normalise_maths
from waypost.scorers.numeric import boxed, final_number, same_number
from waypost.scorers.program import extract_code
from waypost.scorers.text import normalise, tokens

CITIES = [
    {"label": "A", "text": "London"},
    {"label": "B", "text": "Paris"},
    {"label": "C", "text": "New York"},
    {"label": "D", "text": "York"},
]
DEMAND = [
    {"label": "A", "text": "elastic"},
    {"label": "B", "text": "unit elastic"},
    {"label": "C", "text": "Vitamin C"},
]
TESTS = "assert double(2) == 4\nassert double(-1) == -2"


# --- names of metrics


@pytest.mark.parametrize(
    ("given", "name"),
    [("GSM8K", "number"), ("gsm8k ", "number"), ("MATH", "math"), ("em_mc", "letter"),
     ("f1_score", "f1"), ("code_eval", "code"), ("EM", "exact_match"), ("letter", "letter")],
)  # fmt: skip
def test_metric_names_of_the_field_are_known_whatever_their_case(given: str, name: str) -> None:
    assert metric_name(given) == name


def test_unknown_metric_is_an_error_and_never_a_score() -> None:
    with pytest.raises(RegistryError, match="no metric 'bleu'"):
        score("bleu", "x", "x")


@pytest.mark.parametrize("metric", [name for name in METRICS if name != "code"])
def test_an_empty_answer_scores_nothing(metric: str) -> None:
    assert score(metric, "", "7") == 0.0


# --- text


def test_normalise_drops_case_punctuation_articles_accents_and_blanks() -> None:
    assert normalise("  The Café, “de la”  Paix! ") == "cafe de la paix"


def test_normalise_keeps_decimal_points_and_a_lone_article() -> None:
    assert normalise("3.5 km") == "3.5 km"
    assert normalise("1,234.") == "1234"
    assert normalise("A") == "a"


def test_japanese_is_split_by_character() -> None:
    assert tokens("日本の首都") == ["日", "本", "の", "首", "都"]


@pytest.mark.parametrize(
    ("response", "gold", "expected"),
    [("Paris.", ["Paris"], 1.0), ("the Beatles", ["Beatles"], 1.0), ("Lyon", ["Paris"], 0.0),
     ("The capital is Paris", ["Paris"], 0.0), ("35", ["3.5"], 0.0), ("b", ["a", "B"], 1.0),
     ("the", ["a"], 0.0)],
)  # fmt: skip
def test_exact_match(response: str, gold: list[str], expected: float) -> None:
    assert score("exact_match", response, gold) == expected


def test_f1_counts_shared_words_of_the_best_gold() -> None:
    # said: capital is paris (3 words), gold: paris (1); shared 1: 2 * 1 / (3 + 1)
    assert score("f1", "The capital is Paris.", ["Rome", "Paris"]) == pytest.approx(0.5)


def test_f1_counts_a_repeated_word_once_for_each_time_in_the_gold() -> None:
    # shared 1 of said 3 and gold 2: 2 / 5
    assert score("f1", "york york york", "new york") == pytest.approx(0.4)


@pytest.mark.parametrize(
    ("response", "gold", "expected"),
    [("The capital of France is **Paris**.", ["Paris"], 1.0),
     ("Paris is the capital. " + "It is large. " * 30, ["Paris"], 1.0),
     ("Let me think. " * 10 + "Paris", ["Paris"], 0.0),
     ("It is not Paris but Lyon.", ["Paris"], 0.0),
     ("Parisian", ["Paris"], 0.0),
     ("The novel is Moby Dick by Melville", ["Moby-Dick"], 1.0),
     ("答案是长江。", ["长江"], 1.0),
     ("A byte has 8 bits.", ["8", "eight"], 1.0),
     ("A byte has 18 bits.", ["8", "eight"], 0.0),
     ("Jose Saramago wrote it", ["José Saramago"], 1.0)],
)  # fmt: skip
def test_short_answer(response: str, gold: list[str], expected: float) -> None:
    assert score("short_answer", response, gold) == expected


# --- letters


@pytest.mark.parametrize(
    "response",
    ["B", "b", "(B)", "B.", "B)", "**B**", "B. Paris", "(B) Paris", "**B. Paris**", "B: Paris",
     "B\n\nParis is the capital.", "The answer is B", "The correct answer is (B).",
     "the answer is: **B**", "Answer: B", "Answer: b", "The correct option is B because of it.",
     "Option B is correct.", "\\boxed{B}", "$\\boxed{\\text{B}}$", "Paris", "It is Paris.",
     "A is wrong. C is wrong as well. So it must be B", "I think it is B.",
     "London is large. A city needs more. The answer is B, Paris.",
     "La respuesta es B", "Antwort: B", "La réponse est B."],
)  # fmt: skip
def test_letter_is_read_however_it_is_worded(response: str) -> None:
    assert score("letter", response, "B", CITIES) == 1.0


@pytest.mark.parametrize(
    "response",
    ["A", "The answer is A", "**A**", "B or maybe C", "London", "", "Banana",
     "The answer is C. Not B.", "A. London\nB. Paris\nC. New York\nD. York"],
)  # fmt: skip
def test_letter_of_another_option_or_none_scores_nothing(response: str) -> None:
    assert score("letter", response, "B", CITIES) == 0.0


@pytest.mark.parametrize("response", ["The answer is A", "**A**", "(A)", "A", "a)"])
def test_letter_a_is_read_where_it_is_no_article(response: str) -> None:
    assert score("letter", response, "A") == 1.0


def test_the_article_a_and_the_pronoun_i_are_no_letters() -> None:
    assert final_letter("A plant needs light and I like plants") is None


def test_repeated_options_are_skipped_and_the_answer_after_them_counts() -> None:
    echo = "A. London\nB. Paris\nC. New York\nD. York\n"
    assert final_letter(echo, CITIES) is None
    assert final_letter(echo + "Answer: D", CITIES) == "D"


def test_a_choice_within_a_longer_choice_is_not_named() -> None:
    assert final_letter("New York", CITIES) == "C"
    assert final_letter("It is unit elastic here", DEMAND) == "B"


def test_a_letter_within_a_choice_text_is_not_a_label() -> None:
    assert final_letter("you lack vitamin c, unit elastic", DEMAND) == "B"
    assert final_letter("Vitamin C", DEMAND) == "C"


def test_an_option_that_is_ruled_out_is_not_the_answer() -> None:
    assert final_letter("(A) is incorrect, so (B)", CITIES) == "B"
    assert final_letter("Option B is wrong, option D is right", CITIES) == "D"


def test_gold_may_be_bracketed_or_the_text_of_a_choice() -> None:
    assert score("letter", "B", "(B)", CITIES) == 1.0
    assert score("letter", "B", "Paris", CITIES) == 1.0


# --- numbers


@pytest.mark.parametrize(
    ("text", "value"),
    [("$18.00", 18), ("18.", 18), ("1,234", 1234), ("1,234,567.5", Fraction(2469135, 2)),
     ("-5", -5), ("\u22125 degrees", -5), ("-$3", -3), ("$-3", -3), ("10-5", 5),
     ("3/4", Fraction(3, 4)), ("1 1/2", Fraction(3, 2)), ("24 / 4 = 6", 6),
     ("\\frac{3}{4}", Fraction(3, 4)), ("\\frac34", Fraction(3, 4)), ("18%", 18),
     ("31.5 litres", Fraction(63, 2)), (".5", Fraction(1, 2)), ("1e3", 1000), ("...18", 18),
     ("12 plus 3 is 15", 15), ("He pays 3 + 4 = 7 dollars.", 7),
     ("The answer is 18 dollars for 3 eggs.", 18), ("The answer is 3 + 4 = 7.", 7),
     ("The answer is 7, since 2 + 2 = 4.", 7), ("**Answer:**\n18", 18),
     ("#### 42\n(2 steps)", 42), ("so \\boxed{42} in 3 steps", 42), ("seven apples", 7),
     ("18,20", 20), ("a 12 5.50", Fraction(11, 2)), ("1{,}000", 1000), ("\\$18", 18)],
)  # fmt: skip
def test_final_number(text: str, value: Fraction | int) -> None:
    assert final_number(text) == value


@pytest.mark.parametrize("text", ["", "none", "x2y", "3/0", "1/0 of it"])
def test_no_number(text: str) -> None:
    assert final_number(text) is None


def test_money_with_cents_equals_the_whole_number() -> None:
    assert score("GSM8K", "She makes $18.00 a day.", "9 * 2 = <<9*2=18>>18\n#### 18") == 1.0


def test_a_rounded_decimal_matches_from_two_places_on() -> None:
    assert same_number(Fraction(67, 100), Fraction(2, 3))
    assert not same_number(Fraction(7, 10), Fraction(2, 3))
    assert not same_number(Fraction(33), Fraction(100, 3))


def test_hostile_digits_are_read_in_bounded_time() -> None:
    assert score("number", "9" * 100_000, "9") == 0.0
    assert score("number", "1e99999999999", "9") == 0.0
    assert score("math", "\\boxed{" * 5_000, "9") == 0.0


def test_hostile_brackets_are_read_in_bounded_time() -> None:
    assert final_letter("(" * 200_000) is None
    assert final_letter("(B" * 50_000 + ")") is not None


# --- maths


@pytest.mark.parametrize(
    ("response", "gold"),
    [("\\boxed{\\frac{2}{3}}", "\\frac{2}{3}"), ("It is 2/3.", "\\frac{2}{3}"),
     ("$\\dfrac{2}{3}$", "\\frac{2}{3}"), ("\\boxed{0.5}", "\\frac{1}{2}"),
     ("$x = 4$", "4"), ("The answer is 135^\\circ.", "135"), ("\\boxed{x=4}", "4"),
     ("\\boxed{ 3\\sqrt{2} }", "3\\sqrt{2}"), ("The answer is $\\left(1, 2\\right)$.", "(1,2)"),
     ("\\boxed{-3}", "-3"), ("\\boxed{1,000}", "1000"), ("\\boxed{12\\text{ cm}}", "12"),
     ("First 5, then 7.\nSo 12", "12"), ("16", "\\boxed{16}")],
)  # fmt: skip
def test_maths_right(response: str, gold: str) -> None:
    assert score("MATH", response, gold) == 1.0


@pytest.mark.parametrize(
    ("response", "gold"),
    [("\\boxed{3\\sqrt{2}}", "2"), ("\\boxed{\\frac{3}{2}}", "\\frac{2}{3}"), ("x", "y"),
     ("\\boxed{}", "4"), ("", "4")],
)  # fmt: skip
def test_maths_wrong(response: str, gold: str) -> None:
    assert score("math", response, gold) == 0.0


def test_boxed_takes_the_last_box_with_its_inner_braces() -> None:
    assert boxed("\\boxed{1} then \\boxed{\\frac{1}{2}}") == "\\frac{1}{2}"
    assert boxed("\\boxed{1") is None


def test_normalise_maths_spells_fractions_one_way() -> None:
    assert normalise_maths("$ \\dfrac12 $.") == "\\frac{1}{2}"


# --- code


@pytest.mark.parametrize(
    "program",
    ["def double(x):\n    return 2 * x",
     "import operator\n\ndef double(x):\n    return operator.mul(x, 2)",
     "def double(x):\n    return 0 if x == 0 else 2 * (x > 0) - 2 * (x < 0) + double(x - "
     "(x > 0) + (x < 0))",
     "def helper(x):\n    return x\n\ndef double(x):\n    return helper(x) + helper(x)",
     "double = lambda x: 2 * x"],
    ids=["plain", "import", "recursion", "helper", "lambda"],
)  # fmt: skip
def test_correct_programs_pass(program: str) -> None:
    assert score("code_eval", f"Here it is:\n```python\n{program}\n```\nIt doubles.", TESTS) == 1.0


def test_wrong_and_missing_programs_score_nothing() -> None:
    assert score("code", "```python\ndef double(x):\n    return x\n```", TESTS) == 0.0
    assert score("code", "I cannot help with that.", TESTS) == 0.0


def test_tests_may_be_a_list() -> None:
    assert score("code", "def double(x): return 2 * x", TESTS.split("\n")) == 1.0


def test_code_without_a_fence_is_cut_out_of_the_prose() -> None:
    said = "Sure, from me to you:\ndef f():\n    return 1\n\nThis function returns 1."
    assert extract_code(said) == "def f():\n    return 1\n"


def test_the_first_block_that_defines_something_is_the_program() -> None:
    said = "```bash\npip install x\n```\n```python\ndef f(): return 1\n```\n```python\nf()\n```"
    assert extract_code(said) == "def f(): return 1"


def test_a_fence_cut_off_by_the_token_limit_keeps_its_whole_statements() -> None:
    assert extract_code("```python\ndef f():\n    return 1\n\nprint(f(") == (
        "def f():\n    return 1"
    )


def test_a_bare_body_is_put_under_the_head_in_the_prompt() -> None:
    query = 'Complete:\n\ndef double(x: int) -> int:\n    """Double x."""\n'
    assert score("code", "    return 2 * x", TESTS, query=query) == 1.0
    assert score("code", "```python\nreturn 2 * x\n```", TESTS, query=query) == 1.0


def test_imports_of_the_prompt_stand_before_the_program() -> None:
    query = "from typing import List\n\n\ndef double(x: List) -> List:\n    '''Double.'''\n"
    assert score("code", "def double(x: List): return 2 * x", TESTS, query=query) == 1.0
