#!/usr/bin/env bash
# math-verify drops what begins with an upright e, and then answers of opposite sign are equal.
#
# Version:   math-verify 0.9.0, latex2sympy2-extended 1.11.0
# Expected:  1 - \frac{1}{\mathrm{e}} and 1 + \frac{1}{\mathrm{e}} differ, as they do with a plain e.
# Happens:   with \mathrm{e} or \mathbf{e} the parsed answer is [1, '1 - \frac{1}{']: the expression ends
#            at the command, its first number is the value, and the two answers are equal in it. The
#            package's own tests expect that of 1 - 1/e and 1 + 1/e.
# Here:      Waypost's metric `math` unwraps \mathrm, \text and \mathbf before anything is parsed.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
  math-verify==0.9.0 latex2sympy2-extended==1.11.0 antlr4-python3-runtime==4.13.2
cat >"$work/try.py" <<'PYTHON'
from math_verify import parse, verify

PAIRS = (
    (r"$1 - \frac{1}{e}$", r"$1 + \frac{1}{e}$"),
    (r"$1 - \frac{1}{\mathrm{e}}$", r"$1 + \frac{1}{\mathrm{e}}$"),
    (r"$2 - \frac{3}{\mathrm{e}}$", r"$2 + \frac{5}{\mathrm{e}}$"),
    (r"$1 - \frac{1}{\mathbf{e}}$", r"$1 + \frac{1}{\mathbf{e}}$"),
    (r"$1 - \mathrm{e}$", r"$1 + \mathrm{e}$"),
)
for pair in PAIRS:
    gold, said = map(parse, pair)
    print(*pair, [str(part) for part in gold], "equal" if verify(gold, said) else "different")
PYTHON
"$work/venv/bin/python" "$work/try.py" 2>/dev/null | tee "$work/seen"
diff "$work/seen" - <<'SEEN'
$1 - \frac{1}{e}$ $1 + \frac{1}{e}$ ['-1*1/E + 1', '1 - \\frac{1}{e}'] different
$1 - \frac{1}{\mathrm{e}}$ $1 + \frac{1}{\mathrm{e}}$ ['1', '1 - \\frac{1}{'] equal
$2 - \frac{3}{\mathrm{e}}$ $2 + \frac{5}{\mathrm{e}}$ ['2', '2 - \\frac{3}{'] equal
$1 - \frac{1}{\mathbf{e}}$ $1 + \frac{1}{\mathbf{e}}$ ['1', '1 - \\frac{1}{'] equal
$1 - \mathrm{e}$ $1 + \mathrm{e}$ ['1', '1 -'] equal
SEEN
echo "as described"
