#!/usr/bin/env bash
# An answer that only repeats the task gets the full score.
#
# Versions:  math-verify 0.9.0 with antlr4-python3-runtime 4.13.2, sympy 1.14.0
# Expected:  the gold answer 391 and an answer that ends with "the product $17 \cdot 23$" differ,
#            because the answer has no result.
# Happens:   verify() evaluates the answer's expression to 391 and returns True. The same holds for
#            3/4 - 1/4 against 1/2. An answer that is cut off after restating a task of one
#            expression scores 1.
# Here:      a formula of the question, or an expression that is not evaluated, is no answer
#            (waypost/scorers/maths.py; DECISIONS.md, 37).
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet \
    "math-verify==0.9.0" "antlr4-python3-runtime==4.13.2" "sympy==1.14.0"
"$work/venv/bin/python" - <<'PYTHON'
from math_verify import parse, verify

CASES = [
    ("$391$", r"We have to compute the product $17 \cdot 23$.", True),
    (r"$\frac{1}{2}$", r"Evaluate $\frac{3}{4}-\frac{1}{4}$.", True),
    ("$391$", "The product is $390$.", False),
]
seen = [verify(parse(gold), parse(answer)) for gold, answer, _ in CASES]
for (gold, answer, _), found in zip(CASES, seen):
    print(f"gold {gold}, answer {answer!r}: {found}")
if seen != [wanted for *_, wanted in CASES]:
    raise SystemExit("changed: look at this finding anew")
PYTHON
