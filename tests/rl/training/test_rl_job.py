"""A training as a job of a head that was started by hand: submitted, killed, submitted again."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.learnable_world import write_answers, write_policy, write_run
from support.processes import descendants
from support.ray_head import RayHead, ray_head
from support.training_process import curve, finish_training, steps_of

pytestmark = [pytest.mark.rl, pytest.mark.timeout(400)]

STEPS = 12
KILLED = 7
"""The step after which the job is killed: past two checkpoints, and not at one."""


@pytest.fixture
def head() -> Iterator[RayHead]:
    folder = Path(tempfile.mkdtemp(prefix="wp-"))  # Ray's sockets need a short path
    try:
        with ray_head(folder, python=sys.executable) as running:
            yield running
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def submit(head: RayHead, folder: Path, ship: str, *overrides: str) -> subprocess.Popen[str]:
    """Submit the training of a folder."""
    call = [sys.executable, "-P", "-m", "waypost.cli", "submit", "--ship", ship]
    call += ["--env", "OMP_NUM_THREADS=1"]
    words = ["waypost", "rl", "train", "--config", "run.yaml", *overrides]
    return subprocess.Popen(
        [*call, "--", *words], cwd=folder, env=head.environment,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def kill_training_of(head: RayHead) -> None:
    """Kill the process that trains, not the shell and the supervisor above it."""
    titles = list(descendants(head.pid))
    (pid,) = [pid for pid, title in titles if title.startswith("python -m waypost.cli rl train")]
    os.kill(pid, signal.SIGKILL)


def test_a_training_as_a_job_is_killed_and_continued_on_the_same_curve(
    head: RayHead, tmp_path: Path
) -> None:
    data, base = write_answers(tmp_path / "data", 64), write_policy(tmp_path / "base")
    whole = write_run(tmp_path / "whole", base, data, STEPS)
    write_run(tmp_path / "job", base, data, STEPS)
    finish_training(whole)

    run = tmp_path / "shared" / "run"
    first = submit(head, tmp_path / "job", "auto", f"out={run}")
    deadline = time.monotonic() + 200
    while steps_of(run) < KILLED:
        assert first.poll() is None, first.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    kill_training_of(head)
    out, said = first.communicate(timeout=100)
    assert first.returncode not in (0, 130), f"{out}\n{said}"
    assert "packages" not in said  # the head is of the environment of training
    assert steps_of(run) < STEPS

    again = submit(head, tmp_path / "job", "nothing", f"out={run}")
    out, said = again.communicate(timeout=200)
    assert again.returncode == 0, f"{out}\n{said}"
    assert "the same command goes on" in said
    assert "continuing after step 6" in out
    assert f"{STEPS} steps, reward" in out
    assert curve(run) == curve(tmp_path / "whole" / "run")
