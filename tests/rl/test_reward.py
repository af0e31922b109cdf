"""Rewards, by hand."""

from __future__ import annotations

import subprocess
import sys

import pytest

from waypost.contracts.errors import ConfigError, SchemaError
from waypost_rl.episode_reward import RewardSettings, score_episode
from waypost_rl.protocol import Candidates
from waypost_rl.reward import (
    Call,
    FixedScale,
    Price,
    SlidingScale,
    delegation_cost,
    outcome_reward,
    total_reward,
)
from waypost_rl.transcript import Transcript

PRICES = {"small": Price(output=0.2, input=0.1), "large": Price(output=0.88, input=0.8)}
CALLS = [Call("small", output_tokens=100, input_tokens=50), Call("large", 200, 10)]


# --- cost


def test_cost_is_output_tokens_times_price() -> None:
    # 100 * 0.2 + 200 * 0.88
    assert delegation_cost(CALLS, PRICES) == pytest.approx(196.0)


def test_cost_of_input_and_of_the_policy_are_options() -> None:
    # 196 + 50 * 0.1 + 10 * 0.8
    assert delegation_cost(CALLS, PRICES, include_input=True) == pytest.approx(209.0)
    # 196 + 1000 * 0.05
    cost = delegation_cost(CALLS, PRICES, policy_tokens=1000, policy_price=0.05)
    assert cost == pytest.approx(246.0)


def test_no_delegation_costs_nothing_and_a_missing_price_is_an_error() -> None:
    assert delegation_cost([], PRICES) == 0.0
    with pytest.raises(SchemaError, match="no price for 'other'"):
        delegation_cost([Call("other", 1)], PRICES)


# --- scales


def test_fixed_scale_takes_percentiles_of_square_roots() -> None:
    # roots 0, 1, ..., 20: the 5th percentile lies at index 1, the 95th at index 19
    scale = FixedScale.measure([root * root for root in range(21)])
    assert (scale.low, scale.high) == pytest.approx((1.0, 19.0))


@pytest.mark.parametrize(
    ("cost", "reward"),
    [(0, 1.0), (4, 1.0), (25, 0.75), (64, 0.25 + 0.125 * 2), (100, 1 - 8 / 12), (196, 0.0),
     (1e9, 0.0)],
)  # fmt: skip
def test_fixed_scale_is_one_at_low_and_zero_at_high(cost: float, reward: float) -> None:
    # low 2, high 14: 25 -> 1 - (5 - 2) / 12, 64 -> 1 - 6 / 12, 100 -> 1 - 8 / 12
    assert FixedScale(2.0, 14.0).reward(cost) == pytest.approx(reward)


def test_degenerate_scale_gives_a_half() -> None:
    assert FixedScale.measure([9.0, 9.0]).reward(9.0) == 0.5
    assert FixedScale(3.0, 3.0).reward(100.0) == 0.5


def test_fixed_scale_is_stored_as_data() -> None:
    scale = FixedScale(1.5, 4.0)
    assert scale.to_dict() == {"low": 1.5, "high": 4.0}
    assert FixedScale.from_dict(scale.to_dict()) == scale


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"low": 1},
        {"low": 2, "high": 1},
        {"low": "x", "high": 1},
        {"low": 0, "high": float("nan")},
    ],
)
def test_a_broken_scale_is_refused(data: dict[str, object]) -> None:
    with pytest.raises(SchemaError, match="low <= high"):
        FixedScale.from_dict(data)


@pytest.mark.parametrize("costs", [[], [-1.0], [float("inf")]])
def test_costs_that_cannot_be_measured_are_refused(costs: list[float]) -> None:
    with pytest.raises(SchemaError, match="cost"):
        FixedScale.measure(costs)


def test_sliding_scale_starts_at_a_half_and_follows_its_window() -> None:
    scale = SlidingScale(size=2)
    assert scale.reward(4.0) == 0.5
    # roots 2 and 4: percentiles 2.1 and 3.9; 4 is above
    assert scale.reward(16.0) == 0.0
    # the 4 has left: roots 4 and 3, 3 is below 3.05
    assert scale.reward(9.0) == 1.0
    assert list(scale.costs) == [16.0, 9.0]


# --- outcome


def test_outcome_is_exact_match_or_the_best_f1() -> None:
    assert outcome_reward("The Paris!", ["Rome", "Paris"], "exact_match") == 1.0
    assert outcome_reward("Paris, France", ["Paris"], "exact_match") == 0.0
    # said 2 words, gold 1, shared 1: 2 / 3
    assert outcome_reward("Paris, France", ["Paris"], "f1") == pytest.approx(2 / 3)
    assert outcome_reward(None, [""], "exact_match") == 0.0


# --- total


def test_a_malformed_episode_earns_minus_one_whatever_else() -> None:
    for rule in ("reference", "paper"):
        assert total_reward(False, 1.0, 1.0, 0.5, rule) == -1.0


@pytest.mark.parametrize(
    ("outcome", "cost", "alpha", "reference", "paper"),
    [
        (1.0, 0.25, 0.0, 1.0, 1.0),
        (1.0, 0.25, 0.6, 0.4 + 0.15, 0.55),
        (0.0, 1.0, 0.6, 0.0, 0.6),
        (0.0, 0.0, 0.9, 0.0, 0.0),
        (0.5, 0.5, 0.8, 0.5 * (0.2 + 0.4), 0.2 * 0.5 + 0.8 * 0.5),
    ],
)
def test_total_by_both_rules(
    outcome: float, cost: float, alpha: float, reference: float, paper: float
) -> None:
    assert total_reward(True, outcome, cost, alpha) == pytest.approx(reference)
    assert total_reward(True, outcome, cost, alpha, "paper") == pytest.approx(paper)


@pytest.mark.parametrize("alpha", [-0.1, 1.0, 2.0, float("nan")])
def test_alpha_outside_its_range_is_an_error(alpha: float) -> None:
    with pytest.raises(ConfigError, match="0 <= alpha < 1"):
        total_reward(True, 1.0, 1.0, alpha)


# --- a whole episode

POOL = Candidates(["small", "large"])
ASKED = (
    Transcript()
    .add("policy", "<think>Who?</think><search>large:Who did it?</search>")
    .add("environment", "\n\n<information>Bo</information>\n\n")
)
RIGHT = ASKED.add("policy", "<think>Bo then.</think><answer>Bo</answer>")
WRONG = ASKED.add("policy", "<think>Hm, Al.</think><answer>Al</answer>")
ENDLESS = ASKED.add("policy", "<think>Bo then.</think>")
SCALE = FixedScale(2.0, 14.0)


def test_a_right_episode() -> None:
    # cost 100 * 0.88 = 88... of one call: root 9.3808, reward 1 - 7.3808 / 12 = 0.38493
    reward = score_episode(
        RIGHT, ["Bo"], [Call("large", 100)], POOL, PRICES, SCALE, RewardSettings(alpha=0.6)
    )
    assert reward.faults == ()
    assert (reward.form, reward.outcome) == (0.0, 1.0)
    assert reward.cost_usd_millionths == pytest.approx(88.0)
    assert reward.cost == pytest.approx(0.38493, abs=1e-5)
    assert reward.total == pytest.approx(0.4 + 0.6 * 0.38493, abs=1e-5)


def test_a_wrong_episode_earns_nothing_by_default_and_its_cost_by_the_paper() -> None:
    calls = [Call("large", 100)]
    assert score_episode(WRONG, ["Bo"], calls, POOL, PRICES, SCALE).total == 0.0
    paper = RewardSettings(alpha=0.6, rule="paper")
    total = score_episode(WRONG, ["Bo"], calls, POOL, PRICES, SCALE, paper).total
    assert total == pytest.approx(0.6 * 0.38493, abs=1e-5)


def test_an_episode_without_an_answer_is_malformed() -> None:
    reward = score_episode(ENDLESS, ["Bo"], [], POOL, PRICES, SCALE)
    assert (reward.total, reward.form) == (-1.0, -1.0)
    assert "answer_count" in reward.faults


def test_the_package_loads_no_torch_no_trainer_and_no_network_library() -> None:
    code = (
        "import sys, waypost_rl.episode_reward, waypost_rl.environment, waypost_rl.routes\n"
        "bad = {'torch', 'trl', 'transformers', 'ray', 'aiohttp', 'httpx', 'requests'}\n"
        "assert not bad & set(sys.modules), bad & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
