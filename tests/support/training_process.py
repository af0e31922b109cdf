"""A training of Router-R1 in a process of its own, as a job starts it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from waypost_rl.training.logs import METRICS, read_metrics

SOURCES = ("platform", "routers", "rl")
TIMES = frozenset({"tokens_per_s", "rollout_s", "learning_s", "step_s"})
"""Numbers of a step that tell the time, and are others in each run."""


def start_training(
    config: Path, *more: str, python: str = sys.executable, env: Mapping[str, str] | None = None
) -> subprocess.Popen[str]:
    """Start a training with the sources of this checkout.

    Args:
        config: Its file.
        more: Overrides, ``key=value``.
        python: Interpreter of the environment of training.
        env: Further environment variables.
    """
    root = Path(__file__).parents[2]
    path = os.pathsep.join(str(root / source) for source in SOURCES)
    return subprocess.Popen(
        [python, "-P", "-m", "waypost_rl.train", "--config", str(config), *more],
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", **(env or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish_training(config: Path, *more: str, **options: Any) -> str:
    """Run a training to its end and return its output; options are those of `start_training`."""
    process = start_training(config, *more, **options)
    output, _ = process.communicate(timeout=500)
    assert process.returncode == 0, output
    return output


def kill_training(config: Path, run: Path, step: int, *more: str, **options: Any) -> None:
    """Start a training and kill it as soon as it has written the numbers of a step."""
    process = start_training(config, *more, **options)
    deadline = time.monotonic() + 400
    while steps_of(run) < step:
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.kill()
    process.communicate()


def steps_of(run: Path) -> int:
    """Return how many lines of numbers a run has written by now."""
    path = run / METRICS
    return len(path.read_text(encoding="utf-8").splitlines()) if path.is_file() else 0


def curve(run: Path) -> list[dict[str, Any]]:
    """Return the numbers of all steps, without those that tell the time."""
    return [
        {name: value for name, value in step.items() if name not in TIMES}
        for step in read_metrics(run)
    ]
