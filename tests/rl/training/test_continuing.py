"""A run that is killed and continued takes the steps of an unbroken one; folders are guarded."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from support.learnable_world import write_answers, write_policy, write_run
from support.training_process import curve, finish_training, kill_training, start_training

pytestmark = [pytest.mark.rl, pytest.mark.timeout(600)]

STEPS = 16


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_answers(tmp_path_factory.mktemp("data"), 64)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_policy(tmp_path_factory.mktemp("base"))


@pytest.mark.parametrize(
    ("lora", "kills"), [(None, (4, 9)), ({"rank": 4}, (4,))], ids=["full", "lora"]
)
def test_a_killed_run_continues_on_the_curve_of_an_unbroken_one(
    tmp_path: Path, base: Path, data: Path, lora: Any, kills: Sequence[int]
) -> None:
    """Killed between checkpoints, and right after one. The curves are equal, number by number, and
    so are the weights."""
    whole = write_run(tmp_path / "whole", base, data, STEPS)
    broken = write_run(tmp_path / "broken", base, data, STEPS)
    adapters = [f"ppo.lora={json.dumps(lora)}"]
    finish_training(whole, *adapters)
    for step in kills:
        _set(broken, "ppo", lora)
        kill_training(broken, tmp_path / "broken" / "run", step)
    output = finish_training(broken, *adapters)
    assert "continuing after step" in output
    assert len(curve(tmp_path / "whole" / "run")) == STEPS
    assert curve(tmp_path / "broken" / "run") == curve(tmp_path / "whole" / "run")
    weights = [
        (tmp_path / name / "run" / "policy" / "model.safetensors").read_bytes()
        for name in ("whole", "broken")
    ]
    assert weights[0] == weights[1]
    folders = sorted(one.name for one in (tmp_path / "broken" / "run" / "checkpoints").iterdir())
    assert folders == ["step_000015", "step_000016"]


def _set(path: Path, key: str, lora: Any) -> None:
    config = yaml.safe_load(path.read_text(encoding="utf-8"))
    config[key]["lora"] = lora
    path.write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")


def refused(config: Path, *more: str) -> str:
    process = start_training(config, *more)
    output, _ = process.communicate(timeout=300)
    assert process.returncode != 0, output
    assert "Traceback" not in output
    return output


def test_a_folder_takes_one_run_at_a_time_and_only_its_own(
    tmp_path: Path, base: Path, data: Path
) -> None:
    config = write_run(tmp_path / "one", base, data, STEPS)
    first = start_training(config)
    lock = tmp_path / "one" / "run" / ".lock"
    deadline = time.monotonic() + 300
    while not lock.is_file():
        assert first.poll() is None, first.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert "another run uses it" in refused(config)
    output, _ = first.communicate(timeout=500)
    assert first.returncode == 0, output

    said = refused(config, "seed=5", "episode.max_turns=2")
    assert "seed" in said
    assert "episode" in said
    assert "set out to a new folder" in said
    more = finish_training(config, f"steps={STEPS + 2}")
    assert f"{STEPS + 2} steps" in more
    assert len(curve(tmp_path / "one" / "run")) == STEPS + 2

    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "mine.txt").write_text("mine", encoding="utf-8")
    assert "is not a training run" in refused(config, f"out={foreign}")
    assert [one.name for one in foreign.iterdir()] == ["mine.txt"]
    assert "is a URI" in refused(config, "out=s3://bucket/run")


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["pool.data=/nowhere"], ["/nowhere"]),
        (['candidates={"nobody": {}}'], ["candidates.nobody", "strong"]),
        (["episode.prompt_tokens=2"], ["all prompts are too long"]),
        (["ppo.batch_size=33"], ["multiple of 32"]),
        (["base=/nowhere/model"], ["/nowhere/model"]),
        (["reward.alpha=1.0"], ["alpha"]),
        (["reward.alpha=[0.0, 0.3]"], ["0.7 (medium)"]),
    ],
)
def test_wrong_input_is_told_and_nothing_is_trained(
    tmp_path: Path, base: Path, data: Path, overrides: Sequence[str], said: Sequence[str]
) -> None:
    """By the dry run, too: what it passes starts."""
    from click.testing import CliRunner

    from waypost.cli import command

    config = write_run(tmp_path, base, data, STEPS)
    words = ["rl", "train", "--config", str(config), *overrides]
    for more in ([], ["--dry-run"]):
        done = CliRunner().invoke(command, [*words, *more])
        assert done.exit_code in (1, 2), done.output
        for text in said:
            assert text in done.output


def test_a_dry_run_tells_what_a_run_would_take(tmp_path: Path, base: Path, data: Path) -> None:
    from click.testing import CliRunner

    from waypost.cli import command

    config = write_run(tmp_path, base, data, STEPS)
    done = CliRunner().invoke(command, ["rl", "train", "--config", str(config), "--dry-run"])
    assert done.exit_code == 0, done.output
    assert "trl 0.11.4" in done.output
    assert "questions: 64, prompts of" in done.output
    assert "strong 10, cheap 1" in done.output
    assert not (tmp_path / "run").exists()


def test_the_papers_run_passes_its_dry_run(
    root: Path, tmp_path: Path, base: Path, data: Path
) -> None:
    """All of router_r1_3b.yaml but its start policy, its questions and its GPUs."""
    from click.testing import CliRunner

    from waypost.cli import command
    from waypost_rl.training.entry import read_run_config

    path = root / "rl" / "waypost_rl" / "configs" / "router_r1_3b.yaml"
    config = read_run_config(path)
    assert config.ppo.batch_size == 64
    assert config.ppo.mini_batch_size * config.ppo.accumulation * config.workers.count == 32
    assert (config.ppo.gamma, config.ppo.lam, config.steps) == (1.0, 1.0, 225)
    words = ["rl", "train", "--config", str(path), "--dry-run"]
    words += [f"base={base}", f"questions.data={data}"]
    done = CliRunner().invoke(command, words)
    assert done.exit_code == 0, done.output
    assert "4 workers" in done.output
