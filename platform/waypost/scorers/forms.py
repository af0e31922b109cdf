"""Normal forms of answers: two answers to a question agree if their normal forms are the same.

=======  =========================================================================
letter   the option that the answer ends on; the question has options
number   the final number, to six significant digits
math     the final expression, without layout; a number by its value
code     "passes" if the tests that the question states pass, else the syntax tree
text     the normalised text; one that another contains agrees with it
=======  =========================================================================

The form is that of the question's metric. A served request has none: options in its text make it a
letter, the head or the tests of a function make it code, and answers that state a number are
compared as numbers.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Literal

from waypost.contracts.errors import SandboxError, SchemaError
from waypost.sandbox.run import Limits, run_tests
from waypost.scorers.letters import final_letter
from waypost.scorers.maths import final_expression, normalise_maths
from waypost.scorers.numeric import final_number
from waypost.scorers.own_answer import answer_field, own_answer
from waypost.scorers.program import extract_code
from waypost.scorers.text import SHORT_ANSWER_WORDS, tokens, without_reasoning

Form = Literal["letter", "number", "math", "code", "text", "any"]
"""``any`` is a number where an answer states one, else a text."""

Similar = Callable[[Sequence[str], str], Sequence[bool]]
"""Whether each of some texts means the same as another text."""

_OF_METRIC: dict[str, Form] = {
    "letter": "letter",
    "em_mc": "letter",
    "number": "number",
    "gsm8k": "number",
    "math": "math",
    "code": "code",
    "code_eval": "code",
}
_OPTION = re.compile(r"^[ \t]*\(?([A-Z])[.):][ \t]+(\S.*)$", re.MULTILINE)
_PROGRAM = re.compile(r"^[ \t]*(?:def \w+\(|assert \w|>{3} )|\bpython function\b", re.M | re.I)
_ASSERT = re.compile(r"^[ \t]*(assert .+)$", re.MULTILINE)
_EXAMPLE = re.compile(r"^[ \t]*>{3} (\w+\(.*\))[ \t]*\n[ \t]*([^\s>].*)$", re.MULTILINE)
_STATES_NUMBER = re.compile(
    r"####|\\boxed\{\s*[-\d]|\banswer\b[^\n]{0,20}?\d|^\W*\d[\d.,]*\W*$", re.I
)
_LIMITS = Limits(wall_s=3.0, cpu_s=2)


def form_of(query: str, metric: str = "") -> Form:
    """Return the form of the answers to a question.

    Args:
        query: The question with its options.
        metric: Name of its scorer; "" where unknown.
    """
    if metric:
        return _OF_METRIC.get(metric.strip().lower(), "text")
    if len(stated_options(query)) > 1:
        return "letter"
    return "code" if _PROGRAM.search(query) else "any"


@lru_cache(maxsize=256)
def stated_options(query: str) -> tuple[tuple[str, str], ...]:
    """Return label and text of the options that a question lists from A on, each on a line."""
    found: list[tuple[str, str]] = []
    for label, text in _OPTION.findall(query):
        if label == "A":
            found = []
        if label == chr(ord("A") + len(found)):
            found.append((label, text.strip()))
    return tuple(found)


def stated_tests(query: str) -> str:
    """Return the tests of a function that a question states: asserts, and examples as asserts."""
    asserts = [line.strip() for line in _ASSERT.findall(query)]
    examples = [f"assert {call} == {value.strip()}" for call, value in _EXAMPLE.findall(query)]
    return "\n".join(one for one in asserts + examples if _parses(one))


def normal_form(answer: str, query: str, metric: str = "") -> str | None:
    """Return the normal form of an answer; None where it has none, as an answer without a letter.

    Args:
        answer: The unchanged response of the LLM.
        query: The question with its options.
        metric: Name of its scorer; "" where unknown.
    """
    form = form_of(query, metric)
    said = without_reasoning(answer)
    if form == "code":
        return _program(said, query)
    said = own_answer(said)
    field = answer_field(said)
    said = said if field is None else field
    if form == "letter":
        choices = [{"label": label, "text": text} for label, text in stated_options(query)]
        return final_letter(said, choices or None)
    if form == "math":
        return _expression(said)
    if form == "number" or (form == "any" and _STATES_NUMBER.search(said)):
        return _number(said)
    return " ".join(tokens(said)) or None


def group_answers(
    answers: Sequence[str | None], query: str, metric: str = "", similar: Similar | None = None
) -> list[int]:
    """Return the group of each answer: equal numbers for answers that agree, -1 for none.

    The groups are numbered from 0 in the order of their first answers, so that a later answer does
    not change the groups of earlier ones.

    Args:
        answers: Responses; None where there is none.
        query: The question with its options.
        metric: Name of its scorer; "" where unknown.
        similar: Compares texts by their meaning; None compares them by their words.
    """
    texts = form_of(query, metric) in ("text", "any")
    groups: dict[str, int] = {}
    found: list[int] = []
    for answer in answers:
        form = None if answer is None else normal_form(answer, query, metric)
        if form is None:
            found.append(-1)
            continue
        if form not in groups:
            known = _group_of(form, groups, similar) if texts else None
            groups[form] = max(groups.values(), default=-1) + 1 if known is None else known
        found.append(groups[form])
    return found


def _group_of(form: str, groups: Mapping[str, int], similar: Similar | None) -> int | None:
    """Return the group of the first text that means the same; None if there is none."""
    for other, group in groups.items():
        if _contains(form, other) or _contains(other, form):
            return group
    if similar is None or not groups or _is_number(form):
        return None
    alike = zip(groups.values(), similar(list(groups), form), strict=True)
    return next((group for group, same in alike if same), None)


def _contains(longer: str, shorter: str) -> bool:
    """Return whether the first words of a text contain another text, as in `short_answer`."""
    words = longer.split()[:SHORT_ANSWER_WORDS]
    return not _is_number(shorter) and f" {shorter} " in f" {' '.join(words)} "


def _is_number(form: str) -> bool:
    return form.lstrip("-")[:1].isdigit()


def _number(said: str) -> str | None:
    found = final_number(said)
    try:
        return None if found is None else f"{float(found):.6g}"
    except OverflowError:
        return str(found)


def _expression(said: str) -> str | None:
    found = final_expression(said)
    form = "" if found is None else normalise_maths(found)
    if re.fullmatch(r"-?[\d.,/]+%?|-?\\frac\{-?\d+\}\{-?\d+\}", form):
        return _number(form) or form
    return form or _number(said)


def _program(said: str, query: str) -> str | None:
    code = extract_code(said, query)
    if not code:
        return None
    return _outcome(code, stated_tests(query))


@lru_cache(maxsize=4096)
def _outcome(code: str, tests: str) -> str | None:
    try:
        if tests and run_tests(code, tests, _LIMITS).passed:
            return "passes"
    except (SandboxError, SchemaError):  # without its tests a program is compared as it is written
        pass
    tree = ast.parse(code)
    empty = True
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            first = node.body[0]
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                node.body = node.body[1:] or [ast.Pass()]
            empty = empty and isinstance(node.body[0], ast.Pass)
    return None if empty and not _does_more(tree) else ast.unparse(tree)


def _does_more(tree: ast.Module) -> bool:
    """Return whether a program has more than definitions and imports."""
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Import, ast.ImportFrom)
    return any(not isinstance(node, kinds) for node in tree.body)


def _parses(text: str) -> bool:
    try:
        ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return True
