#!/usr/bin/env bash
# A second writer of an Optuna journal uses a whole core while it waits, if the journal's path is
# relative and has a folder.
#
# Versions:  optuna 5.0.0
# Expected:  a writer that waits for the lock sleeps between attempts, for any path.
# Happens:   the lock is a symbolic link to the given path. Relative to the lock's folder this is
#            `out/out/journal.log`, which does not exist. Reading its age fails, and the loop repeats
#            without a sleep. The grace period of a stale lock never starts.
# Here:      sweeps have a journal of Waypost, locked by flock (DECISIONS 60).
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet "optuna==5.0.0"
mkdir "$work/out"
cd "$work"
"$work/venv/bin/python" - <<'PYTHON'
import os
import threading
import time

from optuna.storages.journal import JournalFileSymlinkLock


def busy_share(path: str) -> float:
    open(path, "w").close()
    held, second = JournalFileSymlinkLock(path), JournalFileSymlinkLock(path)
    held.acquire()
    threading.Timer(2, held.release).start()
    wall, cpu = time.perf_counter(), time.thread_time()
    second.acquire()
    share = (time.thread_time() - cpu) / (time.perf_counter() - wall)
    second.release()
    return share


absolute, relative = busy_share(os.path.abspath("out/journal.log")), busy_share("out/journal.log")
print(f"CPU while waiting: absolute path {absolute:.1%}, relative path {relative:.1%}")
if absolute > 0.02 or relative < 0.05:
    raise SystemExit("changed: look at this finding anew")
PYTHON
