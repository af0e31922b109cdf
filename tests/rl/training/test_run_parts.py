"""What a run draws, when it ends, what it writes: the parts of the loop that need no model."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from waypost.contracts.errors import ConfigError
from waypost_rl.training.checkpoint import Progress
from waypost_rl.training.config import RewardConfig, RunConfig, StopConfig
from waypost_rl.training.logs import METRICS, RunLog, progress_line, read_metrics
from waypost_rl.training.loop import why_to_end
from waypost_rl.training.report import moving_mean, write_report
from waypost_rl.training.schedule import alphas_of, questions_of, seed_of
from waypost_rl.training.workers import Worker

CONFIG: dict[str, Any] = {
    "out": "run",
    "base": "model",
    "candidates": {"a": {"output_price": 1.0}},
    "pool": {"kind": "replayed", "data": "data"},
    "questions": {"data": "data"},
}


def test_every_question_is_drawn_once_before_one_is_drawn_again() -> None:
    drawn = [at for step in range(10) for at in questions_of(step, 7, 35, seed=3)]
    assert sorted(drawn[:35]) == sorted(drawn[35:]) == list(range(35))
    assert drawn[:35] != drawn[35:]
    assert questions_of(4, 7, 35, seed=3) == drawn[28:35]
    assert questions_of(0, 7, 35, seed=4) != drawn[:7]
    assert Counter(questions_of(0, 10, 3, seed=0)).most_common(1)[0][1] == 4


def test_weights_of_cost_are_drawn_uniformly_and_seeds_differ() -> None:
    counts = Counter(a for step in range(200) for a in alphas_of(step, 8, (0.0, 0.7, 0.9), 0))
    assert set(counts) == {0.0, 0.7, 0.9}
    assert min(counts.values()) > 450
    assert alphas_of(3, 8, (0.0, 0.9), 1) == alphas_of(3, 8, (0.0, 0.9), 1)
    seeds = {seed_of(step, seed, rank) for step in range(50) for seed in (0, 1) for rank in (0, 1)}
    assert len(seeds) == 200


def test_workers_share_a_batch() -> None:
    parts = [list(range(12))[Worker(rank, 3).share(12)] for rank in range(3)]
    assert parts == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]
    assert Worker().sum({"a": 2.0}) == {"a": 2.0}


@pytest.mark.parametrize(
    ("rewards", "entropies", "stop", "ends"),
    [
        ([0.1] * 30, [0.9] * 30, StopConfig(), ""),
        ([0.1] * 30, [0.9] * 30, StopConfig(patience=5, window=4), "no better mean reward"),
        ([i / 30 for i in range(30)], [0.9] * 30, StopConfig(patience=5, window=4), ""),
        ([0.1] * 6, [0.9] * 6, StopConfig(patience=5, window=4), ""),
        ([0.1] * 8, [0.9] * 4 + [0.01] * 4, StopConfig(route_entropy=0.05, window=4), "one LLM"),
        ([0.1] * 8, [0.9] * 6 + [0.01] * 2, StopConfig(route_entropy=0.05, window=4), ""),
        ([0.1] * 8, [None] * 8, StopConfig(route_entropy=0.05, window=4), ""),
    ],
)
def test_a_run_ends_early_for_a_reason(
    rewards: list[float], entropies: list[float | None], stop: StopConfig, ends: str
) -> None:
    found = why_to_end(Progress(len(rewards), tuple(rewards), tuple(entropies)), stop)
    assert ends in found
    assert bool(found) == bool(ends)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"ppo": {"batch_size": 10, "mini_batch_size": 4, "accumulation": 1}}, "multiple of 4"),
        ({"reward": {"alpha": []}}, "the list is empty"),
        ({"reward": {"alpha": [0.5]}}, "0.7 (medium)"),
        ({"reward": {"cost_low": 1.0}}, "set both, or neither"),
        ({"reward": {"cost_low": 2.0, "cost_high": 1.0}}, "more than cost_low"),
        ({"candidates": {}}, "candidates"),
        ({"pool": {"kind": "guess"}}, "pool"),
        ({"speed": 3}, "speed"),
    ],
)
def test_configs_are_strict(changed: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match="validation error") as caught:
        RunConfig.model_validate(CONFIG | changed)
    assert said in str(caught.value)


def test_a_list_of_alphas_is_a_budget_of_the_prompt() -> None:
    assert not RewardConfig().budget
    several = RewardConfig(alpha=(0.0, 0.9))
    assert several.budget
    assert several.alphas == (0.0, 0.9)


def numbers(step: int) -> dict[str, float]:
    return {
        "reward": step / 100,
        "well_formed": 1.0,
        "outcome": 0.5,
        "cost_reward": 0.5,
        "kl": 0.01,
        "tokens_per_s": 100.0,
        "route/a": 0.25,
        "route/b": 0.75,
    }


def test_metrics_have_one_line_a_step_after_a_kill(tmp_path: Path) -> None:
    log = RunLog(tmp_path, 0, 10)
    for step in range(1, 8):
        log.step(step, numbers(step))
    log.close()
    with (tmp_path / METRICS).open("a", encoding="utf-8") as file:
        file.write('{"step": 8, "rew')  # killed here
    again = RunLog(tmp_path, 5, 10)
    for step in range(6, 9):
        again.step(step, numbers(step))
    again.close()
    assert [one["step"] for one in read_metrics(tmp_path)] == list(range(1, 9))
    (tmp_path / METRICS).write_text("not a line\n{}\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="not a line of a training run"):
        read_metrics(tmp_path)


def test_a_progress_line_tells_reward_parts_speed_and_what_is_left() -> None:
    line = progress_line(10, 70, numbers(10), each_s=30.0)
    for part in ("step 10/70", "reward 0.100", "kl 0.010", "100 tokens/s", "30 min left"):
        assert part in line
    assert "no learning" in progress_line(
        1, 2, {k: v for k, v in numbers(1).items() if k != "kl"}, 1.0
    )


def test_the_report_has_curves_and_the_command(tmp_path: Path) -> None:
    log = RunLog(tmp_path, 0, 20)
    for step in range(1, 21):
        log.step(step, numbers(step))
    log.close()
    described = {"base": "tiny", "cost_scale": {"low": 1.0, "high": 2.0}, "ended": "it was late"}
    (tmp_path / "run.json").write_text(json.dumps(described), encoding="utf-8")
    write_report(tmp_path, "waypost rl train --config mine.yaml")
    text = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert "| mean reward of an episode | 0.055 | 0.155 |" in text
    assert "share of searches: b" in text
    assert "it was late" in text
    assert "`waypost rl train --config mine.yaml`" in text
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_a_moving_mean_takes_what_is_there() -> None:
    assert moving_mean([1.0, 3.0, 5.0], window=2) == [1.0, 2.0, 4.0]
    assert moving_mean([float("nan"), 3.0], window=2)[1] == 3.0
