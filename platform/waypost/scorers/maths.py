"""Short mathematical answers: numbers by value, everything else as normalised LaTeX.

No computer algebra: ``(x+1)^2`` and ``x^2+2x+1`` differ here.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from waypost.scorers.numeric import boxed, final_number, same_number
from waypost.scorers.text import gold_strings

_ANSWER = re.compile(r"\banswer\s*(?:is|=|:)\s*([^\n]+)", re.IGNORECASE)
_INLINE = re.compile(r"\$([^$\n]+)\$|\\\(([^\n]+?)\\\)")
_WRAPPED = re.compile(r"\\(?:text|mathrm|mathbf|textbf|mbox)\s*\{([^{}]*)\}")
_SHORT_FRACTION = re.compile(r"\\frac(\d)(\d)")
_ASSIGNED = re.compile(r"^[a-zA-Z]\s*=\s*")
_NUMERIC = re.compile(
    r"-?(?:[\d,]*\.?\d+|\\frac\{-?\d+\}\{-?\d+\}|\d+/\d+)(?:%|degrees|dollars|cm|units)?"
)
_DROPPED = ("\\left", "\\right", "\\,", "\\;", "\\!", "\\ ", "^\\circ", "^{\\circ}", "\\$", "$")


def normalise_maths(text: str) -> str:
    r"""Return an expression in one spelling: no blanks, no layout commands, ``\frac{a}{b}``."""
    text = text.strip().strip(".").replace("\u2212", "-").replace("\u00b0", "")
    text = _WRAPPED.sub(r"\1", text)
    for command in _DROPPED:
        text = text.replace(command, "")
    text = text.replace("\\dfrac", "\\frac").replace("\\tfrac", "\\frac").replace("\\%", "%")
    text = re.sub(r"\s+", "", _ASSIGNED.sub("", text.strip().strip("*")))
    return _SHORT_FRACTION.sub(r"\\frac{\1}{\2}", text)


def final_expression(response: str) -> str | None:
    r"""Return the expression that a response ends on, or None.

    It is the last ``\boxed{}``, else what follows the last "answer is", else the last inline
    formula, else a whole response of one line.
    """
    if (box := boxed(response)) is not None:
        return box
    if stated := _ANSWER.findall(response):
        return str(stated[-1])
    if inline := _INLINE.findall(response):
        return str(inline[-1][0] or inline[-1][1])
    line = response.strip()
    return line if line and "\n" not in line else None


def maths_match(response: str, ground_truth: str | Sequence[str]) -> float:
    """Return 1.0 where the response's final answer is an accepted one, else 0.0.

    A gold that is a number (or fraction) is compared by value with the response's final
    number; any other gold as normalised text with its final expression.
    """
    return float(any(_matches(response, gold) for gold in gold_strings(ground_truth)))


def _matches(response: str, gold: str) -> bool:
    box = boxed(gold)
    wanted = normalise_maths(gold if box is None else box)
    said = final_expression(response)
    if said is not None and normalise_maths(said) == wanted:
        return True
    if not _NUMERIC.fullmatch(wanted):
        return False
    value, said_value = final_number(wanted), final_number(response)
    if said is not None and boxed(response) is not None:
        # A boxed expression that is more than a number (3\sqrt{2}) is not its last digit.
        said_value = final_number(said) if _NUMERIC.fullmatch(normalise_maths(said)) else None
    return value is not None and said_value is not None and same_number(said_value, value)
