r"""Several boxes, equations, signs before fractions: what test suites of other scorers taught."""

from __future__ import annotations

import pytest

from waypost.scorers import score
from waypost.scorers.numeric import final_number, last_boxes


@pytest.mark.parametrize(
    ("text", "boxes"),
    [
        (r"\boxed{1} and \boxed{2}", ["1", "2"]),
        (r"\boxed{1}\boxed{2}", ["1", "2"]),
        (r"\[\boxed{1},\ \boxed{2}\]", ["1", "2"]),
        (r"$\boxed{\frac{1}{2}} \quad \text{or} \quad \boxed{3}$", [r"\frac{1}{2}", "3"]),
        (r"First \boxed{5}. Then \boxed{7}", ["7"]),
        (r"\boxed{5} apples \boxed{7}", ["7"]),
        (r"\boxed{5} and, as we saw above in the long derivation, \boxed{7}", ["7"]),
        (r"\boxed{5 and \boxed{7}}", ["5 and \\boxed{7}"]),
        (r"\boxed{5", []),
        ("none", []),
    ],
)
def test_boxes_that_belong_together(text, boxes):
    assert last_boxes(text) == boxes


@pytest.mark.parametrize(
    ("metric", "response", "gold", "right"),
    [
        ("math", r"\boxed{3} and \boxed{-2}", "-2, 3", 1.0),
        ("math", r"\boxed{3} and \boxed{-2}", "-2, 4", 0.0),
        ("math", r"\boxed{(2,1)}, \boxed{(1,2)}", "(1,2), (2,1)", 1.0),
        # one value is asked for: the last box is the answer
        ("math", r"\boxed{3} or \boxed{4}", "4", 1.0),
        ("math", r"\boxed{3} or \boxed{4}", "3", 0.0),
        ("number", r"\boxed{200}, so \boxed{255}. The final answer is $10,455$.", "10455", 1.0),
        ("math", r"\boxed{200}, so \boxed{255}. The final answer is $10,455$.", "10455", 1.0),
        ("number", r"\boxed{255}. The final answer is in the box.", "255", 1.0),
        ("math", r"-\frac{10}{9}", "-10/9", 1.0),
        ("number", r"It is $-\frac{3}{4}$", "-0.75", 1.0),
        ("number", r"It is $2-\frac{3}{4}$ of it: \frac{5}{4}", "1.25", 1.0),
        # the value of a formula is not its last digit
        ("math", r"$\frac{1+\sqrt{5}}{2}$", "2", 0.0),
        ("math", r"$-[0,1)$", "1", 0.0),
        ("math", r"Final Answer: The final answer is $\frac{10\sqrt{2}}{4}$. I hope it is correct.",
         r"\frac{5}{\sqrt{2}}", 1.0),
        ("math", "The answer is 5^2 = 25", "25", 1.0),
        # relations and equations
        ("math", "Thus $x <= 2$ holds.", r"x \leq 2", 1.0),
        ("math", "Thus $x >= 2$ holds.", r"x \leq 2", 0.0),
        ("math", "The solution is $x != 5$", r"x \neq 5", 1.0),
        ("math", "$-3x - 4y + 5 = 0$", "3x + 4y - 5 = 0", 1.0),
        ("math", "$-3x - 4y + 6 = 0$", "3x + 4y - 5 = 0", 0.0),
        ("math", r"\boxed{p = -1 \text{ and } p = \frac{15}{8}}", r"p=-1,p=\frac{15}{8}", 1.0),
        ("math", r"$x = 3 + 4 = 7$", "7", 1.0),
        ("math", r"\sqrt[3]2", r"\sqrt[3]{2}", 1.0),
        ("math", r"\sqrt[3]2", r"\sqrt[3]{3}", 0.0),
    ],
)  # fmt: skip
def test_scores(metric, response, gold, right):
    assert score(metric, response, gold) == right


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (r"-\frac{1}{2}", -0.5),
        (r"-\frac{-1}{2}", 0.5),
        (r"\frac{-1}{-2}", 0.5),
        (r"\frac{1}{-2}", -0.5),
        ("\u2212 \\frac12", -0.5),
        (r"3-\frac{1}{2}", 0.5),
    ],
)
def test_signs_of_fractions(text, value):
    assert float(final_number(text)) == value
