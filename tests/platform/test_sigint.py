"""Tests of Ctrl-C hold where the test run itself was started with it ignored."""

from __future__ import annotations

import signal
import subprocess
import sys

INNER = "test_a_child_hears_ctrl_c"


def test_a_child_hears_ctrl_c():
    code = "import time; print('here', flush=True); time.sleep(600)"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        child.send_signal(signal.SIGINT)
        try:
            assert child.wait(60) == -signal.SIGINT
        finally:
            child.kill()


def test_it_does_where_a_script_started_the_tests_in_the_background(root):
    """bash starts what has an ampersand with SIGINT ignored, unless a terminal controls it."""
    pytest = [sys.executable, "-P", "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    script = '"$@" & wait $!'
    words = ["bash", "-c", script, "bash", *pytest, f"{__file__}::{INNER}"]
    done = subprocess.run(words, cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed" in done.stdout
