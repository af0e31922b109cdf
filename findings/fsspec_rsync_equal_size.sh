#!/usr/bin/env bash
# fsspec's rsync does not copy a file whose content changed and whose size did not.
#
# Versions:  fsspec 2026.9.0
# Expected:  after a second rsync the target equals the source.
# Happens:   by default rsync compares only sizes. A file with other bytes of the same length is not
#            copied, without a warning. A table of fixed-width numbers can stay stale.
# Here:      storage/folders.py copies files and compares size and modification time (DECISIONS 58).
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet "fsspec==2026.9.0"
mkdir "$work/source"
"$work/venv/bin/python" - "$work/source" <<'PYTHON'
import sys
from pathlib import Path

import fsspec
from fsspec.generic import rsync

source = Path(sys.argv[1])
store = fsspec.filesystem("memory")


def copied(text: str) -> str:
    (source / "prices.txt").write_text(text)
    rsync(f"file://{source}", "memory:///copy")
    return store.cat_file("/copy/prices.txt").decode()


first, longer = copied("1.50\n"), copied("12.50\n")
same_size = copied("13.75\n")
print(f"first {first!r}, longer {longer!r}, other content of the same size {same_size!r}")
if (first, longer, same_size) != ("1.50\n", "12.50\n", "12.50\n"):
    raise SystemExit("changed: look at this finding anew")
PYTHON
