#!/usr/bin/env bash
# Hypothesis with derandomize=True: the examples of a test depend on which other modules are imported.
#
# Versions:  hypothesis 6.170.15, pytest 9.2.0
# Expected:  every run has the same examples "until you update Hypothesis, Python, or the test function"
#            (documentation of derandomize).
# Happens:   Hypothesis draws some values from the constants of all local modules that the process has
#            imported. The examples change if another test file of the run imports a module, so a test
#            can pass alone and fail in a run of all. Runs of the same files have the same examples.
# Here:      a failure that `pytest FILE` does not show is sought with all files of its process; what
#            must be tried in every run stands in @example (CONTRIBUTING.md, Tests).
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check hypothesis==6.170.15 pytest==9.2.0
mkdir "$work/shop"
cd "$work/shop"
cat >prices.py <<'PYTHON'
MOST = 31_337
PYTHON
cat >test_a_prices.py <<'PYTHON'
import prices


def test_most():
    assert prices.MOST > 0
PYTHON
cat >test_orders.py <<'PYTHON'
import json
import os
from pathlib import Path

from hypothesis import given, settings, strategies as st

seen = []


@settings(derandomize=True)
@given(st.integers(0, 1_000_000))
def test_order(count):
    seen.append(count)


def test_record():
    Path(os.environ["RECORD"]).write_text(json.dumps(seen))
PYTHON
examples() { # FILE TESTS...: run the tests, and record the examples of test_order
    RECORD="$work/$1" "$work/venv/bin/python" -m pytest -q -p no:cacheprovider "${@:2}" >"$work/log" || {
        cat "$work/log"
        exit 1
    }
}
examples alone test_orders.py
examples again test_orders.py
examples beside test_a_prices.py test_orders.py
"$work/venv/bin/python" - "$work" <<'PYTHON' | tee "$work/seen"
import json
import sys
from pathlib import Path

alone, again, beside = (json.loads((Path(sys.argv[1]) / n).read_text()) for n in ("alone", "again", "beside"))
print(f"alone, twice: the same examples: {alone == again}")
print(f"alone and after test_a_prices.py: the same examples: {alone == beside}")
print(f"the constant 31337 of prices.py is an example alone: {31_337 in alone}, beside: {31_337 in beside}")
print(f"first difference: example {next(i for i, (a, b) in enumerate(zip(alone, beside)) if a != b)}", file=sys.stderr)
PYTHON
diff "$work/seen" - <<'SEEN'
alone, twice: the same examples: True
alone and after test_a_prices.py: the same examples: False
the constant 31337 of prices.py is an example alone: False, beside: True
SEEN
echo "as described"
