r"""MATH: competition mathematics with worked solutions whose answer is in a ``\boxed{}``.

Data set EleutherAI/hendrycks_math: seven configurations, one per subject, 7,500 training and 5,000
test rows, MIT licence. A file of HuggingFaceH4/MATH-500 (500 of the test rows) can be read, too; it
has the same columns and a column ``answer``. Hendrycks et al. 2021, "Measuring Mathematical Problem
Solving With the MATH Dataset".
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from waypost.benchmarks.base import Benchmark, Fields, Row, RowError, Source

_BOX = re.compile(r"\\(?:boxed|fbox)\s*(?:\{|(?P<bare>[^\s{}$]))")
_SUBJECTS = (
    "algebra",
    "counting_and_probability",
    "geometry",
    "intermediate_algebra",
    "number_theory",
    "prealgebra",
    "precalculus",
)


class Maths(Benchmark):
    """Problems in LaTeX; the ground truth is the expression in the solution's last box."""

    name = "math"
    summary = "MATH: competition mathematics"
    source = Source("EleutherAI/hendrycks_math", "test", _SUBJECTS)
    columns: Mapping[str, Any] = {"problem": str, "solution": str}
    optional: Mapping[str, Any] = {"answer": str}
    metric = "math"
    max_tokens = 1024

    def question(self, row: Row) -> Fields:
        r"""Return a prompt that asks for the steps and the answer in ``\boxed{}``."""
        truth = (row.get("answer") or last_box(row["solution"]) or "").strip()
        if not truth:
            raise RowError("solution", r"holds no \boxed{} answer")
        ask = r"Reason step by step, and put the final answer in \boxed{}."
        return Fields(f"{row['problem'].strip()}\n{ask}", truth)


def last_box(solution: str) -> str | None:
    r"""Return the content of the last ``\boxed{...}``, ``\fbox{...}`` or ``\boxed 2``, or None."""
    found = list(_BOX.finditer(solution))
    if not found:
        return None
    last = found[-1]
    if last["bare"] is not None:
        return last["bare"]
    depth = 1
    for position in range(last.end(), len(solution)):
        depth += (solution[position] == "{") - (solution[position] == "}")
        if depth == 0:
            return solution[last.end() : position]
    return None


BENCHMARK = Maths()
