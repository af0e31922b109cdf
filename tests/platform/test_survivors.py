"""What a killed program started ends, also what it started in blocks that nest."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from waypost.survivors import Watch, end, marked


def until(holds: Callable[[], bool]) -> None:
    end_s = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < end_s
        time.sleep(0.02)


SLEEPER = [sys.executable, "-P", "-c", "import time; time.sleep(600)"]
CHILD = """
import subprocess, sys, time
sleeper = [sys.executable, "-c", "import time; time.sleep(600)"]
subprocess.Popen(sleeper, start_new_session=True)
time.sleep(600)
"""
LAUNCHER = """
import subprocess, sys, time
from waypost.survivors import Watch
with Watch() as watch:
    subprocess.Popen([sys.executable, "-c", sys.argv[1]], start_new_session=True)
    print(watch.mark, flush=True)
    time.sleep(600)
"""


@contextmanager
def launched(child: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-P", "-c", LAUNCHER, child]
    launcher = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        yield launcher
    finally:
        launcher.kill()
        launcher.wait()
        launcher.stdout.close()


def test_what_a_killed_launcher_started_ends():
    with launched(CHILD) as launcher:
        mark = int(launcher.stdout.readline())
        until(lambda: len(list(marked(mark))) == 3)  # the launcher, its child and the child's
        launcher.kill()
        until(lambda: not list(marked(mark)))


def test_what_outlives_the_block_ends_and_nothing_else_does():
    with subprocess.Popen(SLEEPER) as stranger:
        with Watch() as watch:
            child = subprocess.Popen(SLEEPER, start_new_session=True)
            until(lambda: list(marked(watch.mark)) == [child.pid])
        assert child.wait(30) == -signal.SIGKILL
        assert stranger.poll() is None
        assert end(watch.mark, grace_s=0) == []
        stranger.kill()


INNER = """
import subprocess, sys, time
from waypost.survivors import Watch
with Watch() as watch:
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    print(watch.mark, flush=True)
    watch.mark_no_more()
    time.sleep(600)
"""


def test_where_blocks_nest_each_ends_its_own():
    """As where `waypost serve` is killed while a replica has vLLM start its processes."""
    with launched(INNER) as launcher:
        outer, inner = (int(launcher.stdout.readline()) for _ in range(2))
        until(lambda: len(list(marked(outer))) == 2)  # the launcher and its child again
        until(lambda: len(list(marked(inner))) == 1)
        launcher.kill()
        until(lambda: not list(marked(outer)))
        until(lambda: not list(marked(inner)))


FORKED = """
import os, sys, time
from waypost.survivors import Watch
with Watch() as watch:
    if os.fork() == 0:  # as vLLM's worker: it holds open what the launcher holds
        time.sleep(600)
    print(watch.mark, flush=True)
    sys.stdin.read()
print("over", flush=True)
"""


@pytest.mark.parametrize("kill", [True, False], ids=["killed", "ends"])
def test_what_was_forked_in_the_block_ends(kill):
    command = [sys.executable, "-P", "-c", FORKED]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, text=True, **pipes) as launcher:
        mark = int(launcher.stdout.readline())
        until(lambda: len(list(marked(mark))) == 2)
        if kill:
            launcher.kill()
        launcher.stdin.close()
        until(lambda: not list(marked(mark)))
        assert launcher.stdout.read() == ("" if kill else "over\n")


def test_what_starts_after_the_marking_lives_on():
    with Watch() as watch:
        watch.mark_no_more()
        child = subprocess.Popen(SLEEPER)
    assert child.poll() is None
    child.kill()
    child.wait()
