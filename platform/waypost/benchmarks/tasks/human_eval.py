"""HumanEval: complete a Python function from its signature and docstring.

Data set openai/openai_humaneval: 164 rows in the split test, MIT licence. Chen et al. 2021,
"Evaluating Large Language Models Trained on Code".
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from typing import Any

from waypost.benchmarks.base import Benchmark, Fields, Row, RowError, Source


class HumanEval(Benchmark):
    """Function signatures. ``test`` defines ``check(candidate)``, which the ground truth calls."""

    name = "human_eval"
    summary = "HumanEval: complete a Python function"
    source = Source("openai/openai_humaneval", "test", ("openai_humaneval",))
    columns: Mapping[str, Any] = {"prompt": str, "test": str, "entry_point": str}
    metric = "code"
    max_tokens = 768

    def question(self, row: Row) -> Fields:
        """Return a prompt that asks for the whole function."""
        query = "Complete this Python function. Return the whole function, code only."
        parts = [_helpers(row), row["test"].strip(), f"check({row['entry_point']})"]
        return Fields(f"{query}\n\n{row['prompt'].strip()}\n", "\n\n".join(filter(None, parts)))


def _helpers(row: Row) -> str:
    """Return the prompt's helper functions that the test uses, with their imports.

    Three tests call such a function (``encode_shift``); an answer need not repeat it.
    """
    head, test = _parsed("prompt", f"{row['prompt']}\n    pass\n"), _parsed("test", row["test"])
    functions = [node for node in head.body if isinstance(node, ast.FunctionDef)]
    if row["entry_point"] not in {node.name for node in functions}:
        raise RowError("entry_point", "names no function of the prompt")
    used = {node.id for node in ast.walk(test) if isinstance(node, ast.Name)}
    helpers = [one for one in functions if one.name in used and one.name != row["entry_point"]]
    if not helpers:
        return ""
    imports = [node for node in head.body if isinstance(node, ast.Import | ast.ImportFrom)]
    return "\n\n".join(ast.unparse(node) for node in [*imports, *helpers])


def _parsed(column: str, source: str) -> ast.Module:
    try:
        return ast.parse(source)
    except (SyntaxError, ValueError) as error:
        raise RowError(column, f"is not Python: {type(error).__name__}") from None


BENCHMARK = HumanEval()
