"""Generated Python: cut out of an answer, joined with its prompt, run against tests."""

from __future__ import annotations

import ast
import re
from collections.abc import Sequence

from waypost.benchmarks.sandbox import run_tests

_FENCE = re.compile(r"```[ \t]*([\w+-]*)[^\n]*\n(.*?)(?:\n[ \t]*```|\Z)", re.DOTALL)
_STARTS = re.compile(r"^(?:def |async def |class |import \w|from [\w.]+ import|@\w)", re.MULTILINE)
_DEFINES = re.compile(r"^(?:async )?(?:def|class) |^\w+\s*=\s*lambda", re.MULTILINE)
_MAX_LINES = 400


def extract_code(response: str, query: str | None = None) -> str:
    """Return the program that a response holds; "" where there is none.

    It is the first fenced block that defines something (a fence cut off by the token limit
    counts), else the text from the first ``def``, ``class`` or import on. Lines at the end
    that do not parse (prose, a cut-off example) are dropped.

    Args:
        response: What the model said.
        query: The prompt. Where it holds the head of a function (the HumanEval kind), its
            imports are put before the program, and a response that is the body alone is put
            under its head.
    """
    blocks = [body for _, body in _FENCE.findall(response)]
    chosen = next((body for body in blocks if _DEFINES.search(body)), None)
    head = _head(query or "")
    if chosen is None:
        rest = blocks[0] if blocks else response
        start = _STARTS.search(rest)
        defines = _DEFINES.search(rest)
        if start is None or defines is None:
            return _parsable(f"{head}\n{_indented(rest)}") if head else _parsable(rest)
        chosen = rest[start.start() :]
    return _parsable("\n".join([*_imports(head), chosen]))


def code_match(response: str, ground_truth: str | Sequence[str], query: str | None = None) -> float:
    """Return 1.0 where the program in a response passes the tests, else 0.0.

    Args:
        response: What the model said.
        ground_truth: Assert statements as text, or a list of them; all must hold.
        query: The prompt, see `extract_code`.

    Raises:
        SandboxError: where no child process can be run; that says nothing of the program.
    """
    code = extract_code(response, query)
    tests = ground_truth if isinstance(ground_truth, str) else "\n".join(ground_truth)
    return float(bool(code) and run_tests(code, tests).passed)


def _head(query: str) -> str:
    """Return imports, ``def`` line and docstring of the prompt's function, or ""."""
    match = _STARTS.search(query)
    if match is None:
        return ""
    text = query[match.start() :].split("```")[0].rstrip()
    return text if _parses(f"{text}\n    pass") and _DEFINES.search(text) else ""


def _imports(head: str) -> list[str]:
    return [line for line in head.splitlines() if line.startswith(("import ", "from "))]


def _indented(body: str) -> str:
    lines = body.strip("\n").splitlines()
    if any(line and not line[0].isspace() for line in lines[:1]):
        lines = [f"    {line}" for line in lines]
    return "\n".join(lines)


def _parsable(text: str) -> str:
    """Return the longest run of lines from the start that is a Python program, or ""."""
    lines = text.strip("\n").splitlines()[:_MAX_LINES]
    while lines:
        program = "\n".join(lines)
        if _parses(program):
            return program
        lines.pop()
    return ""


def _parses(text: str) -> bool:
    try:
        ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return True
