"""Compare short mathematical answers as normalised text, as numbers, or by computer algebra.

Equal text and equal numbers are decided here. All other answers go to math-verify (Kydlicek 2025),
which parses both and compares them symbolically: ``(x+1)^2`` equals ``x^2+2x+1``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from waypost.scorers._equivalence import equivalent
from waypost.scorers.numeric import after_steps, boxed, final_number, last_boxes, same_number
from waypost.scorers.text import gold_strings

_ANSWER = re.compile(r"\banswer\s*(?:is|=|:)\s*([^\n]+)", re.IGNORECASE)
_STATED = re.compile(
    r"(?:[\s*:]|\b(?:the|final|answer|is|so|thus|simply|just|approximately|equal|to)\b)*",
    re.IGNORECASE,
)
"""Words before a formula that is the whole of a stated answer."""

_EQUALS = re.compile(r"(?<![<>!=])=(?!=)")
_COMPOSED = re.compile(
    r"\\(?:sqrt|[dt]?frac|pi|log|ln|sin|cos|tan|cup|cap|pm|infty)(?![a-z])|\^|[\[(][^\])]*,[^\])]*[\])]"
)
"""More than a number: the value of (1+sqrt 5)/2 is not its last digit."""

_FORMULA = re.compile(r"\$\$(.+?)\$\$|\$([^$\n]+)\$|\\\(([^\n]+?)\\\)|\\\[(.+?)\\\]", re.DOTALL)
_UNFINISHED = re.compile(r"\\(?:sum|prod|int|lim|p?mod|bmod|equiv)(?![a-z])|\bmod\b")
"""Unevaluated operations. Their value can equal the ground truth in a repeated question."""

_WRAPPED = re.compile(r"\\(?:text|mathrm|mathbf|textbf|mbox)\s*\{([^{}]*)\}")
_SHORT_FRACTION = re.compile(r"\\frac(\d)(\d)")
_ASSIGNED = re.compile(r"^[a-zA-Z]\s*=\s*")
_NUMERIC = re.compile(
    r"-?(?:(?:(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?|\.\d+)(?:[eE][-+]?\d{1,2})?|\\frac\{-?\d+\}\{-?\d+\}|\d+/\d+)(?:%|degrees|dollars|cm|units)?"
)
_LAYOUT = re.compile(
    r"(?<!\\)\\(?:left(?![a-z])|right(?![a-z])|quad|displaystyle|degree|[,;:! ()\[\]$])"
    r"|\^\{?\\circ\}?|\$"
)
_UNIT = re.compile(
    r"(?<=[\d}])\s*\\(?:text|mathrm|mbox|textrm)\s*\{[\sa-zA-Z./]*\}(?:\^\{?[23]\}?)?\s*$"
    r"|(?<=\d)\s*(?:(?:square|cubic|sq\.?)\s+)?[a-zA-Z]{3,}(?:\s+[a-zA-Z]{2,})?(?:\^\{?[23]\}?)?\s*$"
)
_JOINED = re.compile(r"\\(?:text|mbox)\s*\{\s*(?:and|or)\s*\}|\b(?:and|or)\b", re.IGNORECASE)
_WORDS = re.compile(r"(?:[a-zA-Z'-]{4,}|\s)+")
_LETTER = re.compile(r"\(?([A-Z])\)?")
_MIXED = re.compile(r"(?<=\d)\s+(?=\d+\s*/\s*\d)")
_BASE = re.compile(r"(\w+)_\{?(\d+)\}?")
_PLAIN = (
    (re.compile(r"\\[dt]frac"), r"\\frac"),
    (re.compile(r"(?<!\\)\bsqrt\s*\(([^()]*)\)"), r"\\sqrt{\1}"),
    (re.compile(r"(?<!\\)\bsqrt\b|\u221a"), r"\\sqrt "),
    (re.compile(r"(?<![\\a-zA-Z])pi\b|\u03c0"), r"\\pi "),
    (re.compile(r"(?<!\\)\b(?:infinity|infty|inf|oo)\b|\u221e"), r"\\infty "),
    (re.compile(r"(\\sqrt\s*\[[^\]]*\])\s*(\w)"), r"\1{\2}"),
    (re.compile(r"<=|\u2264"), r"\\le "),
    (re.compile(r">=|\u2265"), r"\\ge "),
    (re.compile(r"!=|\u2260"), r"\\ne "),
    (re.compile(r"\u222a"), r"\\cup "),
    (re.compile(r"\*\*"), "^"),
    (re.compile(r"\*|\u00d7"), r"\\cdot "),
    (_MIXED, "+"),
    (re.compile(r"(?<=\d)[eE]([-+]?\d{1,2})(?!\d)"), r" \\cdot 10^{\1}"),
    (re.compile(r"(?<=\d)\s*(?=\\frac\s*\{?\d)"), "+"),  # 1\frac{1}{2}
)
"""Plain notation -> LaTeX."""


def normalise_maths(text: str) -> str:
    r"""Return an expression in normal form: no blanks, no layout commands, ``\frac{a}{b}``."""
    text = text.strip().rstrip(".").replace("\u2212", "-").replace("\u00b0", "")
    text = _UNIT.sub("", text.replace("{,}", ","))
    text = _WRAPPED.sub(r"\1", text)
    text = _LAYOUT.sub("", _MIXED.sub("+", text))
    text = text.replace("\\dfrac", "\\frac").replace("\\tfrac", "\\frac").replace("\\%", "%")
    text = re.sub(r"\s+", "", _ASSIGNED.sub("", text.strip().strip("*")))
    text = text.rstrip(".")
    if letter := _LETTER.fullmatch(text):
        return letter[1]
    return _SHORT_FRACTION.sub(r"\\frac{\1}{\2}", text)


def final_expression(response: str, *, whole: bool = False) -> str | None:
    r"""Return the expression that a response ends on, or None.

    This is the last ``\boxed{}``, else the text after the last "answer is", else the last side of
    the last formula, else the whole response if it has one line.

    Args:
        response: The answer of an LLM.
        whole: Keep all sides of an equation, and all parts of a list of equations.
    """
    if (box := boxed(response)) is not None:
        return box
    if stated := _ANSWER.findall(response):
        line = str(stated[-1])
        inside = list(_FORMULA.finditer(line))
        if len(inside) == 1 and _STATED.fullmatch(line[: inside[0].start()]):
            return _last_side("".join(filter(None, inside[0].groups())), whole)
        return line
    if formulas := _FORMULA.findall(response):
        return _last_side("".join(formulas[-1]), whole)
    line = response.strip()
    return line if line and "\n" not in line else None


def _last_side(formula: str, whole: bool) -> str:
    """Return the last side of a chain of equalities, or the whole of an equation in a variable."""
    *sides, last = _EQUALS.split(formula)
    worked_out = sides and last.strip() and not re.search(r"[a-zA-Z]", last.replace("frac", ""))
    return last if worked_out and not whole else formula


def maths_match(
    response: str, ground_truth: str | Sequence[str], query: str | None = None
) -> float:
    """Return 1.0 if the response's final answer equals an accepted one, else 0.0.

    A number (or fraction) as ground truth is compared by value with the response's final number,
    words are compared as text, and other expressions symbolically. A formula copied from the
    question does not count, unless it equals the ground truth as text or is in a box.

    Raises:
        MissingExtraError: math-verify is needed and not installed.
        SandboxError: the process of math-verify cannot be started.
    """
    return float(any(_matches(response, gold, query) for gold in gold_strings(ground_truth)))


def _matches(response: str, gold: str, query: str | None) -> bool:
    response = after_steps(response)
    boxes, several = last_boxes(gold), last_boxes(response)
    gold = ",".join(boxes) or gold
    wanted = normalise_maths(gold)
    if not wanted:
        return False
    if len(several) > 1 and ("," in wanted or _JOINED.search(gold)):
        # Only where several values are asked for; else the last box is the final answer.
        return wanted == normalise_maths(",".join(several)) or equivalent(
            _latex(gold), _latex(",".join(several))
        )
    said = final_expression(response, whole=_is_equation(gold) or "," in wanted)
    given = "" if said is None else normalise_maths(said)
    words = _is_words(gold)
    if given == wanted or (words and given.casefold() == wanted.casefold()):
        return True
    if words or (said is not None and _is_words(said)):
        return False
    if _repeats(response, given, query):
        return False
    if said is not None and _UNFINISHED.search(said) and not _UNFINISHED.search(gold):
        return False
    if _NUMERIC.fullmatch(wanted):
        same = _same_value(response, said, given, wanted)
        if same is not None:
            return same
    if said is None:
        return False
    if _BASE.fullmatch(wanted) or _BASE.fullmatch(given):
        return _same_digits(wanted, given)
    return equivalent(_latex(gold), _latex(said))


def _is_equation(gold: str) -> bool:
    """Return whether a ground truth relates expressions, other than "x = 3"."""
    return _EQUALS.search(_ASSIGNED.sub("", gold.strip().strip("$ "))) is not None


def _repeats(response: str, given: str, query: str | None) -> bool:
    """Return whether an answer without a box ends on a formula of the question."""
    if not given or not query or boxed(response) is not None or _NUMERIC.fullmatch(given):
        return False
    return given in normalise_maths(query)


def _same_value(response: str, said: str | None, given: str, wanted: str) -> bool | None:
    """Compare with a number; return None if the answer is more than a number."""
    value = final_number(wanted)
    plain = _NUMERIC.fullmatch(given) is not None
    if plain or not (boxed(response) is not None or _ends_composed(response, given)):
        # An expression that is more than a number (3\\sqrt{2}) is not its last digit.
        number = final_number(given if plain else response)
        if value is not None and number is not None and same_number(number, value):
            return True
    return False if plain or said is None else None


def _ends_composed(response: str, given: str) -> bool:
    """Return whether a response ends on an expression that is more than a number."""
    last = given.rpartition("=")[2]
    if _NUMERIC.fullmatch(last) or not _COMPOSED.search(last):
        return False
    formulas = list(_FORMULA.finditer(response))
    return not (formulas and re.search(r"\d", response[formulas[-1].end() :]))


def _same_digits(gold: str, said: str) -> bool:
    """Compare numerals with a base (11011_2); either base may be missing."""
    (digits, base), (given, other) = (
        (match[1], match[2]) if (match := _BASE.fullmatch(text)) else (text, None)
        for text in (gold, said)
    )
    return digits == given and (base is None or other is None or base == other)


def _is_words(text: str) -> bool:
    # Words are not products: "even" is not e*v*e*n.
    plain = _WRAPPED.sub(r"\1", text).strip().strip(".*$")
    return _WORDS.fullmatch(plain) is not None or _WRAPPED.fullmatch(text.strip()) is not None


def _latex(text: str) -> str:
    text = text.strip().strip(".*").strip().replace("\u2212", "-").replace("\u00b0", "")
    text = _JOINED.sub(",", text.replace("{,}", ""))
    text = _UNIT.sub("", text)
    text = _LAYOUT.sub(" ", text)
    text = re.sub(r"(?<=\d),(?=\d{3}(?!\d))", "", text)
    for pattern, replacement in _PLAIN:
        text = pattern.sub(replacement, text)
    text = text.strip().rstrip(".")
    if text.count("\\pm") == 1 and "," not in text:
        text = _ASSIGNED.sub("", text)
        text = ",".join(text.replace("\\pm", sign) for sign in "+-")
    return text
