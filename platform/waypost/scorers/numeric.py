r"""Find numbers in answers, read them exactly and compare them.

The final number is searched in this order: in the last ``\boxed{}``, after the last ``####``, after
the last "answer is" or "answer:", else the last number of the text (reasoning comes first).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from fractions import Fraction

from waypost.scorers.text import gold_strings, spaced

# Lengths are bounded so that matching takes linear time in the length of a response.
_DIGITS = r"(?:\d{1,3}(?:,\d{3}){1,6}(?!\d)|\d{1,24})(?:\.\d{1,24})?|(?<!\.)\.\d{1,24}"
_NUMBER = re.compile(
    rf"(?<!\w)(?<!\d\.)(?P<sign>[-\u2212])?[$€£]?(?P<sign2>[-\u2212])?(?P<number>{_DIGITS})"
    r"(?:[eE](?P<exponent>[-+]?\d{1,2})(?!\d))?"
    r"(?:\s(?P<part>\d{1,9})(?=\s?/\s?\d))?(?:\s?/\s?(?P<below>\d{1,24}))?"
)
_LATEX_FRACTION = re.compile(
    r"(?P<minus>(?<![\w})\]])[-\u2212]\s*)?"
    r"(?:\\[dt]?frac\s*\{\s*(?P<above>-?\d{1,24})\s*\}\s*\{\s*(?P<below>-?\d{1,24})\s*\}"
    r"|\\[dt]?frac\s*(?P<digit>\d)\s*(?P<under>\d))"
)
_FINAL = re.compile(r"\bfinal\s+answer\s*(?:is|=|:)", re.IGNORECASE)
_BOX = re.compile(r"\\f?box(?:ed)?\{")
_MOST_BETWEEN = 40
_TOGETHER = re.compile(
    r"\s*|(?:(?!\n\n)[^.])*?(?:[,;]|\b(?:and|or)\b)(?:(?!\n\n)[^.])*", re.IGNORECASE
)
_ANSWER = re.compile(r"\banswer\s*(?:is|=|:)", re.IGNORECASE)
_SUM = re.compile(r"[\s\d.,+*/x\u00d7\u00f7()$\u20ac\u00a3%\u2212-]+=")
_SCIENTIFIC = re.compile(
    r"(?<=\d)\s*(?:\\times|\\cdot|[x*\u00d7])\s*10\s*\^\s*\{?\s*(-?\d{1,2})\s*\}?(?!\d)"
)
_NEGATIVE = re.compile(r"\bnegative\s+(?=[$€£]?\d)|(?<=\bis\s)minus\s+(?=[$€£]?\d)", re.IGNORECASE)
_THIN_BLANK = re.compile(r"(?<=\d)[\u00a0\u2009\u202f](?=\d{3}(?!\d))")
_SCALED = re.compile(rf"({_DIGITS})\s+(thousand|million|billion)\b", re.IGNORECASE)
_SCALES = {"thousand": 1000, "million": 10**6, "billion": 10**9}
_LEAST_ROUNDED, _LEAST_CUT, _LEAST_FLOATING, _MOST_DECIMALS = 2, 6, 12, 24
_FLOATING = Fraction(1, 10**11)
_ONES = [
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten",
    "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen",
    "nineteen",
]  # fmt: skip
_TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
_WORD = re.compile(
    rf"\b(?:(?P<tens>{'|'.join(_TENS)})(?:[-\s](?P<unit>{'|'.join(_ONES[1:10])}))?"
    rf"|(?P<small>{'|'.join(_ONES)}))\b",
    re.IGNORECASE,
)


def boxed(text: str) -> str | None:
    r"""Return the content of the last ``\boxed{...}`` (with balanced braces), or None."""
    start = max(text.rfind("\\boxed{"), text.rfind("\\fbox{"))
    end = -1 if start < 0 else _end_of_group(text, begin := text.index("{", start) + 1)
    return None if end < 0 else text[begin:end]


def last_boxes(text: str) -> list[str]:
    r"""Return the contents of the boxes that a response ends on: ``\boxed{1} and \boxed{2}``.

    They belong together where nothing, a comma, "and" or "or" joins them within a sentence.
    """
    found: list[str] = []
    before = 0
    for match in _BOX.finditer(text):
        if match.start() < before:
            continue  # inside another box
        end = _end_of_group(text, match.end())
        if end < 0:
            break
        between = text[before : match.start()]
        if len(between) > _MOST_BETWEEN or not _TOGETHER.fullmatch(between):
            found = []
        found.append(text[match.end() : end])
        before = end + 1
    return found


def after_steps(text: str) -> str:
    """Return the part from "final answer" on, where boxes before it hold only steps."""
    end = text.rfind("\\boxed{")
    stated = None if end < 0 else _FINAL.search(text, end)
    if stated is None or not _NUMBER.search(text, stated.end()):
        return text
    return text[stated.start() :]


def _end_of_group(text: str, begin: int) -> int:
    """Return where the brace closes that opens before a position; -1 where it does not."""
    depth = 1
    for position in range(begin, len(text)):
        depth += (text[position] == "{") - (text[position] == "}")
        if depth == 0:
            return position
    return -1


def final_number(text: str) -> Fraction | None:
    r"""Return the exact final number of a response, or None if it has none.

    Currency signs, thousands separators, percent signs and units are dropped: "$1,234.50" is
    1234.5 and "18%" is 18. "3/4", "1 1/2", ``\frac{3}{4}``, "1e3" and "2 x 10^3" are supported.
    Number words below a hundred count only in a text without digits.
    """
    text = after_steps(text)
    box = boxed(text)
    if box is not None and (number := _last(box)) is not None:
        return number
    if "####" in text and (number := _first(text.rsplit("####", 1)[1])) is not None:
        return number
    stated = list(_ANSWER.finditer(text))
    if stated and (number := _stated(text[stated[-1].end() :])) is not None:
        return number
    return _last(text)


def _stated(text: str) -> Fraction | None:
    # "The answer is 3 + 4 = 7" states 7; "the answer is 7, since 2 + 2 = 4" states 7 as well.
    line = text.strip().split("\n", 1)[0]
    while sum_ := _SUM.match(line):
        line = line[sum_.end() :]
    return _first(line)


def _first(text: str) -> Fraction | None:
    found = _numbers(text)
    return found[0] if found else None


def _last(text: str) -> Fraction | None:
    found = _numbers(text)
    return found[-1] if found else None


def _numbers(text: str) -> list[Fraction]:
    text = spaced(text).replace("{,}", ",").replace("\\$", "$").replace("\\!", "")
    text = _NEGATIVE.sub("-", _THIN_BLANK.sub("", text))
    text = _SCIENTIFIC.sub(r"e\1", _LATEX_FRACTION.sub(_plain_fraction, text))
    values = (_value(match) for match in _NUMBER.finditer(text))
    found = [value for value in values if value is not None]
    return found or [_word_value(match) for match in _WORD.finditer(text)]


def _word_value(match: re.Match[str]) -> Fraction:
    if match["small"]:
        return Fraction(_ONES.index(match["small"].lower()))
    unit = _ONES.index(match["unit"].lower()) if match["unit"] else 0
    return Fraction(10 * _TENS.index(match["tens"].lower()) + 20 + unit)


def _plain_fraction(match: re.Match[str]) -> str:
    above, below = match["above"] or match["digit"], match["below"] or match["under"]
    sign = ""
    for part in (match["minus"], above, below):
        sign = ("" if sign else "-") if part and part.strip()[:1] in "-\u2212" else sign
    return f" {sign}{above.lstrip('-')}/{below.lstrip('-')} "


def _value(match: re.Match[str]) -> Fraction | None:
    value = Fraction(match["number"].replace(",", "")) * Fraction(10) ** int(match["exponent"] or 0)
    sign = -1 if match["sign"] or match["sign2"] else 1
    part, below = int(match["part"] or 0), int(match["below"] or 1)
    if below == 0:
        return None
    if match["part"]:  # a mixed number: 1 1/2
        return sign * (value + Fraction(part, below))
    return sign * value / below


def same_number(said: Fraction, gold: Fraction) -> bool:
    """Return whether two numbers are equal, or equal after rounding the gold like the answer.

    An answer may be rounded to two or more decimals of which two are significant: 0.67 equals 2/3,
    0.7 does not, nor does 0.00 equal 0.001. One with six or more decimals may also be cut off, or
    off in its last places as floating-point arithmetic is.
    """
    if said == gold:
        return True
    decimals = next((n for n in range(_MOST_DECIMALS + 1) if not said * 10**n % 1), None)
    if decimals is None:
        return False
    for places in range(max(decimals, _LEAST_ROUNDED), _MOST_DECIMALS + 1):
        if round(gold, places) == said and abs(said) >= Fraction(10, 10**places):
            return True
    cut = Fraction(int(gold * 10**decimals), 10**decimals)
    if decimals >= _LEAST_CUT and said == cut:
        return True
    return decimals >= _LEAST_FLOATING and abs(said - gold) <= _FLOATING * abs(gold)


def number_match(response: str, ground_truth: str | Sequence[str]) -> float:
    """Return 1.0 if the response's final number is an accepted one, else 0.0.

    The ground truth may be a worked solution that ends with "#### 18", as in GSM8K.
    """
    # "3 million" is 3000000, or 3 if the question asks for millions.
    readings = {final_number(response), final_number(_SCALED.sub(_written_out, response))}
    golds = [final_number(gold) for gold in gold_strings(ground_truth)]
    pairs = ((said, gold) for said in readings for gold in golds)
    return float(any(s is not None and g is not None and same_number(s, g) for s, g in pairs))


def _written_out(match: re.Match[str]) -> str:
    value = Fraction(match[1].replace(",", "")) * _SCALES[match[2].lower()]
    return f"{match[1]} {match[2]}" if value.denominator != 1 else str(value.numerator)
