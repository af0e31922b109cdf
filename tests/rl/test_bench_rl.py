"""The bench of Router-R1's training: its table and aims by hand, and a small run."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from waypost.cli import command
from waypost.testing.tiny_model import stand_in, write_tiny_model
from waypost_rl import bench
from waypost_rl.bench import ALONE, BATCHED, CACHED, SHARED, Options


def rate(value: float) -> dict[str, dict[str, float]]:
    one = {"median": value, "least": value - 1, "most": value + 1}
    return {"tokens_per_s": one, "cpu_s_per_1k": one}


ROLLOUTS = {CACHED: rate(60), SHARED: rate(80), BATCHED: rate(31), ALONE: rate(12)}
STEP = {"seconds": 12.0, "outside": 0.2, "peak_mb": 2500.0}


def run(model: str, *words: str) -> dict:
    done = CliRunner().invoke(
        command, ["bench", "rl", "--quick", "--json", "--model", model, *words]
    )
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def test_ratios_and_aims_by_hand():
    full = STEP | {"outside": 0.1}
    result = bench._result(Options(), ROLLOUTS, {"lora": STEP, "full": full})
    rollouts, steps = result.tables
    assert [row[-1] for row in rollouts.rows] == ["1.00", "0.750", "1.94", "5.00"]
    assert steps.rows[0] == ["adapters (LoRA)", "12.0", "20.0 %", "2,500"]
    assert [(one.value, one.reached) for one in result.aims] == [
        (5.0, True), (pytest.approx(60 / 31), False), (0.2, False),
    ]  # fmt: skip


def test_without_trl_the_table_says_how_to_get_it():
    result = bench._result(Options(), ROLLOUTS, {})
    assert result.tables[1].rows == [["needs TRL 0.11: make env-router-r1-cpu", *["n/a"] * 3]]
    assert result.aims[-1].reached is None


def test_prompts_begin_alike_where_they_should():
    options = Options(prompt_tokens=40, turns=2, information_tokens=5)
    prompts, inserted = bench._texts(options, 3, 0.75, 1000, seed=0)
    assert {len(one) for one in prompts} == {40}
    assert len({tuple(one[:30]) for one in prompts}) == 1
    assert len({tuple(one[30:]) for one in prompts}) == 3
    assert [len(one) for turn in inserted for one in turn] == [5, 5, 5]
    others, _ = bench._texts(options, 3, 0.0, 1000, seed=0)
    assert len({tuple(one[:30]) for one in others}) == 3


def test_every_way_samples_every_token():
    found = run(stand_in("causal"), "--no-ppo", "--new-tokens", "3")
    assert list(found["rollouts"]) == [CACHED, SHARED, BATCHED, ALONE]
    assert all(one["tokens_per_s"]["median"] > 0 for one in found["rollouts"].values())
    assert found["machine"]["packages"]["transformers"]
    assert found["ppo"] == {}


def test_a_model_that_is_none_is_told(tmp_path):
    done = CliRunner().invoke(command, ["bench", "rl", "--quick", "--model", str(tmp_path)])
    assert done.exit_code != 0
    assert f"no weights for {tmp_path}" in done.output


@pytest.mark.rl
def test_ppo_steps_are_measured_in_processes_of_their_own(tmp_path):
    found = run(str(write_tiny_model(tmp_path / "tiny")))
    assert set(found["ppo"]) == {"full", "lora"}
    for one in found["ppo"].values():
        assert one["seconds"] > 0
        assert 0 < one["outside"] < 1
        assert one["peak_mb"] > 100
