"""MBPP: short Python functions from a sentence, checked by three tests.

Data set google-research-datasets/mbpp, CC BY 4.0. Configuration sanitized: 427 rows checked by hand
(257 in test), columns prompt, test_imports, test_list. Configuration full: 974 rows (500 in test),
columns text, test_setup_code, test_list. Both can be read. Austin et al. 2021, "Program Synthesis
with Large Language Models".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from waypost.benchmarks.base import Benchmark, Fields, Row, RowError, Source


class MBPP(Benchmark):
    """Function descriptions. The prompt shows the tests, because only they name the function."""

    name = "mbpp"
    summary = "MBPP: short Python functions from a sentence"
    source = Source("google-research-datasets/mbpp", "test", ("sanitized",))
    columns: Mapping[str, Any] = {"test_list": list[str]}
    optional: Mapping[str, Any] = {
        "prompt": str,
        "text": str,
        "test_imports": list[str],
        "test_setup_code": str,
    }
    metric = "code"
    max_tokens = 512

    def question(self, row: Row) -> Fields:
        """Return a prompt that asks for the code; imports and set-up run before the tests."""
        task = (row.get("prompt") or row.get("text") or "").strip()
        if not task:
            raise RowError("prompt", "missing or empty, and so is text; expected one of the two")
        tests = [test.strip() for test in row["test_list"] if test.strip()]
        if not tests:
            raise RowError("test_list", "is empty; expected assert statements")
        before = [*row.get("test_imports", ()), row.get("test_setup_code", "").strip()]
        shown = "\n".join(tests)
        query = (
            f"Write a Python function. {task}\nIt must pass these tests:\n{shown}\n"
            "Return only the code."
        )
        return Fields(query, "\n".join([*filter(None, before), *tests]))


BENCHMARK = MBPP()
