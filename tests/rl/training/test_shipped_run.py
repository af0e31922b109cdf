"""The shipped training of a small policy can start as it is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from waypost.cli import command

pytestmark = [pytest.mark.rl, pytest.mark.timeout(600)]

CONFIG = "rl/waypost_rl/configs/router_r1.yaml"
QUESTIONS = 400
"""Minimum number of usable questions, of 449 in the split of short ones."""


def test_the_shipped_training_passes_the_dry_run(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(root)
    done = CliRunner().invoke(command, ["rl", "train", "--config", CONFIG, "--dry-run"])
    assert done.exit_code == 0, done.output
    found = re.search(r"^questions: (\d+), prompts", done.output, flags=re.MULTILINE)
    assert found, done.output
    assert int(found[1]) >= QUESTIONS


@pytest.mark.parametrize("value", ["null", "bf16"])
def test_a_precision_is_one_that_yaml_reads_as_it_is_written(
    root: Path, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.chdir(root)
    words = ["rl", "train", "--config", CONFIG, "--dry-run", f"ppo.mixed_precision={value}"]
    done = CliRunner().invoke(command, words)
    assert done.exit_code == 0, done.output
