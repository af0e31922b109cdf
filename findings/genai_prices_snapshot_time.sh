#!/usr/bin/env bash
# The time of a genai-prices snapshot is that of the import, not of its data.
#
# Version:   genai-prices 0.2.3
# Expected:  get_snapshot().timestamp of the packaged data, with from_auto_update False, tells how old
#            the prices are.
# Happens:   two imports a second apart tell two times, both of today: the field is filled when the
#            snapshot is made. The packaged data have no date of their own; the newest start_date
#            among the conditional prices is the nearest thing to one.
# Here:      `waypost serve --check` and /v1/models show the library's version and the day since which
#            its newest price holds, never the snapshot's time.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env"
"$work/env/bin/pip" install --quiet --disable-pip-version-check genai-prices==0.2.3

cat >"$work/tell.py" <<'PYTHON'
from genai_prices.data_snapshot import get_snapshot

snapshot = get_snapshot()
print(snapshot.timestamp.isoformat(), snapshot.from_auto_update)
PYTHON
"$work/env/bin/python" "$work/tell.py" >"$work/first"
sleep 1
"$work/env/bin/python" "$work/tell.py" >"$work/second"
cat "$work/first" "$work/second"

"$work/env/bin/python" - "$work/first" "$work/second" <<'PYTHON'
import sys
from datetime import UTC, datetime

lines = [open(path).read().split() for path in sys.argv[1:]]
first, second = (datetime.fromisoformat(line[0]) for line in lines)
now = datetime.now(first.tzinfo or None)
assert first < second, "the time is one of the data: the finding no longer holds"
assert (now - second).total_seconds() < 60, "the time is not that of the import any more"
assert {line[1] for line in lines} == {"False"}
print("both are the time of the import, and from_auto_update is False")
PYTHON
