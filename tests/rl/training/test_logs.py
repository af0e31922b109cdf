"""The numbers of each step of a run: lines, TensorBoard, and the line of progress."""

from __future__ import annotations

import pytest

from waypost_rl.training.logs import RunLog, progress_line, read_metrics

pytestmark = pytest.mark.rl  # tensorboardX

NUMBERS = {
    "reward": 0.25, "well_formed": 1.0, "outcome": 0.25, "cost_reward": 0.5, "kl": 0.01,
    "tokens_per_s": 80.0, "route_entropy": None,
}  # fmt: skip


def test_a_step_in_which_nobody_searched_has_no_entropy_of_routes(tmp_path):
    log = RunLog(tmp_path, 0, 3)
    log.step(1, NUMBERS)
    log.step(2, NUMBERS | {"route_entropy": 0.5})
    log.close()
    assert [one["route_entropy"] for one in read_metrics(tmp_path)] == [None, 0.5]
    (board,) = (tmp_path / "tensorboard").iterdir()
    assert board.read_bytes().count(b"route_entropy") == 1
    assert board.read_bytes().count(b"well_formed") == 2


def test_a_run_that_continues_drops_the_lines_after_its_checkpoint(tmp_path):
    log = RunLog(tmp_path, 0, 3)
    for step in (1, 2):
        log.step(step, NUMBERS)
    log.close()
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 3, "rew')  # killed while it wrote
    again = RunLog(tmp_path, 1, 3)
    again.step(2, NUMBERS | {"reward": 0.5})
    again.close()
    assert [(one["step"], one["reward"]) for one in read_metrics(tmp_path)] == [(1, 0.25), (2, 0.5)]


def test_the_line_of_progress():
    assert progress_line(2, 62, NUMBERS, 3.0) == (
        "step 2/62 reward 0.250 (well formed 1.00, outcome 0.25, cost 0.50) kl 0.010 80 tokens/s "
        "3.0 s a step 3 min left"
    )
