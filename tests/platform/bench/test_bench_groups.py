"""What a bench starts ends with it, whatever ends it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from waypost.bench import _groups as groups

SLEEPS = [sys.executable, "-c", "import time; time.sleep(600)"]

# Two servers, one of which takes no SIGTERM and has a child; then it waits, as a bench does.
BENCH = """
import subprocess, sys, time
from waypost.bench import _groups as groups
code = '''
import signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print(child.pid, flush=True)
time.sleep(600)
'''
with groups.ended_on_sigterm(within_s=0.2):
    first = groups.begin([sys.executable, "-c", "import time; time.sleep(600)"])
    second = groups.begin([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    print(first.pid, second.pid, second.stdout.readline().strip(), flush=True)
    time.sleep(600)
"""


def gone(pid: int, within_s: float = 10.0) -> bool:
    """Return whether a process ends; a zombie that its new parent has yet to collect has ended."""
    until = time.monotonic() + within_s
    while time.monotonic() < until:
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return True
        time.sleep(0.02)
    return False


def test_sigterm_ends_every_server_of_a_bench_and_what_they_started():
    bench = subprocess.Popen([sys.executable, "-c", BENCH], stdout=subprocess.PIPE, text=True)
    assert bench.stdout is not None
    with bench, bench.stdout:
        pids = [int(word) for word in bench.stdout.readline().split()]
        assert len(pids) == 3
        bench.send_signal(signal.SIGTERM)
        assert bench.wait(30) == 128 + signal.SIGTERM
    assert all(map(gone, pids))


def test_a_signal_during_a_start_waits_until_the_process_is_known(monkeypatch):
    class Interrupted(subprocess.Popen):
        def __init__(self, *arguments, **options):
            super().__init__(*arguments, **options)
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(groups.subprocess, "Popen", Interrupted)
    before = signal.getsignal(signal.SIGTERM)
    with groups.ended_on_sigterm():
        with pytest.raises(SystemExit) as ended:
            groups.begin(SLEEPS)
        (process,) = groups._known.processes
        assert process.poll() is None
    assert ended.value.code == 128 + signal.SIGTERM
    assert process.returncode == -signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) == before


def test_finish_takes_a_process_that_has_ended():
    process = groups.begin([sys.executable, "-c", ""])
    process.wait()
    groups.finish(process)
    groups.finish(process)
    assert process not in groups._known.processes
