"""More wordings of answers: letters, numbers, maths by meaning, code in several blocks."""

from __future__ import annotations

import threading
import time

import pytest

from waypost.contracts.errors import MissingExtraError
from waypost.scorers import SCORER_VERSION, _equivalence, score
from waypost.scorers.letters import final_letter
from waypost.scorers.program import extract_code
from waypost.scorers.text import without_reasoning

PLACES = [
    {"label": label, "text": text}
    for label, text in zip("ABCDE", ["bank", "library", "mall", "shop", "school"], strict=True)
]
STATES = [
    {"label": label, "text": text}
    for label, text in zip("1234", ["ice", "water", "steam", "salt"], strict=True)
]


def test_the_version_is_raised_with_the_scores() -> None:
    assert SCORER_VERSION == "4"


def test_reasoning_is_not_the_answer() -> None:
    assert without_reasoning("<think>B or C</think>\nD") == "\nD"
    assert without_reasoning("so B</think>D") == "D"
    assert without_reasoning("<think>cut off at B") == ""
    assert score("letter", "<think>The answer is B", "B") == 0.0
    assert score("exact_match", "<think>Rome?</think> Paris", "Paris") == 1.0


@pytest.mark.parametrize(
    ("response", "label"),
    [
        ("E", "E"),
        ("(E) school", "E"),
        ("The answer is E.", "E"),
        ("First A seems right. But B fails. Therefore, the answer is (E).", "E"),
        ("None of the above", None),
        ("I cannot answer that question.", None),
        ("I'm sorry, but as an AI I can't help.", None),
        ("The best answer is: C", "C"),
        ("**Answer: D**", "D"),
        ("**The answer is B) library**", "B"),
        ("Final answer: $\\boxed{\\text{C}}$", "C"),
        ("\\boxed{\\text{(C)}}", "C"),
        ("\\boxed{C. mall}", "C"),
        ("<answer>D</answer>", "D"),
        ("[B]", "B"),
        ("Answer:\nB", "B"),
        ("Answer: **B. library**", "B"),
        ("I would choose option (D).", "D"),
        ("I'd go with B", "B"),
        ("The answer is not A. It is C.", "C"),
        ("The answer is A? No, the answer is D.", "D"),
        ("A, because banks hold money", "A"),
        ("a", "A"),
        ("Correct Answer: [C]", "C"),
        ("It could be A or B; I choose B.", "B"),
        ("The answer is the library.", "B"),
        ("the answer is a library", "B"),
        ("The answer is a mall, (C)", "C"),
        ('The correct choice is "D"', "D"),
        ("Answer - C", "C"),
        ("ANSWER IS C", "C"),
        ("The answer would be C", "C"),
        ("so it's (B), not (C).", "B"),
        ("Option C: mall", "C"),
        ("C: mall\n\nExplanation: Banks (A) and schools (E) are no places for that.", "C"),
        (
            "Let's see. A) bank: no. B) library: no. C) mall: yes. D) shop: no. E) school: no. So C.",  # noqa: E501
            "C",
        ),
    ],
)
def test_label_among_places(response: str, label: str | None) -> None:
    assert final_letter(response, PLACES) == label


@pytest.mark.parametrize(
    ("response", "label"),
    [
        ("2", "2"),
        ("(2)", "2"),
        ("Answer: 2", "2"),
        ("The answer is 2.", "2"),
        ("The correct answer is (3) steam", "3"),
        ("2. water", "2"),
        ("\\boxed{4}", "4"),
        ("water", "2"),
        ("Option 3", "3"),
        ("The answer is 2) water, since 1 is ice", "2"),
        ("There are 3 reasons. The answer is 2", "2"),
        ("**4**", "4"),
        ("I have no idea", None),
        ("It takes 30 minutes to freeze so the answer is 1: ice", "1"),
    ],
)
def test_label_among_states(response: str, label: str | None) -> None:
    assert final_letter(response, STATES) == label


@pytest.mark.parametrize(
    ("response", "gold"),
    [
        ("$18.00", "18"),
        ("#### 18", "18"),
        ("The answer is 18 dollars per day.", "18"),
        ("= $1,234", "1234"),
        ("3/4", "0.75"),
        ("-5", "-5"),
        ("50%", "50"),
        ("1.8e1", "18"),
        ("1 1/2", "1.5"),
        ("\\frac{3}{2}", "1.5"),
        ("18 eggs * $2 = $36. Janet makes **$36** every day.", "36"),
        ("The total is 36.\n\nAnswer: 36 dollars", "36"),
        ("x = 18", "18"),
        ("18 \\text{ dollars}", "18"),
        ("She has 3 apples and 4 pears, so 7 in total", "7"),
        ("€18", "18"),
        ("18€", "18"),
        ("18 hours and 30 minutes, i.e. 18.5", "18.5"),
        ("-18", "-18"),
        ("2^3 = 8", "8"),
        ("The final answer is: $\\boxed{18}$", "18"),
        ("\\boxed{\\$18}", "18"),
        ("\\boxed{18\\text{ eggs}}", "18"),
        ("about 18.0", "18"),
        ("eighteen", "18"),
        ("The answer is eighteen (18).", "18"),
        ("twenty-five", "25"),
        ("1.8 \\times 10^1", "18"),
        ("1.8 x 10^1", "18"),
        ("3 million", "3000000"),
        ("$2.5 million", "2500000"),
        ("**18**.", "18"),
        ("18.", "18"),
        ("Answer: 18 (9*2)", "18"),
        ("1/2 of 36 is 18", "18"),
        ("He needs 5 more days.\n#### 5", "5"),
        ("answer is $5,600.", "5600"),
        ("negative 5", "-5"),
        (
            "Therefore, Janet makes $18 every day at the farmers' market. (16 - 3 - 4 = 9; 9 * 2 = 18)",  # noqa: E501
            "18",
        ),
        ("The answer is 12:30", "12"),
        ("70,000 - 50,000 = 20,000", "20000"),
        ("160/2=80", "80"),
        ("0.5", "1/2"),
        ("20 percent", "20"),
        ("Total: 1\u202f234", "1234"),
        ("The change is minus 5.", "-5"),
        ("The answer is 2.5 million people.", "2.5"),
    ],
)
def test_number_right(response: str, gold: str) -> None:
    assert score("number", response, gold) == 1.0


@pytest.mark.parametrize(
    ("response", "gold"),
    [
        ("19", "18"),
        ("18.5", "18"),
        ("-18", "18"),
        ("", "0"),
        ("no idea", "0"),
        ("The answer is 18", "81"),
        ("one two", "3"),
    ],
)
def test_number_wrong(response: str, gold: str) -> None:
    assert score("number", response, gold) == 0.0


@pytest.mark.parametrize(
    ("response", "gold"),
    [
        ("\\boxed{\\frac{2}{3}}", "\\frac{2}{3}"),
        ("\\boxed{\\dfrac{1}{2}}", "0.5"),
        ("\\boxed{x^2+2x+1}", "(x+1)^2"),
        ("\\boxed{\\{2,1\\}}", "\\{1,2\\}"),
        ("\\boxed{2, 1}", "1,2"),
        ("\\boxed{(-\\infty, 2)\\cup(3,\\infty)}", "(-\\infty,2) \\cup (3,\\infty)"),
        ("\\boxed{[1, 2)}", "[1,2)"),
        ("\\boxed{(1, 2)}", "(1,2)"),
        ("\\boxed{\\left(\\frac{1}{2}, 3\\right)}", "(0.5,3)"),
        (
            "\\boxed{\\begin{bmatrix}1&2\\\\3&4\\end{bmatrix}}",
            "\\begin{pmatrix} 1 & 2 \\\\ 3 & 4 \\end{pmatrix}",
        ),
        ("\\boxed{90^\\circ}", "90"),
        ("\\boxed{90}", "90^\\circ"),
        ("\\boxed{\\text{even}}", "\\text{Even}"),
        ("The answer is even.", "\\text{even}"),
        ("\\boxed{2\\sqrt{3}}", "\\sqrt{12}"),
        ("\\boxed{\\frac{1}{\\sqrt{2}}}", "\\frac{\\sqrt{2}}{2}"),
        ("\\boxed{x=4}", "4"),
        ("\\boxed{4}", "x=4"),
        ("\\boxed{12\\text{ cm}}", "12"),
        ("\\boxed{12}", "12\\text{ cm}^2"),
        ("\\boxed{12 \\text{ square inches}}", "12"),
        ("\\boxed{1\\frac{1}{2}}", "\\frac{3}{2}"),
        ("\\boxed{3/2}", "1\\frac{1}{2}"),
        ("\\boxed{1 1/2}", "\\frac{3}{2}"),
        ("The answer is sqrt(2)/2.", "\\frac{\\sqrt{2}}{2}"),
        ("The answer is $2\\pi$.", "2\\pi"),
        ("\\boxed{2 pi}", "2\\pi"),
        ("\\boxed{x \\in [1,2]}", "[1,2]"),
        ("\\boxed{y = 2x + 3}", "y = 3 + 2x"),
        ("\\boxed{2x+3}", "y=2x+3"),
        ("\\boxed{\\text{(A)}}", "A"),
        ("\\boxed{A}", "\\text{(A)}"),
        ("\\boxed{50\\%}", "50"),
        ("\\boxed{\\$18.50}", "18.5"),
        ("\\boxed{10,000}", "10000"),
        ("\\boxed{2^{10}}", "1024"),
        ("\\boxed{\\sqrt{16}}", "4"),
        ("\\boxed{-2 \\text{ and } 3}", "3,-2"),
        ("\\boxed{x = -2 \\text{ or } x = 3}", "-2,3"),
        ("\\boxed{x=-2, x=3}", "-2,3"),
        ("\\boxed{3+4i}", "4i+3"),
        ("\\boxed{\\frac{a+b}{2}}", "\\frac{1}{2}(a+b)"),
        ("\\boxed{\\log_2 8}", "3"),
        ("\\boxed{5!}", "120"),
        ("\\boxed{\\binom{5}{2}}", "10"),
        ("\\boxed{11011_2}", "11011_2"),
        ("\\boxed{0.333}", "\\frac{1}{3}"),
        ("\\boxed{(3, \\frac{\\pi}{2})}", "\\left( 3, \\frac{\\pi}{2} \\right)"),
        ("\\boxed{x \\le 3}", "x\\leq 3"),
        ("\\boxed{x\\leq 3}", "(-\\infty, 3]"),
        ("\\boxed{\\emptyset}", "\\emptyset"),
        ("\\boxed{\\pm 3}", "3,-3"),
        ("\\boxed{6 - 5i}", "6-5i"),
        ("\\boxed{\\frac{9}{7} }", "\\frac97"),
        ("\\boxed{.5}", "\\frac12"),
        ("$$x = \\frac{-1 \\pm \\sqrt{5}}{2}$$", "\\frac{-1+\\sqrt{5}}{2},\\frac{-1-\\sqrt{5}}{2}"),
        ("\\boxed{\\text{Evelyn}}", "\\text{Evelyn}"),
        ("So, the final answer is \\(\\frac{5}{6}\\).", "\\frac{5}{6}"),
        ("**Answer:** $5\\sqrt{2}$", "\\sqrt{50}"),
        ("\\boxed{1.5 \\times 10^3}", "1500"),
        ("\\boxed{1.5e3}", "1500"),
        ("\\boxed{8\\text{ dollars}}", "8"),
        ("\\boxed{5x - 7}", "-7+5x"),
        ("\\[ \\boxed{7} \\]", "7"),
    ],
)
def test_maths_equal_in_meaning(response: str, gold: str) -> None:
    assert score("math", response, gold) == 1.0


@pytest.mark.parametrize(
    ("response", "gold"),
    [
        ("\\boxed{(2,1)}", "(1,2)"),
        ("\\boxed{[1,2]}", "[1,2)"),
        ("\\boxed{(1,2]}", "(1,2)"),
        ("\\boxed{neve}", "\\text{even}"),
        ("\\boxed{x^2+1}", "(x+1)^2"),
        ("\\boxed{\\{1,2,3\\}}", "\\{1,2\\}"),
        ("\\boxed{1}", "1,2"),
        (
            "\\boxed{\\begin{pmatrix}1&2\\\\3&5\\end{pmatrix}}",
            "\\begin{pmatrix}1&2\\\\3&4\\end{pmatrix}",
        ),
        ("\\boxed{2\\sqrt{2}}", "\\sqrt{12}"),
        ("\\boxed{-4}", "4"),
        ("\\boxed{x=5}", "4"),
        ("\\boxed{3\\sqrt{2}}", "2"),
        ("\\boxed{3}", "\\frac{1}{3}"),
        ("", "x"),
        ("\\boxed{}", "x+1"),
        ("I do not know.", "x+1"),
        ("\\boxed{x<3}", "x>3"),
        ("\\boxed{x \\le 3}", "x<3"),
        ("\\boxed{4\\pi}", "4"),
        ("\\boxed{0.3}", "\\frac13"),
        ("\\boxed{y=2x+3}", "y=2x+4"),
        ("\\boxed{100_2}", "100_3"),
        ("\\boxed{\\infty}", "-\\infty"),
        ("\\boxed{B}", "A"),
        ("\\boxed{Eveyln}", "\\text{Evelyn}"),
        ("\\boxed{2,1}", "(1,2)"),
    ],
)
def test_maths_of_another_meaning(response: str, gold: str) -> None:
    assert score("math", response, gold) == 0.0


def test_hostile_maths_costs_the_limit_and_works_outside_the_main_thread(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_equivalence, "CPU_S", 0.3)
    _equivalence._HELPER.close()
    found: list[float] = []

    def ask() -> None:
        found.append(score("math", "\\boxed{9^{9^{9^9}}}", "x+1"))

    thread = threading.Thread(target=ask)
    start = time.monotonic()
    thread.start()
    thread.join()
    assert found == [0.0]
    assert time.monotonic() - start < 60
    monkeypatch.undo()
    _equivalence._HELPER.close()
    assert score("math", "\\boxed{1+x}", "x+1") == 1.0


def test_without_math_verify_nothing_is_scored_in_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_equivalence, "_HELPER", _equivalence._Helper())
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"waypost\[data\]"):
        score("math", "\\boxed{z+7}", "7+z+0")
    assert score("math", "\\boxed{7}", "7") == 1.0


HELPED = "def half(x):\n    return x / 2\n\n\ndef quarter(x):\n    '''Return a quarter.'''\n"


@pytest.mark.parametrize(
    "response",
    [
        "    return half(half(x))",
        "return half(half(x))",
        "y = half(x)\n    return half(y)",
        "for _ in range(2):\n    x = half(x)\nreturn x",
        "```python\ndef quarter(x):\n    return half(half(x))\n```",
        "First the head:\n```python\ndef quarter(x):\n    '''Doc.'''\n```\nthen all:\n```python\n"
        "def quarter(x):\n    return x / 4\n```",
        "```python\ndef quarter(x):\n    return div(x)\n```\nwith\n```python\nimport math\n\n"
        "def div(x):\n    return x / 4\n```",
        "```python\ndef quarter(x):\n    return x / 4\n```\nNot so:\n```python\n"
        "def quarter(x):\n    return x\n```",
    ],
)
def test_a_completion_however_it_is_laid_out(response: str) -> None:
    assert score("code", response, "assert quarter(8) == 2", query=HELPED) == 1.0


def test_a_program_of_stubs_is_no_program() -> None:
    assert "quarter" not in extract_code("```python\ndef quarter(x):\n    pass\n```")


def test_mbpp_tests_with_an_import_and_a_set_up() -> None:
    tests = ["import math", "from collections import Counter", "base = [1, 2]",
             "assert math.isclose(mean(base), 1.5)", "assert Counter(base)[1] == 1"]  # fmt: skip
    assert score("code", "```\ndef mean(x):\n    return sum(x) / len(x)\n```", tests) == 1.0


SUM = r"\sum_{n=1}^{9} \frac{1}{n(n+1)}"


@pytest.mark.parametrize(
    ("response", "truth", "right"),
    [
        (f"To find ${SUM}$ we need a formula.\nIt is a beautiful one.", r"\frac{9}{10}", 0),
        (f"We can write \\[ {SUM} \\] as a telescoping series:\n\\[ \\frac{{1", r"\frac{9}{10}", 0),
        (f"${SUM} = 1 - \\frac{{1}}{{10}} = \\frac{{9}}{{10}}$.", r"\frac{9}{10}", 1),
        ("Next we need \\(2^4 \\mod 7\\).\n\\[16 \\div", "2", 0),
        ("We expand $(x+1)^2$ first.\nThen", "x^2+2x+1", 0),
        ("We expand $(x+1)^2$: it is $x^2 + x + x + 1$.\nSo", "x^2+2x+1", 1),
        ("\\[ 5 + 2 = 7 \\]\n\nThe sum of the roots of the equation \\(x", "7", 1),
        (r"\boxed{(x+1)^2}", "(1+x)^2", 1),
    ],
)
def test_repeating_the_question_is_no_answer_to_it(response, truth, right):
    query = f"Find ${SUM}$, 2^4 \\mod 7, and expand $(x+1)^2$."
    assert score("math", response, truth, query=query) == right
