"""Several processes learn together: the same weights in all of them, whatever each has sampled."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml

from support.learnable_world import write_answers, write_policy, write_run
from support.one_of_two_learners import SKIPPED
from support.served import free_port
from support.training_process import SOURCES, curve, finish_training
from waypost.testing.tiny_model import write_tiny_model

pytestmark = [pytest.mark.rl, pytest.mark.timeout(400)]

WORKERS = 2
BATCH = 32


def learn_together(root: Path, base: Path, kind: str) -> list[list[dict[str, Any]]]:
    """Return the outcomes of the steps of two learners."""
    path = os.pathsep.join(str(root / source) for source in (*SOURCES, "tests"))
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    running = [
        subprocess.Popen(
            [sys.executable, "-P", "-m", "support.one_of_two_learners", str(base), kind],
            env={**os.environ, **shared, "PYTHONPATH": path, "OMP_NUM_THREADS": "1",
                 "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for rank in range(WORKERS)
    ]  # fmt: skip
    try:
        said = [process.communicate(timeout=200) for process in running]
    finally:
        for process in running:
            process.kill()
    assert [process.returncode for process in running] == [0, 0], said
    return [json.loads(out.splitlines()[-1]) for out, _ in said]


@pytest.mark.parametrize("kind", ["full", "lora"])
def test_workers_have_the_same_weights_and_skip_together(
    root: Path, tmp_path: Path, kind: str
) -> None:
    """Also where a mini-batch is over the ratio limit in one of them alone, be it the last of its
    optimizer step, whose backward pass would have joined the gradients."""
    first, second = learn_together(root, write_tiny_model(tmp_path), kind)
    assert [one["digest"] for one in first] == [one["digest"] for one in second]
    for steps in (first, second):
        assert tuple(step["skipped"] for step in steps[1:]) == SKIPPED
    moved = [before["digest"] != after["digest"] for before, after in pairwise(first)]
    assert moved == [skipped < 2 for skipped in SKIPPED]
    assert [one["kl"] for one in first[1:]] == [one["kl"] for one in second[1:]]


def test_ray_train_runs_the_workers_and_one_alone_continues(tmp_path: Path) -> None:
    base, data = write_policy(tmp_path / "base"), write_answers(tmp_path / "data", 64)
    path, run = write_run(tmp_path / "a", base, data, 4), tmp_path / "a" / "run"
    config = yaml.safe_load(path.read_text(encoding="utf-8"))
    config["ppo"]["mini_batch_size"] = BATCH // WORKERS
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    said = finish_training(path, f"workers.count={WORKERS}")
    assert "4 steps, reward" in said
    assert "step 4/4 reward" in said
    steps = curve(run)
    assert len(steps) == 4
    # Means over the episodes of both workers, not of one.
    tokens = [step["tokens"] for step in steps]
    assert all((mean * BATCH).is_integer() for mean in tokens)
    assert not all((mean * BATCH / WORKERS).is_integer() for mean in tokens)
    assert all(step["gradient_norm"] > 0 for step in steps)

    said = finish_training(path, "steps=5")
    assert "continuing after step 4" in said
    assert curve(run)[:4] == steps
    assert len(curve(run)) == 5
