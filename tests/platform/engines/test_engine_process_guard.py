from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from waypost.engines._vllm_batch import Warden

KILLED = """
import os, signal, subprocess
from waypost.engines._vllm_batch import Warden
worker = subprocess.Popen(["sleep", "300"], stdout=subprocess.DEVNULL)
warden = Warden([worker.pid])
print(worker.pid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def lives(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def test_the_processes_of_one_that_is_killed_end_too():
    done = subprocess.run([sys.executable, "-c", KILLED], stdout=subprocess.PIPE, check=False)
    worker = int(done.stdout)
    deadline = time.monotonic() + 60
    while lives(worker):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_dismissed_warden_ends_nothing():
    worker = subprocess.Popen(["sleep", "300"])
    try:
        Warden([worker.pid]).dismiss()  # which waits for the end of what would kill
        assert worker.poll() is None
    finally:
        worker.kill()
        worker.wait()
