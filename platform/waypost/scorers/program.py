"""Extract generated Python from an answer, join it with its prompt and run it against tests."""

from __future__ import annotations

import ast
import re
import textwrap
from collections.abc import Sequence

from waypost.sandbox.run import run_tests

_FENCE = re.compile(
    r"^(?P<indent>[ \t]*(?:[-*+]|\d{1,3}[.)])?[ \t]*)(?P<fence>```+|~~~+)(?P<info>[^\n]*)"
    r"(?P<body>\n.*?)?(?:\n[ \t]*(?P=fence)|\Z)",
    re.DOTALL | re.MULTILINE,
)
_ONE_LINE = re.compile(r"```([^`\n]+)```")
_WRONG = re.compile(
    r"\b(?:not|don.t|never|avoid|wrong|incorrect|bad|buggy|instead of|rather than)\b[^.!?\n]*$",
    re.IGNORECASE,
)
"""The end of a text before a block that shows how not to do it."""
_LANGUAGE = re.compile(r"[ \t]*(?:\{?\.?(?:python3?|py3?)\b\}?[ \t]*)?", re.IGNORECASE)
_STARTS = re.compile(r"^(?:def |async def |class |import \w|from [\w.]+ import|@\w)", re.MULTILINE)
_DEFINES = re.compile(r"^(?:async )?(?:def|class) |^\w+\s*=\s*lambda", re.MULTILINE)
_LAMBDA = re.compile(r"^(\w+)\s*=\s*lambda", re.MULTILINE)
_DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
_MAX_LINES = 400


def extract_code(response: str, query: str | None = None) -> str:
    """Return the program in a response; "" if there is none.

    The program is the fenced blocks with a definition, one after the other, with blocks that only
    import: where two define one name, the later corrects the earlier. A fence may stand in a list,
    and code on the line of the fence. One cut off by the token limit counts; a function without a
    body, repeated from the question, does not. Without such a block the program is the text from
    the first ``def``, ``class`` or import on. Trailing lines that do not parse (prose, a cut-off
    example) are dropped.

    Args:
        response: The response of the LLM.
        query: The prompt. If it contains the head of a function (as in HumanEval), its imports
            and helpers are put before the program, and a response that is only the body is put
            under that head.
    """
    blocks = _blocks(response)
    head = _head(query or "")
    if any(_DEFINES.search(body) for body in blocks):
        return _parsable("\n".join([_context(head), *_joined(blocks)]))
    rest = blocks[0] if blocks else response
    start = _STARTS.search(rest)
    if start is None or not _DEFINES.search(rest):
        return _under(head, rest) if head else _parsable(rest)
    return _parsable("\n".join([_context(head), rest[start.start() :]]))


def code_match(response: str, ground_truth: str | Sequence[str], query: str | None = None) -> float:
    """Return 1.0 if the program in a response passes the tests, else 0.0.

    Args:
        response: The response of the LLM.
        ground_truth: Assert statements as text, or a list of them; all must pass.
        query: The prompt, see `extract_code`.

    Raises:
        SandboxError: no child process can be run, whatever the program.
    """
    code = extract_code(response, query)
    tests = ground_truth if isinstance(ground_truth, str) else "\n".join(ground_truth)
    return float(bool(code) and run_tests(code, tests).passed)


def _blocks(response: str) -> list[str]:
    """Return the fenced blocks of a response, without the indentation of a list around them.

    A block after the first that is announced as wrong is left out.
    """
    found: list[str] = []
    text = _ONE_LINE.sub("```\\n\\1\\n```", response)
    end = 0
    for match in _FENCE.finditer(text):
        before, end = text[end : match.start()], match.end()
        if found and _WRONG.search(before.strip()):
            continue
        info = match["info"]
        first = info[_LANGUAGE.match(info).end() :]  # type: ignore[union-attr]
        body = (match["body"] or "").removeprefix("\n")
        found.append(f"{first}\n{body}" if _STARTS.match(first) else textwrap.dedent(body))
    return found


def _head(query: str) -> str:
    """Return imports, ``def`` line and docstring of the prompt's function, or ""."""
    match = _STARTS.search(query)
    if match is None:
        return ""
    text = query[match.start() :].split("```")[0].rstrip()
    return text if _parses(f"{text}\n    pass") and _DEFINES.search(text) else ""


def _context(head: str) -> str:
    """Return the imports and helpers before the prompt's function."""
    if not head:
        return ""
    body = ast.parse(f"{head}\n    pass").body
    return "\n".join(ast.unparse(node) for node in body[:-1])


def _joined(blocks: list[str]) -> list[str]:
    kept: list[str] = []
    for block in blocks:
        tree = ast.parse(_parsable(block))
        imports = all(isinstance(node, ast.Import | ast.ImportFrom) for node in tree.body)
        names = {node.name for node in tree.body if isinstance(node, _DEFINITIONS)}
        names |= set(_LAMBDA.findall(block))
        if not imports and (not names or all(map(_is_stub, tree.body))):
            continue
        kept.append(_parsable(block))
    return kept


def _is_stub(node: ast.stmt) -> bool:
    if isinstance(node, ast.Import | ast.ImportFrom):
        return True
    return isinstance(node, ast.FunctionDef) and all(
        isinstance(line, ast.Pass)
        or (isinstance(line, ast.Expr) and isinstance(line.value, ast.Constant))
        for line in node.body
    )


def _under(head: str, body: str) -> str:
    """Put a body under the head of its function; its indentation may be missing."""
    lines = body.strip("\n").splitlines()
    if lines and lines[0] and not lines[0][0].isspace():
        first = "\n".join([head, f"    {lines[0]}", *lines[1:]])
        if _parses(first) and not any(line[:1].strip() for line in lines[1:]):
            return first
        lines = [f"    {line}" for line in lines]
    return _parsable("\n".join([head, *lines]))


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
