#!/usr/bin/env bash
# pytest-xdist's --dist loadgroup does not group under pytest 9.2.
#
# Versions:  pytest 9.2.0, pytest-xdist 3.8.0
# Expected:  tests of one xdist_group mark run in one process.
# Happens:   xdist distributes them one by one: it appends "@group" to item._nodeid, which pytest 9.2
#            no longer reads (nodeid comes from item._id). There is no warning.
# Here:      tests/support/ray_groups.py has a scheduler that derives groups from test ids.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet "pytest==9.2.0" "pytest-xdist==3.8.0"
cat > "$work/test_group.py" <<'PYTHON'
import time

import pytest


@pytest.mark.xdist_group("together")
@pytest.mark.parametrize("i", range(8))
def test_it(i: int) -> None:
    time.sleep(0.2)
PYTHON
cd "$work"
seen=$(venv/bin/python -m pytest -n 2 --dist loadgroup -v -p no:cacheprovider test_group.py)
grep PASSED <<<"$seen"
processes=$(grep PASSED <<<"$seen" | grep -o '\[gw[0-9]\]' | sort -u | wc -l)
echo "one group of 8 tests ran in $processes processes"
[ "$processes" -eq 2 ] || { echo "changed: look at this finding anew"; exit 1; }
