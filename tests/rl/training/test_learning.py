"""Training learns, shown with three seeds beside a control whose weights never change."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from support.learnable_world import CHEAP_RIGHT, run_config, write_answers, write_policy
from waypost.cli import command
from waypost_rl.training.config import RunConfig
from waypost_rl.training.logs import read_metrics

pytestmark = [pytest.mark.rl, pytest.mark.timeout(1200)]

SEEDS = (0, *(pytest.param(seed, marks=pytest.mark.long) for seed in (1, 2)))
STEPS = 80
CONTROL_STEPS = 24
WINDOW = 15
CHEAP = 0.9
"""Weight of cost at which a right answer of ``cheap`` earns five times that of ``strong``."""


@dataclass(frozen=True)
class World:
    """Data, and a folder of the runs."""

    data: Path
    folder: Path

    def policy(self, seed: int) -> Path:
        """Return the warm-started policy of a seed; make it at the first call."""
        from waypost_rl.training.loop import train

        out = self.folder / f"warm_{seed}"
        if not out.exists():
            out.mkdir()
            warm = {"episodes": 5000, "learning_rate": 3e-3, "batch_size": 32, "query_words": 2}
            base = write_policy(self.folder / f"base_{seed}", seed)
            config = run_config(
                base, self.data, out, steps=1, learn=False, seed=seed, warm_start=warm
            )
            train(RunConfig.model_validate(config), "waypost rl train")
        return out / "warm_start"


def run(world: World, name: str, seed: int, **changed: Any) -> list[dict[str, Any]]:
    """Train, and return the numbers of the steps."""
    from waypost_rl.training.loop import train

    out = world.folder / f"{name}_{seed}"
    out.mkdir()
    steps = {"steps": STEPS, "seed": seed}
    config = run_config(world.policy(seed), world.data, out, **{**steps, **changed})
    train(RunConfig.model_validate(config), "waypost rl train")
    return read_metrics(out)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    import torch

    folder = tmp_path_factory.mktemp("learning")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield World(write_answers(folder / "data"), folder)
    torch.set_num_threads(threads)


def mean(steps: Sequence[dict[str, Any]], name: str) -> float:
    return float(np.mean([step[name] for step in steps]))


@pytest.mark.parametrize("seed", SEEDS)
def test_reward_rises_to_the_strong_candidates(world: World, seed: int) -> None:
    """Without a weight of cost the best policy asks ``strong`` and earns nearly 1."""
    control = run(world, "control", seed, learn=False, steps=CONTROL_STEPS)
    learned = run(world, "quality", seed)
    end = learned[-WINDOW:]
    half = CONTROL_STEPS // 2
    assert mean(control, "reward") < 0.75
    assert abs(mean(control[:half], "reward") - mean(control[half:], "reward")) < 0.2
    assert mean(end, "reward") > 0.82
    assert mean(end, "reward") > mean(control, "reward") + 0.15
    assert mean(end, "route/strong") > 0.9
    assert mean(end, "outcome") > CHEAP_RIGHT + 0.1


@pytest.mark.parametrize("seed", SEEDS)
def test_with_a_weight_of_cost_the_cheap_candidate_is_chosen(world: World, seed: int) -> None:
    """The best policy earns at most .75 x (.1 + .9) + .25 x 0 in well-formed episodes."""
    reward = {"alpha": CHEAP}
    control = run(world, "dear_control", seed, learn=False, reward=reward, steps=CONTROL_STEPS)
    learned = run(world, "cost", seed, reward=reward)
    end = learned[-WINDOW:]
    assert mean(end, "route/cheap") > 0.9
    assert mean(end, "reward") > mean(control, "reward") + 0.15
    assert mean(end, "cost_usd") < 0.6 * mean(control, "cost_usd")


def test_a_finished_run_is_evaluated_exported_and_reported(world: World, tmp_path: Path) -> None:
    """After training, on questions that it never saw, beside its start policy."""
    import yaml

    out = world.folder / "quality_0"
    assert out.is_dir(), "the test of quality made this run"
    text = (out / "report.md").read_text(encoding="utf-8")
    assert "mean reward of an episode" in text
    assert (out / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert list((out / "tensorboard").iterdir())
    shown = json.loads((out / "transcripts" / "step_000080.jsonl").read_text().splitlines()[0])
    assert shown["segments"][0][0] == "policy"

    config = run_config(world.policy(0), world.data, out, steps=STEPS)
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
    start = tmp_path / "start"
    shutil.copytree(world.policy(0), start)
    found = CliRunner().invoke(
        command,
        ["rl", "evaluate", "--config", str(tmp_path / "run.yaml"), "--policy", f"start={start}",
         "--policy", f"trained={out / 'policy'}", "--singles", "--alpha", "0", "--alpha", "0.9",
         "--temperature", "1", "--json"],
    )  # fmt: skip
    assert found.exit_code == 0, found.output
    rows = {(r["subject"], r["alpha"]): r for r in json.loads(found.stdout)["rows"]}
    trained = rows["trained", 0.0]
    assert trained["delta_low"] > 0
    assert trained["shares"]["strong"] > 0.9
    assert rows["start", 0.0]["delta"] == 0
    assert rows["single: strong", 0.0]["outcome"] == 1.0
    assert rows["single: cheap", 0.9]["reward"] > rows["single: strong", 0.9]["reward"]
    assert trained["turns"] >= 2
